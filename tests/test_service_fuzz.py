"""Requests made up from the OpenAPI: whatever is sent, the service answers with a sentence and never with a 500."""

from __future__ import annotations

import os

import pytest
from helpers_service import make_service

from tumble.service.run import running_service

pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, given, settings

#: A number in TUMBLE_FUZZ_EXAMPLES makes a longer run.
N_EXAMPLES = int(os.environ.get("TUMBLE_FUZZ_EXAMPLES", "15"))


def test_nothing_gives_a_server_error():
    with running_service(make_service()) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert {operation.path for operation in operations} == {"/classify", "/model", "/health", "/metrics"}
        for operation in operations:
            attack(operation)


def attack(operation):
    n_sent = 0

    @settings(max_examples=N_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def send(case):
        nonlocal n_sent
        n_sent += 1
        response = case.call()
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["detail"]

    send()
    assert n_sent >= 1
