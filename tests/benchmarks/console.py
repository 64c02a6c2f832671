"""What the console costs on a large installation: ``python -m tests.benchmarks.console [--devices N] [--rounds N]``.

A store with a million devices and a hundred rollouts in all states, with their slices, evidence, journals, deltas and
builds; one of them has been offered to nearly all devices. The server is a process of its own, put together as ``wave
serve`` is (gateway, ticks and census beside the console), and somebody has signed in at the real door.

* Each page's bytes on the wire and its median time to the first byte, against that of a page with nothing on it in the
  same run, round after round. *Made anew*: by an address that nobody asked for before, so that nothing of it is given
  again: session, queries, pictures and HTML are of this request. What is kept then is what follows from text alone:
  parsed policies and rollout files, templates, the steps of staircases, a calendar for its minute. *Of a console that
  stands open*: the same address again, which is given again for two seconds while nothing has stirred in the store.
* What open consoles cost while nothing happens: each has its stream, on which it hears a sign of life every 15 s, and
  asks for its page once a minute, as the page's script does.
* How long check-ins and reports of devices wait while nobody looks, while consoles ask for their pages as often as
  their script does when there is something new all the time, and while they ask without a pause.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.core.roles import Role
from orchestrator.services.census import Censuses
from tests.benchmarks.figures import figure
from tests.benchmarks.http_load import cpu_seconds
from tests.load.serving import Running, process
from tests.loopback import free_port
from tests.web.history import releases
from tests.web.installation import Installation, believable
from tests.web.multitude import multiply
from tests.web.pages import PAGES

DEVICES = 1_000_000
ROLLOUTS = 100
WEEKS = 7
ROUNDS = 25
CONSOLES, BUSY = 200, 20
IDLE_FOR, BUSY_FOR = 60.0, 12.0
RATE = 100.0
"""Check-ins and reports a second while the console is busy; one in four is a report."""

ASK_EVERY = 60.0
"""Seconds after which a page that stands open asks for itself though nothing happened."""
KEPT_FOR = 10.0
"""Seconds for which a browser's connection is thought to be kept."""
SETTLE = 2.0
"""Seconds between two questions of a page, however much happens."""

EMPTY = "/rollouts?status=scheduled"
"""A page of the same frame with nothing on it."""

MANY = (*PAGES, *(f"/rollouts/line-{line:02}-{50 + WEEKS}" for line in range(7)))
OPEN = ("/rollouts", "/rollouts/lmp-42", "/rollouts/beta-43", "/fleet", "/deltas", "/devices/gw-0007")
"""What the consoles that stand open look at."""

Pages = dict[str, "Page"]


@dataclass
class Page:
    """What was measured of a path."""

    firsts: list[float] = field(default_factory=list)
    size: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.firsts)


def make(root: Path, devices: int) -> str:
    """The installation; somebody's session."""
    began = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        home = Installation(root).open(patch)
        releases(home, ROLLOUTS - 3, lines=14)
        believable(home)
        print(f"{ROLLOUTS} rollouts were made in {time.perf_counter() - began:.0f} s", flush=True)
        began = time.perf_counter()
        multiply(home, "lmp-42", devices)
        print(f"{devices:,} devices were made in {time.perf_counter() - began:.0f} s", flush=True)
        with home.app.store.writing() as w:  # as ticks do, as the reports come
            for row in w.rollouts():
                w.seal_evidence(row.key, at_most=10_000_000)
        Censuses(home.app.store, home.app.clock).take()
        with home.app.store.reading() as r:
            states = ", ".join(f"{many} {status}" for status, many in r.rollout_statuses().items())
            print(f"rollouts: {states}; {r.count_deltas()} deltas", flush=True)
        home.app.people.add("anna", list(Role), by="benchmark", password="correct horse battery")
        session = home.app.door.sign_in("anna", "correct horse battery", address="127.0.0.1")
        known = {device: (token, home.runs[device], home.hardware[device]) for device, token in home.tokens.items()}
        (root / "tokens.json").write_text(json.dumps(known))
        home.close()
    return session


# ------------------------------------------------------------------------------------------------- pages


class Asking:
    """Asks for pages, each over a connection of its own, or all over one that is ``kept``."""

    def __init__(self, port: int, session: str, *, kept: bool) -> None:
        self._port, self._kept = port, kept
        self._link: socket.socket | None = None
        self._head = f"host: console\r\ncookie: wave_session={session}\r\naccept-encoding: gzip\r\n\r\n"

    def __call__(self, path: str) -> tuple[float, int]:
        """Seconds to the first byte, from before the connection where it is a new one; bytes of the body as sent."""
        request = f"GET {path} HTTP/1.1\r\n{self._head}".encode()
        began = time.perf_counter()
        link = self._link or socket.create_connection(("127.0.0.1", self._port), timeout=60)
        link.sendall(request)
        got = link.recv(65536)
        first = time.perf_counter() - began
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += link.recv(65536)
        head = got[:end].decode().lower()
        assert head.split()[1] in ("200", "303"), (path, head)
        length = int(head.split("content-length: ")[1].split("\r")[0])
        left = length - (len(got) - end - 4)
        while left > 0:
            left -= len(link.recv(left))
        if self._kept:
            self._link = link
        else:
            link.close()
        return first, length

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


