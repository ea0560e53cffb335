"""Requests made up from the OpenAPI of the page: whatever is sent, it answers with a sentence and never with a 500."""

from __future__ import annotations

import os

import pytest
from helpers_app import fill
from helpers_library import make_predictions, make_record

from tumble.library import Library

pytest.importorskip("schemathesis")

from benchmarks.fuzz import Failure, attack, operations, served_page

#: A number in TUMBLE_FUZZ_EXAMPLES makes a longer run.
N_EXAMPLES = int(os.environ.get("TUMBLE_FUZZ_EXAMPLES", "8"))


@pytest.fixture
def path(tmp_path):
    path = fill(tmp_path / "p.db")
    with Library(path) as library:
        ids = library.particle_ids()
        library.add_labels(ids[:6], ["disc", "bar"] * 3, author="ann", source="test")
        library.add_labels(ids[:2], ["bar", "bar"], author="bob", source="test")
        for name in ("first", "second"):
            library.add_model(make_record(name))
            library.add_predictions(name, ids, make_predictions(len(ids)))
    return path


def test_nothing_gives_a_server_error(path):
    with served_page(path) as (app, url, headers):
        found = operations(app, url)
        paths = {operation.path for operation in found}
        assert {"/label", "/train", "/api/particles", "/api/labels", "/crops/{particle_id}.png"} <= paths
        for operation in found:
            attack(operation, N_EXAMPLES, headers)
        with Library(path) as library:
            assert len(library.label_actions()) > 2  # requests got as far as the library


@pytest.mark.parametrize("broken", ["an error", "a refusal without a sentence"])
def test_the_attack_sees_what_may_not_be(path, broken):
    from starlette.responses import JSONResponse

    with served_page(path) as (app, url, headers):
        (operation,) = [one for one in operations(app, url) if one.label == "GET /api/classes"]

        async def refuse(scope, receive, send):
            status = 500 if broken == "an error" else 400
            await JSONResponse({}, status)(scope, receive, send)

        app.middleware_stack = refuse
        with pytest.raises(Failure, match="/api/classes"):
            attack(operation, 3, headers)
