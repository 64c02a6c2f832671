"""``make fuzz``: a hundred thousand requests that nobody should send, to a real server.

``python -m tests.load.fuzz [--cases 100000] [--seed N]``

The description of every route (``docs/openapi.json``, drawn from the doors) is read by schemathesis, which makes cases
that fit it and cases that do not. Each is sent in ten ways: as it is, with a good credential, to another device, with
bits of the body flipped, cut off, wrapped, said twice, along a path that climbs, as another kind of content, and to
another method. Nothing may be answered with 500 (503 is an answer), no connection may hang, every answer has the length
it says, and one that the description does not know fails. The server's memory is compared: after a fifth of the cases
and at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from tests.benchmarks.figures import figure
from tests.gateway.every_door import DESCRIPTION
from tests.load.serving import ALONE, free_port, of_files, process, wave_serve
from tests.load.soak import resident

CLIMBS = (
    "../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/",
    "%00",
    "%ff%fe",
    "a" * 3000,
    "//",
    "%E2%80%AE",
    "..;/",
)
WAYS = 10
GROWS = 24.0
"""MiB that a server may still grow by after the first fifth: its caches of strangers and of paths fill up."""
PATIENCE = 90.0
"""Seconds: longer than from one tick to the next."""


@dataclass
class Wire:
    """One connection at a time; a closed one is opened anew."""

    port: int
    line: socket.socket | None = None
    left: bytes = b""

    def ask(self, raw: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body. Raises TimeoutError when no answer comes."""
        for _ in range(2):
            if self.line is None:
                self.line, self.left = socket.create_connection(("127.0.0.1", self.port), timeout=30), b""
            with contextlib.suppress(ConnectionError):
                self.line.sendall(raw)
                found = self._answer(raw.startswith(b"HEAD "))
                if found is not None:
                    return found
            self.close()
        return 0, b"", b""

    def _answer(self, no_body: bool) -> tuple[int, bytes, bytes] | None:
        while (end := self.left.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return None
        head, body = self.left[:end].lower(), self.left[end + 4 :]
        status = int(head.split()[1])
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        bare = no_body or status in (204, 304)
        assert bare or length or b"chunked" in head, head
        wanted = 0 if bare or length is None else int(length[1])
        while len(body) < wanted:
            if not self._more():
                return None
            body = self.left[end + 4 :]
        if b"\r\nconnection: close" in head or (length is None and not bare):
            self.close()
        else:
            self.left = body[wanted:]
        return status, head, body[:wanted]

    def _more(self) -> bool:
        assert self.line is not None
        received = self.line.recv(65536)
        self.left += received
        return bool(received)

    @staticmethod
    def request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        lines = "".join(f"{_clean(name)}: {_clean(value)}\r\n" for name, value in headers.items())
        head = f"{method} {_address(path)} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(body)}\r\n\r\n"
        return head.encode("latin-1", "replace") + body

    def close(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None
        self.left = b""


@dataclass
class Fuzz:
    wire: Wire
    tokens: dict[str, str]
    chance: random.Random
    most: int
    memory: Callable[[], float]
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    early: float = 0.0
    late: float = 0.0
    actions: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Every device polls over hawkBit's protocol until it has an action: the first tick may be still to come."""
        ends = time.monotonic() + PATIENCE
        for device, token in self.tokens.items():
            path = f"/DEFAULT/controller/v1/{device}"
            who = f"host: x\r\nauthorization: TargetToken {token}\r\n"
            while device not in self.actions:
                _, _, body = self.wire.ask(f"GET {path} HTTP/1.1\r\n{who}\r\n".encode())
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
        if self.sent >= self.most or self.wrong:
            return
        raw = self.wire.request(method, path, headers, body)
        status, answer_head, answer = self.wire.ask(raw)
        self.sent += 1
        self.statuses[status] += 1
        if self.sent == self.most // 5:
            self.early = self.memory()
        if status == 0 or (status >= 500 and status != 503):
            self.wrong.append(f"{raw[:600]!r} was answered {status}: {answer[:300]!r}")
        elif known is not None and b"text/plain" not in answer_head and str(status) not in known:
            self.wrong.append(f"{raw[:600]!r} was answered {status}, which the description does not know")


def run(root: Path, *, cases: int, seed: int) -> Fuzz:
    """Send so many; what came of it. Raises AssertionError for a wrong answer, or when the server grew."""
    tokens, port = of_files(root, 20, slices=20), free_port()
    schema = from_dict(json.loads(DESCRIPTION.read_text(encoding="utf-8")))
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    with process(wave_serve(root, port), port, ALONE, root) as server:
        fuzz = Fuzz(Wire(port), tokens, random.Random(seed), cases, lambda: resident(server.pid))
        with contextlib.closing(fuzz.wire):
            fuzz.begin()
            per_mode = max(1, cases // (WAYS * len(operations) * 2))
            while fuzz.sent < cases and not fuzz.wrong:
                for operation in operations:
                    known = frozenset(str(status) for status in operation.definition.raw["responses"])
                    for mode in GenerationMode:
                        generate(operation, mode, per_mode, seed + fuzz.sent, partial(fuzz.case, known=known))
        late = fuzz.late = resident(server.pid)
    words = (root / f"{port}.log").read_text()
    assert not fuzz.wrong, fuzz.wrong[0]
    assert "Traceback" not in words, words[-4000:]
    print(f"{fuzz.sent:,} requests: {', '.join(f'{n:,} of {status}' for status, n in sorted(fuzz.statuses.items()))}")
    print(f"memory: {fuzz.early:.1f} MiB after a fifth of them, {late:.1f} at the end", flush=True)
    assert late - fuzz.early < GROWS, f"the server grew from {fuzz.early:.1f} to {late:.1f} MiB"
    return fuzz


def generate(operation: Any, mode: GenerationMode, number: int, seed: int, use: Callable[[Any], None]) -> None:
    """So many cases of one operation."""

    @seeded(seed)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        use(case)

    # A route that takes nothing has no case that does not fit it.
    with contextlib.suppress(Unsatisfiable):
        each()


def unset(body: Any) -> bool:
    return type(body).__name__ == "NotSet"


def written(body: Any) -> bytes:
    return json.dumps(body).encode("utf-8", "surrogatepass")


def filled(path: str, parameters: dict[str, Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: str(parameters.get(found[1], "1")), path)


def _clean(text: str) -> str:
    """What can stand in a head without ending it."""
    return re.sub(r"[\r\n\0]", "", text)


def _address(path: str) -> str:
    return (
        re.sub(r"[\x00-\x20\x7f]", lambda found: f"%{ord(found[0]):02X}", path)
        .encode("utf-8", "replace")
        .decode("latin-1")
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cases", type=int, default=100_000)
    asked.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = asked.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = run(Path(folder) / "house", cases=options.cases, seed=options.seed)
    took = time.monotonic() - began
    print(f"{took:.0f} s")
    figure(
        "Requests to every route of every door that nobody should send",
        f"{fuzz.sent:,} in {took:.0f} s: no 500; memory {fuzz.early:.0f} MiB after a fifth, {fuzz.late:.0f} at the end",
        f"no 500, less than {GROWS:g} MiB",
    )


if __name__ == "__main__":
    main()
