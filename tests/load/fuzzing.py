"""What both fuzzers share: a wire without manners, cases drawn from a description, and what becomes of them."""

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
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.benchmarks.figures import figure
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
GROWS = 16.0
"""MiB that a server may still grow by after the first fifth: its caches of strangers and of paths fill up."""


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
                with contextlib.suppress(ConnectionError):  # it may have been answered before all of it was sent
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
class Tally:
    """Sends requests to one server, so many at most, and none after an answer that is wrong."""

    wire: Wire
    most: int
    server: int
    """Its process."""
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    early: float = 0.0
    """MiB after a fifth of them."""
    late: float = 0.0

    @property
    def over(self) -> bool:
        return self.sent >= self.most or bool(self.wrong)

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes, known: Callable[[int, bytes], bool]
    ) -> None:
        """``known``: whether the description knows a status, with the head it came with."""
        if self.over:
            return
        raw = self.wire.request(method, path, headers, body)
        status, head, answer = self.wire.ask(raw)
        self.sent += 1
        self.statuses[status] += 1
        if self.sent == self.most // 5:
            self.early = resident(self.server)
        if status == 0 or (status >= 500 and status != 503):
            self.wrong.append(f"{raw[:900]!r} was answered {status}: {answer[:300]!r}")
        elif not known(status, head):
            self.wrong.append(f"{raw[:900]!r} was answered {status}, which the description does not know")

    def judge(self, log: Path) -> None:
        """Raises AssertionError for a wrong answer, a traceback in the server's log, or when it grew."""
        assert not self.wrong, self.wrong[0]
        words = log.read_text()
        assert "Traceback" not in words, words[-4000:]
        told = ", ".join(f"{number:,} of {status}" for status, number in sorted(self.statuses.items()))
        print(f"{self.sent:,} requests: {told}")
        print(f"memory: {self.early:.1f} MiB after a fifth of them, {self.late:.1f} at the end", flush=True)
        assert self.late - self.early < GROWS, f"the server grew from {self.early:.1f} to {self.late:.1f} MiB"


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


def command(what: str, description: str | None, run: Callable[[Path, int, int], Tally], *, cases: int) -> None:
    """The program: ``run`` gets a directory, the number of cases and the seed."""
    asked = argparse.ArgumentParser(description=description)
    asked.add_argument("--cases", type=int, default=cases)
    asked.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = asked.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(Path(folder) / "house", options.cases, options.seed)
    took = time.monotonic() - began
    print(f"{took:.0f} s")
    memory = f"memory {tally.early:.0f} MiB after a fifth, {tally.late:.0f} at the end"
    figure(what, f"{tally.sent:,} in {took:.0f} s: no 500; {memory}", f"no 500, less than {GROWS:g} MiB")
