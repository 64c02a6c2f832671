"""``make fuzz``, the operators' side: requests that nobody should send to ``/api/v1``, by people of every role and by
nobody.

``python -m tests.load.fuzz_operators [--cases 40000] [--seed N]``

The description (``docs/operators-api.json``) is read by schemathesis, which makes cases that fit it and cases that do
not. Each is sent as it is by nobody and by somebody of every role, and by an admin with real names in its path, with
bits of the body flipped, cut off, nested, said twice, along a path that climbs, as another kind of content, with a key
that was used before, with a forged cursor, and by another method. Nothing may be answered with 500 (503 is an answer),
no connection may hang, every answer has the length it says, every refusal is a problem document, and one that the
description does not know fails. The server's memory is compared: after a fifth of the cases and at the end.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from schemathesis import GenerationMode

from orchestrator.bootstrap import open_application
from orchestrator.core.roles import Role
from orchestrator.services.settings import Settings
from tests.load.fuzzing import CLIMBS, Tally, Wire, command, filled, generate, unset, written
from tests.load.serving import ALONE, of_files, process, wave_serve
from tests.load.soak import resident
from tests.loopback import free_port
from tests.web.cases import operations

WAYS = 16
KEYS = ("a", "b", "x" * 255)
PROBLEM = b"\r\ncontent-type: application/problem+json\r\n"


@dataclass
class People:
    """Tokens by role, and names that are there."""

    tokens: dict[Role, str]
    names: dict[str, str]


def let_in(root: Path) -> dict[Role, str]:
    """Somebody of each role, with a token."""
    app = open_application(Settings(root=root))
    try:
        until = datetime.now(UTC) + timedelta(days=1)
        found = {}
        for role in Role:
            app.people.add(f"the {role}", [role], by="fuzz", password="correct horse battery")
            found[role] = app.people.add_token(f"the {role}", [role], until=until, by="fuzz")[1]
        return found
    finally:
        app.close()


@dataclass
class Fuzz:
    tally: Tally
    people: People
    chance: random.Random

    def case(self, case: Any, known: frozenset[str], key: str) -> None:
        """Send one case in every way."""
        method, path = case.method.upper(), case.path
        body = case.body if isinstance(case.body, bytes) else b"" if unset(case.body) else written(case.body)
        headers = {str(name).lower(): str(value) for name, value in dict(case.headers or {}).items()}
        headers.pop("authorization", None)
        if body:
            headers.setdefault("content-type", case.media_type or "application/json")
        parameters = dict(case.path_parameters or {})
        mine = {name: self.people.names.get(name, value) for name, value in parameters.items()}
        query = dict(case.query or {})
        plain, there = self.address(path, parameters, query), self.address(path, mine, query)
        admin = {**headers, "authorization": f"Bearer {self.people.tokens[Role.ADMIN]}"}
        self.ask(method, plain, headers, body, known)
        for role in Role:
            by = {**headers, "authorization": f"Bearer {self.people.tokens[role]}"}
            self.ask(method, plain, by, body, known)
        self.ask(method, there, admin, body, known)
        flipped = bytearray(body)
        for _ in range(self.chance.randint(1, 8) if flipped else 0):
            flipped[self.chance.randrange(len(flipped))] ^= 1 << self.chance.randrange(8)
        climb = self.chance.choice(CLIMBS)
        climbing = filled(path, dict.fromkeys(parameters, climb)) + self.chance.choice(CLIMBS)
        strange = {"content-encoding": "gzip", "content-type": "text/\xff; charset=utf-7"}
        again = {**admin, "idempotency-key": self.chance.choice(KEYS), "content-type": "application/json"}
        self.ask(method, there, admin, bytes(flipped))
        self.ask(method, there, admin, body[: self.chance.randrange(len(body) + 1)])
        self.ask(method, there, admin, b"[" * self.chance.choice((1, 100, 20_000)) + body)
        self.ask(method, there, admin, body + body)
        self.ask(method, climbing, admin, body)
        self.ask(method, there, {**admin, **strange}, body)
        self.ask(method, there, again, body)
        self.ask(method, self.address(path, mine, {**query, "cursor": self.forged(key)}), admin, body)
        self.ask(method, there, {**admin, "last-event-id": self.chance.choice(("-1", "9" * 30, "x", "0"))}, body)
        self.ask(self.chance.choice(("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "GET")), there, admin, body)

    def address(self, path: str, parameters: dict[str, Any], query: dict[str, Any]) -> str:
        words = [(str(name), each) for name, one in query.items() for each in (one if isinstance(one, list) else [one])]
        asked = urlencode([(name, str(each)) for name, each in words], errors="replace", encoding="utf-8")
        return f"{filled(path, parameters)}{'?' if asked else ''}{asked}"

    def forged(self, key: str) -> str:
        item = self.chance.choice(("a", 1, -1, 2**63, 10**30, None, "\x00", "x" * 2000))
        return base64.urlsafe_b64encode(json.dumps([key, item, self.chance.choice((0, -1, 2**70))]).encode()).decode()

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes, known: frozenset[str] | None = None
    ) -> None:
        def described(status: int, head: bytes) -> bool:
            return known is None or ((status == 404 or str(status) in known) and (status < 400 or PROBLEM in head))

        self.tally.ask(method, path, headers, body, described)


def run(root: Path, cases: int, seed: int) -> Tally:
    """Send so many; what came of it. Raises AssertionError for a wrong answer, or when the server grew."""
    of_files(root, 20, slices=20)
    tokens, port, console = let_in(root), free_port(), free_port()
    names = {
        "name": "lmp-42",
        "wave": "all",
        "device_id": "dev-0001",
        "old_id": "dev-0002",
        "which": "42",
        "before": "41",
        "after": "42",
    }
    environment = {**ALONE, "WAVE_CONSOLE_PORT": str(console)}
    with (
        process(wave_serve(root, port), console, environment, root) as server,
        contextlib.closing(Wire(console)) as wire,
    ):
        tally = Tally(wire, cases, server.pid)
        fuzz = Fuzz(tally, People(tokens, names), random.Random(seed))
        every = operations()
        per_mode = max(1, cases // (WAYS * len(every) * 2))
        while not tally.over:
            for operation in every:
                raw = operation.definition.raw
                known = frozenset(str(status) for status in raw["responses"])
                use = partial(fuzz.case, known=known, key=raw["operationId"])
                for mode in GenerationMode:
                    generate(operation, mode, per_mode, seed + tally.sent, use)
        tally.late = resident(server.pid)
    tally.judge(root / f"{console}.log")
    return tally


if __name__ == "__main__":
    command("Requests to every route of the operators' API that nobody should send", __doc__, run, cases=40_000)
