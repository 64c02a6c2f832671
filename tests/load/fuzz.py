"""``make fuzz``: a hundred thousand requests that nobody should send, to a real server.

``python -m tests.load.fuzz [--cases 100000] [--seed N]``

The description of every route (``docs/openapi.json``, drawn from the doors) is read by schemathesis, which makes cases
that fit it and cases that do not. Each is sent in ten ways: as it is, with a good credential, to another device, with
bits of the body flipped, cut off, wrapped, said twice, along a path that climbs, as another kind of content, and to
another method. Nothing may be answered with 500 (503 is an answer), no connection may hang, every answer has the
length it says, every refusal is JSON, and one that the description does not know fails. The server's memory is
compared: after a fifth of the cases and at the end.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from tests.gateway.every_door import DESCRIPTION
from tests.load.fuzzing import CLIMBS, Tally, Wire, command, filled, generate, unset, written
from tests.load.serving import ALONE, of_files, process, wave_serve
from tests.load.soak import resident
from tests.loopback import free_port

WAYS = 10
JSON = b"\r\ncontent-type: application/json\r\n"
PATIENCE = 90.0
"""Seconds: longer than from one tick to the next."""


@dataclass
class Fuzz:
    tally: Tally
    tokens: dict[str, str]
    chance: random.Random
    actions: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Every device polls over hawkBit's protocol until it has an action: the first tick may be still to come."""
        ends = time.monotonic() + PATIENCE
        for device, token in self.tokens.items():
            path = f"/DEFAULT/controller/v1/{device}"
            who = f"host: x\r\nauthorization: TargetToken {token}\r\n"
            while device not in self.actions:
                _, _, body = self.tally.wire.ask(f"GET {path} HTTP/1.1\r\n{who}\r\n".encode())
                if found := re.search(rb"/deploymentBase/(\d+)", body):
                    self.actions[device] = found[1].decode()
                else:
                    assert time.monotonic() < ends, body
                    time.sleep(0.05)

    def case(self, case: Any, known: frozenset[str]) -> None:
        """Send one case in every way."""
        method, path = case.method.upper(), case.path
        body = case.body if isinstance(case.body, bytes) else b"" if unset(case.body) else written(case.body)
        headers = {str(name): str(value) for name, value in dict(case.headers or {}).items()}
        device = self.chance.choice(list(self.tokens))
        other = self.chance.choice(list(self.tokens))
        scheme = "TargetToken" if "/controller/" in path else "Bearer"
        good = {"authorization": f"{scheme} {self.tokens[device]}"}
        parameters = dict(case.path_parameters or {})
        real = {"device": device, "secret": self.tokens[device], "action": self.actions.get(device, "1")}
        mine = {name: real.get(name, value) for name, value in parameters.items()}
        plain, there = filled(path, parameters), filled(path, mine)
        flipped = bytearray(body)
        for _ in range(self.chance.randint(1, 8) if flipped else 0):
            flipped[self.chance.randrange(len(flipped))] ^= 1 << self.chance.randrange(8)
        climbing = filled(path, {name: self.chance.choice(CLIMBS) for name in parameters}) + self.chance.choice(CLIMBS)
        strange = {"content-encoding": "gzip", "content-type": "text/\xff; charset=utf-7"}
        self.ask(method, plain, headers, body, known)
        self.ask(method, there, good, body, known)
        self.ask(method, there, {"authorization": f"{scheme} {self.tokens[other]}"}, body, known)
        self.ask(method, there, good, bytes(flipped))
        self.ask(method, there, good, body[: self.chance.randrange(len(body) + 1)])
        self.ask(method, there, good, b"[" * self.chance.choice((1, 100, 20_000)) + body)
        self.ask(method, there, good, body + body)
        self.ask(method, climbing, good, body)
        self.ask(method, there, {**good, **strange}, body)
        self.ask(self.chance.choice(("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "GET")), there, good, body)

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes, known: frozenset[str] | None = None
    ) -> None:
        def described(status: int, head: bytes) -> bool:
            return known is None or (str(status) in known and (status < 400 or JSON in head))

        self.tally.ask(method, path, headers, body, described)


def run(root: Path, cases: int, seed: int) -> Tally:
    """Send so many; what came of it. Raises AssertionError for a wrong answer, or when the server grew."""
    tokens, port = of_files(root, 20, slices=20), free_port()
    schema = from_dict(json.loads(DESCRIPTION.read_text(encoding="utf-8")))
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    with process(wave_serve(root, port), port, ALONE, root) as server, contextlib.closing(Wire(port)) as wire:
        tally = Tally(wire, cases, server.pid)
        fuzz = Fuzz(tally, tokens, random.Random(seed))
        fuzz.begin()
        per_mode = max(1, cases // (WAYS * len(operations) * 2))
        while not tally.over:
            for operation in operations:
                known = frozenset(str(status) for status in operation.definition.raw["responses"])
                for mode in GenerationMode:
                    generate(operation, mode, per_mode, seed + tally.sent, partial(fuzz.case, known=known))
        tally.late = resident(server.pid)
    tally.judge(root / f"{port}.log")
    return tally


if __name__ == "__main__":
    command("Requests to every route of every door that nobody should send", __doc__, run, cases=100_000)