def medians(port: int, session: str, rounds: int, *, anew: bool, kept: bool) -> Pages:
    """By path. ``anew``: by an address that nobody asked for before."""
    ask = Asking(port, session, kept=kept)
    found: Pages = {path: Page() for path in (EMPTY, *MANY)}
    for path in found:
        ask(path)
    for number in range(rounds):
        for path, page in found.items():
            asked = f"{path}{'&' if '?' in path else '?'}round={number}{kept}" if anew else path
            first, page.size = ask(asked)
            page.firsts.append(first)
    ask.close()
    return found


def pages(port: int, session: str, devices: int, rounds: int) -> None:
    on = f"on {devices:,} devices and {ROLLOUTS} rollouts"
    for anew, how in ((True, "made anew"), (False, "of a console that stands open")):
        found, over = (medians(port, session, rounds, anew=anew, kept=kept) for kept in (False, True))
        print(f"{how}: each over a connection of its own; over one that is kept")
        for path, page in found.items():
            times = "  ".join(
                f"{1e3 * each[path].median:7.2f} ms {each[path].median / each[EMPTY].median:5.2f} x"
                for each in (found, over)
            )
            print(f"   {path:60} {times}  {page.size:8,} bytes", flush=True)
        slowest = max(MANY, key=lambda path: found[path].median)
        there = max(each.median for path, each in over.items()) / over[EMPTY].median
        figure(
            f"the slowest of {len(MANY)} pages of the console {on}, {how}, median first byte",
            f"{1e3 * found[slowest].median:.1f} ms ({slowest}), {found[slowest].median / found[EMPTY].median:.1f} x an "
            f"empty page ({there:.1f} x over a connection that is kept)",
            "at most 3 x an empty page",
        )
        if anew:
            largest = max(MANY, key=lambda path: found[path].size)
            size = f"{found[largest].size:,} bytes ({largest})"
            figure("the largest of these pages, on the wire", size, "at most 150 KB")


# ------------------------------------------------------------------------------------------------- open consoles


