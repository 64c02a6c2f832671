"""An orchestrator that is driven over its HTTP API: the installation of a test, served on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.core.roles import Role
from orchestrator.errors import Unauthorized
from orchestrator.gateway.server import Server
from orchestrator.services.people import Doorkeeper, Person
from orchestrator.web.app import operators_side
from tests.cli.house import House

MIKA = "mika-is-admin"


@dataclass
class Known:
    """Tokens of people; what was asked is not looked at."""

    people: dict[str, Person] = field(default_factory=lambda: {MIKA: Person("mika", frozenset({Role.ADMIN}))})

    def by_token(self, token: str, *, address: str, looks: bool = True) -> Person:
        if token not in self.people:
            raise Unauthorized("The token is not known here.")
        return self.people[token]

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        return self.by_token(session, address=address)


@contextmanager
def served(house: House, known: Doorkeeper | None = None) -> Iterator[str]:
    """The address of the operators' side of this installation."""
    over, listening = threading.Event(), threading.Event()
    with house.application() as app:
        server = Server(
            operators_side(app, over=over, doorkeeper=known or Known()),
            signals=False,
            started=lambda port: listening.set(),
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        assert listening.wait(20)
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            over.set()
            server.stop()
            thread.join(20)
