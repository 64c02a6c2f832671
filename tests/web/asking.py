"""People who ask the operators' API, each by a token that is the name of their role."""

from __future__ import annotations

import threading
from typing import Any

from fastapi.testclient import TestClient

from orchestrator.core.roles import Role
from orchestrator.errors import Unauthorized
from orchestrator.services.application import Application
from orchestrator.services.people import Person
from orchestrator.web.app import operators_side


class ByRole:
    """Every token is the name of a role."""

    def by_token(self, token: str, *, address: str, looks: bool = True) -> Person:
        if token not in set(Role):
            raise Unauthorized("The token is not known here.")
        return Person(f"a {token}", frozenset({Role(token)}))

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        return self.by_token(session, address=address)


class Asking:
    """One installation's API."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.over = threading.Event()
        side = operators_side(app, over=self.over, doorkeeper=ByRole())
        self.client = TestClient(side, raise_server_exceptions=False)

    def __call__(self, method: str, path: str, role: str = "releaser", **more: Any) -> Any:
        headers = {"authorization": f"Bearer {role}", **more.pop("headers", {})}
        return self.client.request(method, f"/api/v1{path}", headers=headers, **more)

    def ok(self, method: str, path: str, role: str = "releaser", **more: Any) -> Any:
        answer = self(method, path, role, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, status: int, kind: str, method: str, path: str, role: str = "releaser", **more: Any) -> Any:
        """The problem document."""
        answer = self(method, path, role, **more)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        said = answer.json()
        assert said["type"] == f"urn:wave:problem:{kind}"
        assert said["status"] == status
        return said
