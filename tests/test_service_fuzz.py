"""Requests made up from the OpenAPI: whatever is sent, the service answers with a sentence and never with a 500."""

from __future__ import annotations

import os

import pytest
from helpers_service import make_service

from tumble.service.run import running_service

pytest.importorskip("schemathesis")

from benchmarks.fuzz import attack, operations

#: A number in TUMBLE_FUZZ_EXAMPLES makes a longer run.
N_EXAMPLES = int(os.environ.get("TUMBLE_FUZZ_EXAMPLES", "15"))


def test_nothing_gives_a_server_error():
    app = make_service()
    with running_service(app) as url:
        found = operations(app, url)
        assert {operation.path for operation in found} == {"/classify", "/model", "/health", "/metrics"}
        for operation in found:
            assert attack(operation, N_EXAMPLES)
