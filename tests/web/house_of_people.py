"""An installation whose operators' side has real people: names, passwords, sessions and tokens, on a clock that the
test sets."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2 as httpx
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from orchestrator.core.roles import Role
from orchestrator.gateway.server import Server, listen
from orchestrator.services.application import Application
from orchestrator.services.passwords import Passwords
from orchestrator.services.people_door import Door
from orchestrator.services.people_orders import People
from orchestrator.web.app import operators_side
from orchestrator.web.csrf import csrf_token
from tests.cli.house import House

WORDS = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

FILLED = {"name": "lmp-42", "verb": "halt", "wave": "lab", "which": "42", "device_id": "lab-00", "old_id": "lab-00"}
"""What stands in the blanks of a path; anything else is ``x``."""


@dataclass
class Populated:
    """``app`` with people in it: whoever is in ``house`` with that role, by the role's own name."""

    house: House
    app: Application
    people: People = field(init=False)
    door: Door = field(init=False)

    def __post_init__(self) -> None:
        passwords = Passwords(CHEAP)
        self.people = People(self.app.store, lambda: self.house.now, passwords)
        self.door = Door(
            self.app.store,
            lambda: self.house.now,
            idle=timedelta(hours=12),
            at_most=timedelta(days=7),
            passwords=passwords,
        )
        if not self.people.all():
            for role in Role:
                self.people.add(role.value, [role], by="root", password=WORDS)

    def side(self, over: threading.Event | None = None) -> FastAPI:
        return operators_side(self.app, doorkeeper=self.door, over=over)

    def client(self, **more: Any) -> TestClient:
        return TestClient(self.side(), raise_server_exceptions=False, follow_redirects=False, **more)

    def session(self, name: str) -> str:
        return self.door.sign_in(name, WORDS, address="192.0.2.1")

    def token(
        self, name: str, role: Role | None = None, *, for_: timedelta = timedelta(days=1), tags: Sequence[str] = ()
    ) -> tuple[str, str]:
        """Its name and its text."""
        roles = [role or Role(name)]
        row, text = self.people.add_token(name, roles, until=self.house.now + for_, by="root", tags=tags)
        return row.name, text


@dataclass
class Open:
    """A real server, for a while."""

    url: str
    populated: Populated

    def browser(self, name: str) -> httpx.Client:
        """Somebody who signed in by the form."""
        client = httpx.Client(base_url=self.url, timeout=20)
        (csrf,) = re.findall(r'name="csrf" value="(\w+)"', client.get("/sign-in").text)
        answer = client.post("/sign-in", data={"name": name, "password": WORDS, "csrf": csrf})
        assert answer.status_code == 303, answer.text
        client.headers["x-csrf-token"] = csrf_token(client.cookies["wave_session"])
        return client


@contextmanager
def opened(house: House, *, port: int = 0) -> Iterator[Open]:
    """The operators' side of this installation on a listener of its own."""
    over = threading.Event()
    with house.application() as app:
        populated = Populated(house, app)
        door = listen("127.0.0.1", port)
        server = Server(populated.side(over), sockets=[door], signals=False)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield Open(f"http://127.0.0.1:{door.getsockname()[1]}", populated)
        finally:
            over.set()
            server.stop()
            thread.join(20)


def doors(side: FastAPI) -> list[tuple[str, str]]:
    """Every method and path that there is, described or not, with something in each blank."""
    found = [
        (method, re.sub(r"{(\w+)[^}]*}", lambda blank: FILLED.get(blank[1], "x"), route.path or ""))
        for route in iter_route_contexts(side.routes)
        for method in sorted(route.methods or ())
    ]
    assert len(found) > 90, "a router that hides its routes would leave this with nothing to look at"
    return found