async def stream(port: int, session: str, over: asyncio.Event) -> None:
    """Hear what is said until it is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /live HTTP/1.1\r\nhost: console\r\ncookie: wave_session={session}\r\n\r\n".encode())
    heard = asyncio.create_task(_hear(reader))
    await over.wait()
    heard.cancel()
    writer.close()


async def _hear(reader: asyncio.StreamReader) -> None:
    while await reader.read(4096):
        pass


async def look(port: int, session: str, path: str, every: float, over: asyncio.Event) -> int:
    """Ask for a page as its script does, from a moment on that is another for each; how often it was asked for."""
    head = f"host: console\r\ncookie: wave_session={session}\r\naccept-encoding: gzip\r\nx-wave-part: main\r\n"
    tag, asked = "", 0
    wait = random.uniform(0, every)
    link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not await _within(over, wait):
        reader, writer = link or await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\n{head}{tag}\r\n".encode())
        said = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert said.split()[1] in ("200", "304"), said
        if "content-length: " in said:
            await reader.readexactly(int(said.split("content-length: ")[1].split("\r")[0]))
        tag = f"if-none-match: {said.split('etag: ')[1].split(chr(13))[0]}\r\n"
        asked += 1
        wait = every
        if every > KEPT_FOR:
            writer.close()
        else:
            link = reader, writer
    if link is not None:
        link[1].close()
    return asked


async def _within(over: asyncio.Event, seconds: float) -> bool:
    if not seconds:
        return over.is_set()
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def stand_open(port: int, session: str, pid: int) -> tuple[float, float, int]:
    """Parts of a core while nobody looks and while consoles stand open, and how many pages these asked for."""
    before = cpu_seconds(pid)
    await asyncio.sleep(IDLE_FOR / 2)
    alone = (cpu_seconds(pid) - before) / (IDLE_FOR / 2)
    over = asyncio.Event()
    streams = [asyncio.create_task(stream(port, session, over)) for _ in range(CONSOLES)]
    await asyncio.sleep(3)
    which = itertools.cycle(OPEN)
    lookers = [asyncio.create_task(look(port, session, next(which), ASK_EVERY, over)) for _ in range(CONSOLES)]
    before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(IDLE_FOR)
    part = (cpu_seconds(pid) - before) / (time.perf_counter() - began)
    over.set()
    asked = sum(await asyncio.gather(*lookers))
    await asyncio.gather(*streams)
    return alone, part, asked


def idle(port: int, session: str, pid: int) -> None:
    alone, part, asked = asyncio.run(stand_open(port, session, pid))
    figure(
        f"{CONSOLES} open consoles while nothing happens: a sign of life every 15 s, and each asks for its page once a "
        "minute",
        f"{100 * part:.1f} % of a core ({100 * alone:.1f} % without them; {asked} pages in {IDLE_FOR:.0f} s)",
        "under 10 %",
    )


# ------------------------------------------------------------------------------------------------- devices beside it


class Devices:
    """Devices that check in and report, one after the other at a steady pace, and how long each had to wait."""

    def __init__(self, port: int, tokens: dict[str, tuple[str, int, str]], rate: float) -> None:
        self._port, self._rate = port, rate
        self._tokens = itertools.cycle(sorted(tokens.items()))
        self._ids = itertools.count()
        self.waits: dict[str, list[float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Devices:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        link = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.perf_counter()
        for kind, request in self._requests():
            if self._over.is_set():
                return
            due = max(due + 1 / self._rate, time.perf_counter() - 1)
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            link.sendall(request)
            got = link.recv(65536)
            self.waits.setdefault(kind, []).append(time.perf_counter() - began)
            assert got.startswith(b"HTTP/1.1 20"), got

    def _requests(self) -> Iterator[tuple[str, bytes]]:
        for number, (device, (token, version, board)) in enumerate(self._tokens):
            if number % 4:
                commit = Installation.commit(version, board)
                said = {"commit": commit, "version": version, "hardware_id": board}
                yield "check-ins", _post(f"/v1/devices/{device}/check-in", token, said)
            else:
                event = {"id": f"b-{next(self._ids)}", "rollout": "lmp-42", "target": 42, "event": "downloading"}
                yield "reports", _post(f"/v1/devices/{device}/reports", token, {"events": [event]})


def _post(path: str, token: str, said: object) -> bytes:
    body = json.dumps(said).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def busy(port: int, session: str, every: float) -> float:
    """Consoles that ask for their pages so often; pages a second."""
    over = asyncio.Event()
    lookers = [
        asyncio.create_task(look(port, session, f"{OPEN[number % len(OPEN)]}?console={number}", every, over))
        for number in range(BUSY)
    ]
    await asyncio.sleep(BUSY_FOR)
    over.set()
    return sum(await asyncio.gather(*lookers)) / BUSY_FOR


def beside(gateway: int, port: int, session: str, root: Path) -> None:
    tokens = json.loads((root / "tokens.json").read_text())
    ours = {name: each for name, each in tokens.items() if name.startswith("gw-")}
    said: dict[str, list[str]] = {}
    for how, every in (
        ("while nobody looks", None),
        (f"with {BUSY} consoles that ask every {SETTLE:.0f} s", SETTLE),
        (f"with {BUSY} that ask without a pause", 0.0),
    ):
        with Devices(gateway, ours, rate=RATE) as devices:
            if every is None:
                time.sleep(BUSY_FOR)
                pace = 0.0
            else:
                pace = asyncio.run(busy(port, session, every))
        print(f"{how}: {pace:.0f} pages a second")
        for kind, waits in sorted(devices.waits.items()):
            waits.sort()
            median, nearly, most = (1e3 * waits[int(part * (len(waits) - 1))] for part in (0.5, 0.99, 1.0))
            print(f"   {kind:10} median {median:6.2f} ms  99 % {nearly:6.2f} ms  at most {most:6.2f} ms", flush=True)
            said.setdefault(kind, []).append(f"{median:.1f} and {nearly:.1f} ms {how}")
    for kind, found in said.items():
        what = f"{kind} beside the console, {RATE:.0f} requests of devices a second, median and 99 %"
        figure(what, "; ".join(found), "-")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    asked.add_argument("--devices", type=int, default=DEVICES)
    asked.add_argument("--rounds", type=int, default=ROUNDS)
    asked.add_argument("--only", choices=("pages", "idle", "beside"), help="only this part")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        session = make(root, chosen.devices)
        gateway, console = free_port(), free_port()
        with serving(root, gateway, console) as server:
            time.sleep(5)  # the first ticks have passed
            if chosen.only in (None, "pages"):
                pages(console, session, chosen.devices, chosen.rounds)
            if chosen.only in (None, "idle"):
                idle(console, session, server.pid)
            if chosen.only in (None, "beside"):
                beside(gateway, console, session, root)


def serving(root: Path, gateway: int, console: int) -> AbstractContextManager[Running]:
    command = [sys.executable, "-m", "tests.benchmarks.console_serving", str(root), str(gateway), str(console)]
    return process(command, console, {}, root)


if __name__ == "__main__":
    main()
