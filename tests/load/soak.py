"""``make soak``: a fleet of a million checks in as fast as two cores allow, one request in twenty is a report.

``python -m tests.load.soak [--minutes 10] [--devices 1000000] [--first 50000]``

A real ``wave serve`` on SQLite (``synchronous FULL``). In a first round every device checks in once: each is looked up
in the store, and those of the first slice get their offers. Then the soak: the others check in, one after another, and
those with an offer report. Each second the server's memory is written down. Fails when an answer is wrong, when the
memory after the first minute grows by more than ``--grows`` MiB from its first to its last fifth, or when the log does
not hold as many events as were acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import exp, log
from pathlib import Path
from typing import Any

import uvloop

from orchestrator.bootstrap import initialise
from orchestrator.core.fleet import Device
from orchestrator.services.credentials import digest_of
from tests.benchmarks.figures import figure
from tests.benchmarks.http_load import Make, cpu_seconds, load, work_off
from tests.load.serving import ALONE, Running, process, wave_serve
from tests.loopback import free_port
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of

REPORTS_ONE_IN = 20
POLL_SECONDS = 300
_STEPS = 40
"""Buckets of the histogram for each factor e: within 2.5 %."""


@dataclass
class Waits:
    """How long answers took, in buckets: millions of them take no room."""

    buckets: dict[int, int] = field(default_factory=dict)
    answers: int = 0

    def add(self, seconds: float) -> None:
        bucket = int(_STEPS * log(max(seconds, 1e-6)))
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.answers += 1

    def within(self, part: float) -> float:
        """Milliseconds within which that part of the answers came."""
        left = part * self.answers
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return 1e3 * exp((bucket + 1) / _STEPS)
        return 0.0


def name_of(number: int) -> str:
    return f"dev-{number:07}"


def token_of(number: int) -> str:
    return f"token-of-{number:07}-" + "x" * 24


def make_house(root: Path, devices: int, first: int) -> None:
    """An installation with that fleet, and a rollout whose first slice is open."""
    initialise(root)
    world = World(f"sqlite:///{root / 'wave.db'}", now=datetime.now(UTC))
    try:
        world.target(41)
        world.target(42)
        runs: dict[str, Any] = {
            "commit": commit_of(41),
            "version": 41,
            "since_at": world.now,
            "last_seen_at": world.now,
        }
        for page in pages(devices):
            with world.store.writing() as w:
                fleet = ((Device(name_of(n), HARDWARE, TAG, **runs), digest_of(token_of(n))) for n in page)
                w.enroll(fleet, now=world.now)
        count = {each: {"at_most": "15%", "then": "count"} for each in ("ignored", "silent", "download_failed")}
        world.apply(policy={"slices": {"first": first}, "tolerate": count})
    finally:
        world.close()


def pages(devices: int) -> Iterator[range]:
    for begin in range(0, devices, 20_000):
        yield range(begin, min(devices, begin + 20_000))


_SAID = json.dumps({"commit": commit_of(41), "version": 41, "hardware_id": HARDWARE, "tag": TAG}).encode()


def check_in(number: int) -> bytes:
    return (
        b"POST /v1/devices/dev-%07d/check-in HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (number, token_of(number).encode(), len(_SAID), _SAID)
    )


def report(number: int, said: int) -> bytes:
    kind = ("downloading", "installing", "applied")[min(said, 2)]
    body = b'{"events":[{"id":"e%d","rollout":"lmp-42","target":42,"event":"%s"}]}' % (said, kind.encode())
    return (
        b"POST /v1/devices/dev-%07d/reports HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (number, token_of(number).encode(), len(body), body)
    )


def resident(pid: int) -> float:
    """MiB that a process holds."""
    pages_held = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages_held * 4096 / 2**20


def first_round(server: Running, devices: int) -> None:
    """Every device checks in once."""
    offered = 0

    def see(body: bytes, asked: float, answered: float) -> None:
        nonlocal offered
        offered += not body.startswith(b'{"offer":null')

    began, before = time.perf_counter(), cpu_seconds(server.pid)
    for page in pages(devices):
        if wrong := uvloop.run(work_off(server.port, [check_in(number) for number in page], see)):
            raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")
    took = time.perf_counter() - began
    cpu = 1e6 * (cpu_seconds(server.pid) - before) / devices
    print(
        f"first round: {devices:,} devices looked up at {devices / took:,.0f} a second, {cpu:.0f} us CPU each; "
        f"{offered:,} were offered the Target; {resident(server.pid):,.0f} MiB",
        flush=True,
    )


def offered_devices(root: Path) -> list[int]:
    """The numbers of those that were offered the Target."""
    world = World(f"sqlite:///{root / 'wave.db'}", now=datetime.now(UTC))
    try:
        with world.store.reading() as r:
            row = r.rollout("lmp-42")
            assert row is not None
            return [int(name[4:]) for name, _ in r.list_updates(row.key, limit=10**9)]
    finally:
        world.close()


def requests_of(devices: int, reporting: list[int]) -> Make:
    """Check-ins of those without an offer, in turn, and reports of the others."""
    has_offer = set(reporting)
    asking = itertools.cycle([number for number in range(devices) if number not in has_offer])
    telling = itertools.cycle(reporting)
    told: dict[int, int] = {}
    at = 0

    def make() -> bytes:
        nonlocal at
        at += 1
        if at % REPORTS_ONE_IN:
            return check_in(next(asking))
        number = next(telling)
        told[number] = said = told.get(number, -1) + 1
        return report(number, said)

    return make


async def soak(server: Running, make: Make, minutes: float) -> tuple[Waits, Waits, list[float], float]:
    """Waits of check-ins and of reports, the memory each second, and the seconds it took. Raises SystemExit."""
    asked_after, told_after, memory = Waits(), Waits(), [resident(server.pid)]

    def see(body: bytes, asked: float, answered: float) -> None:
        (told_after if body.startswith(b'{"accepted":') else asked_after).add(answered - asked)

    done = asyncio.Event()
    began = time.perf_counter()
    task = asyncio.create_task(load(server.port, make, see, until=done))
    last, cpu = 0, cpu_seconds(server.pid)
    while (elapsed := time.perf_counter() - began) < 60 * minutes and not task.done():
        await asyncio.sleep(1)
        memory.append(resident(server.pid))
        if len(memory) % 60 == 1:
            answers = asked_after.answers + told_after.answers
            now = cpu_seconds(server.pid)
            print(
                f"  {elapsed / 60:4.1f} min  {(answers - last) / 60:8,.0f} a second  "
                f"{1e6 * (now - cpu) / max(1, answers - last):4.0f} us CPU  {memory[-1]:7,.1f} MiB",
                flush=True,
            )
            last, cpu = answers, now
    done.set()
    wrong = await task
    if wrong:
        raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")
    return asked_after, told_after, memory, time.perf_counter() - began


def growth(memory: list[float]) -> tuple[float, float]:
    """MiB from the first fifth to the last, after the first minute; and MiB a minute by the line through all."""
    after = memory[60:] if len(memory) > 120 else memory
    fifth = max(1, len(after) // 5)
    slope = statistics.linear_regression(range(len(after)), after).slope if len(after) > 2 else 0.0
    return statistics.median(after[-fifth:]) - statistics.median(after[:fifth]), 60 * slope


def events_in(root: Path) -> int:
    """How many events the log holds, counted by SQLite itself."""
    with contextlib.closing(sqlite3.connect(root / "wave.db")) as database:
        (found,) = database.execute("SELECT count(*) FROM event").fetchone()
        return int(found)


def timed(what: str, work: Callable[[], None]) -> None:
    began = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=10)
    asked.add_argument("--devices", type=int, default=1_000_000)
    asked.add_argument("--first", type=int, default=50_000, help="devices of the first slice; they report")
    asked.add_argument("--grows", type=float, default=16, help="MiB that the memory may grow by")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, port = Path(folder) / "house", free_port()
        timed(f"{options.devices:,} devices", lambda: make_house(root, options.devices, options.first))
        with process(wave_serve(root, port), port, ALONE, Path(folder)) as server:
            first_round(server, options.devices)
            reporting = offered_devices(root)
            make = requests_of(options.devices, reporting)
            asked_after, told_after, memory, took = uvloop.run(soak(server, make, options.minutes))
        logged = events_in(root)
        if logged != told_after.answers:
            raise SystemExit(f"{told_after.answers:,} events were acknowledged, {logged:,} are in the log")
    answers = asked_after.answers + told_after.answers
    by, a_minute = growth(memory)
    print(f"memory: {by:+.1f} MiB from the first fifth to the last, {a_minute:+.2f} a minute")
    rate = answers / took
    for what, waits in (("check-ins", asked_after), ("reports", told_after)):
        print(
            f"{what}: {waits.answers:,}, {waits.answers / took:,.0f} a second, 50 % within {waits.within(0.5):.1f} ms, "
            f"99 % within {waits.within(0.99):.1f} ms"
        )
    within = f"99 % within {asked_after.within(0.99):.0f} ms, of reports {told_after.within(0.99):.0f} ms"
    carries = f"carries {rate * POLL_SECONDS:,.0f} devices at an interval of 5 minutes"
    figure(
        f"{options.minutes:g} minutes of {options.devices:,} devices on SQLite, a report in {REPORTS_ONE_IN} requests",
        f"{rate:,.0f} a second, no error; {within}; memory {memory[-1]:,.0f} MiB, {by:+.1f} MiB after the first "
        f"minute; {carries}, {rate * 86_400 / 1e6:,.0f} million requests a day",
        "no error, flat",
    )
    if by > options.grows:
        raise SystemExit(f"the memory grew by {by:.1f} MiB after the first minute")


if __name__ == "__main__":
    main()
