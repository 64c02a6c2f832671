"""The operators' side as a whole: who may ask, and how every error looks."""

from __future__ import annotations

from typing import cast

import pytest
from fastapi.testclient import TestClient

from orchestrator.core.roles import Role
from orchestrator.services.application import Application
from orchestrator.web.app import operators_side
from tests.web.asking import ByRole


@pytest.fixture
def client() -> TestClient:
    return TestClient(operators_side(cast(Application, None), doorkeeper=ByRole()), raise_server_exceptions=False)


@pytest.mark.parametrize("token", ["", "nobody", "vïewer"])
def test_a_stranger_is_told_so(client: TestClient, token: str) -> None:
    answer = client.get("/api/v1/me", headers={b"authorization": f"Bearer {token}".encode()})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:wave:problem:unauthorized"


@pytest.mark.parametrize("role", list(Role), ids=str)
def test_who_asks_is_told_who_that_is(client: TestClient, role: Role) -> None:
    answer = client.get("/api/v1/me", headers={"authorization": f"Bearer {role}"})
    assert answer.json() == {"name": f"a {role}", "roles": [role]}


def test_nobody_is_let_in_where_nobody_knows_people() -> None:
    client = TestClient(operators_side(cast(Application, None)))
    assert client.get("/api/v1/me", headers={"authorization": "Bearer admin"}).status_code == 401
    client.cookies.set("wave_session", "admin")
    assert client.get("/api/v1/me").status_code == 401


def test_a_path_where_there_is_nothing_and_a_method_that_is_not_there(client: TestClient) -> None:
    for method, path, status in (("GET", "/api/v1/nothing", 404), ("DELETE", "/api/v1/me", 405)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
