"""One load generator for every server that is measured: connections that are kept busy, and what came of it.

Each connection has one request under way and sends the next when the answer has been read to its end. Written on
``asyncio.Protocol`` and uvloop, so that it costs less than what it measures; it lives on the same machine, so believe
CPU and ratios rather than rates.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

CONNECTIONS = 64
Make = Callable[[], bytes]
See = Callable[[bytes, float, float], None]
"""Gets a body, and when it was asked for and answered."""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client(asyncio.Protocol):
    """One connection: the next request when the answer is there, until there is none. ``see`` gets the body, and when
    it was asked and answered."""

    def __init__(self, make: Make, see: See, wrong: list[bytes]) -> None:
        self._make, self._see, self._wrong = make, see, wrong
        self._buffer = b""
        self._asked = 0.0
        self.transport: asyncio.Transport | None = None
        self.stopping = False
        self.stopped = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has another base
        self._ask()

    def _ask(self) -> None:
        assert self.transport is not None
        if self.stopping:
            self.transport.close()
            return
        self._asked = time.perf_counter()
        if request := self._make():
            self.transport.write(request)
        else:
            self.transport.close()

    def data_received(self, received: bytes) -> None:
        self._buffer += received
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.index(b"content-length: ") + 16
        length = int(self._buffer[at : self._buffer.index(b"\r", at)])
        body = self._buffer[end + 4 :]
        if len(body) < length:
            return
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self._wrong.append(self._buffer[:400])
        self._buffer = b""
        self._see(body, self._asked, time.perf_counter())
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)


async def load(port: int, make: Make, see: See, *, until: asyncio.Event, connections: int = CONNECTIONS) -> list[bytes]:
    """Keep so many connections busy until told; what was answered with anything but 200."""
    wrong: list[bytes] = []
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(make, see, wrong), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await until.wait()
    for client in clients:
        client.stopping = True
    await asyncio.wait([client.stopped for client in clients], timeout=30)
    return wrong


async def work_off(port: int, requests: Sequence[bytes], see: See, *, connections: int = CONNECTIONS) -> list[bytes]:
    """Send each of these once, over so many connections; what was answered with anything but 200."""
    wrong: list[bytes] = []
    left = iter(requests)
    loop = asyncio.get_running_loop()
    clients: list[Client] = []

    def make() -> bytes:
        return next(left, b"")

    for _ in range(connections):
        clients.append((await loop.create_connection(lambda: Client(make, see, wrong), "127.0.0.1", port))[1])
    await asyncio.gather(*(client.stopped for client in clients))
    return wrong


@dataclass
class Rate:
    answers: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    waits: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.answers / max(self.cpu, 0.01)

    def wait(self, part: float) -> float:
        """Milliseconds within which that part of the answers came."""
        waits = sorted(self.waits)
        return 1e3 * waits[min(len(waits) - 1, int(part * len(waits)))]

    def line(self, name: str, each: int = 1) -> str:
        waits = sorted(self.waits)
        unit = f"{each * self.answers / self.seconds:9,.0f} /s"
        return (
            f"{name:44} {unit}  {1e6 * self.cpu / max(1, each * self.answers):7.0f} us CPU"
            f"  median {1e3 * statistics.median(waits):6.1f} ms  99 % {1e3 * waits[int(0.99 * len(waits))]:6.1f} ms"
        )
