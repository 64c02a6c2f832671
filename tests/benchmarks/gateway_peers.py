"""The gateway beside its peers, in one run and under one load generator: goosebit on hawkBit's DDI, and a bare ASGI
callable on the same server.

``python -m tests.benchmarks.gateway_peers [--seconds 4] [--rounds 2] [--only goosebit|bare]``

goosebit 0.2.12 is installed from the package index into an environment of its own (``.benchmarks``) and started as its
documentation starts it: Uvicorn, one process, SQLite, its own defaults. ``tuned`` is the same with whatever was found
to help it: uvloop and httptools, no log, SQLite's WAL with ``synchronous NORMAL``. Ours is ``wave serve`` as it is:
devices' tokens are checked, last-seen is written, and feedback is acknowledged when it is on the disk (``synchronous
FULL``). goosebit checks no tokens as it ships.

Feedback is what a device sends for one update: ``proceeding`` twice and ``closed`` with success once. Each message is
sent once and each is acknowledged; then both are asked how many successes they counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from orchestrator.core.update import UpdateStatus
from tests.benchmarks.figures import figure
from tests.benchmarks.gateway_rates import check_ins, measure, ours, reports
from tests.benchmarks.http_load import CONNECTIONS, Make, Rate, cpu_seconds, load, work_off
from tests.load.serving import ALONE, Running, of_files, process, wave_serve
from tests.loopback import free_port
from tests.services.fleet_world import World

GOOSEBIT = "0.2.12"
PEERS = Path(".benchmarks")
HERE = Path(__file__).parent
TUNED = "?journal_mode=WAL&synchronous=NORMAL&busy_timeout=30000"
QUIET = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"none": {"class": "logging.NullHandler"}},
    "root": {"handlers": ["none"], "level": "ERROR"},
}
STARTS_WITHIN = 60.0
A_FLEET = 256
"""Connections beside the bare callable: what is read and written together is what has come together."""


# ------------------------------------------------------------------------------------------------- servers


def goosebit_python() -> Path:
    """The Python of an environment with goosebit in it; made once."""
    home = (PEERS / f"goosebit-{GOOSEBIT}").absolute()
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        wanted = [f"goosebit=={GOOSEBIT}", "uvloop", "httptools"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True, timeout=900)
        (home / "ready").touch()
    return python


class Goosebit:
    """A goosebit over a fresh database; ``tuned`` or as it ships."""

    def __init__(self, folder: Path, devices: int, *, tuned: bool, rollout: bool) -> None:
        self._python = goosebit_python()
        self._folder = folder
        self._tuned = tuned
        path = folder / f"goosebit-{tuned}-{rollout}-{time.monotonic_ns()}.db"
        self._environment = {
            "GOOSEBIT_DB_URI": f"sqlite:///{path}{TUNED if tuned else ''}",
            "GOOSEBIT_ARTIFACTS_DIR": str(folder / "artifacts"),
            "HOME": str(folder),
        }
        if tuned:
            self._environment["GOOSEBIT_LOGGING"] = json.dumps(QUIET)
            self._environment["GOOSEBIT_TRACK_DEVICE_IP"] = "false"
        self._do(str(devices), *(["rollout"] if rollout else []))

    def _do(self, *words: str) -> str:
        command = [str(self._python), str(HERE / "goosebit_prepare.py"), *words]
        environment = {**os.environ, **self._environment}
        done = subprocess.run(
            command, env=environment, cwd=self._folder, check=True, capture_output=True, text=True, timeout=120
        )
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[Running]:
        port = free_port()
        command = [str(self._python), "-m", "uvicorn", "goosebit:app", "--host", "127.0.0.1", "--port", str(port)]
        # With uvloop and httptools installed beside it, Uvicorn would take them by itself: as shipped it has neither.
        tuned = ["--no-access-log", "--loop", "uvloop", "--http", "httptools"]
        command += tuned if self._tuned else ["--loop", "asyncio", "--http", "h11"]
        with process(command, port, self._environment, self._folder) as running:
            yield running

    def successes(self) -> int:
        return int(self._do("count").split()[-1])


# ------------------------------------------------------------------------------------------------- requests


def poll(device: str, token: str) -> bytes:
    return (
        f"GET /DEFAULT/controller/v1/{device} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: libcurl-agent/1.0\r\n"
        f"content-type: application/json\r\naccept: application/json\r\ncharsets: utf-8\r\n"
        f"authorization: TargetToken {token}\r\n\r\n"
    ).encode()


def feedback(device: str, token: str, action: int, execution: str, finished: str, number: int) -> bytes:
    status = {
        "result": {"progress": {"cnt": number, "of": 2}, "finished": finished},
        "execution": execution,
        "details": ["Installing Update Chunk Artifacts."],
    }
    body = json.dumps({"id": action, "time": f"20261122T0350{number:02}", "status": status}).encode()
    return (
        f"POST /DEFAULT/controller/v1/{device}/deploymentBase/{action}/feedback HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"user-agent: libcurl-agent/1.0\r\ncontent-type: application/json\r\naccept: application/json\r\n"
        f"charsets: utf-8\r\nauthorization: TargetToken {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def an_update(device: str, token: str, action: int) -> list[bytes]:
    """All that a device says of one update."""
    return [
        feedback(device, token, action, "proceeding", "none", 0),
        feedback(device, token, action, "proceeding", "none", 1),
        feedback(device, token, action, "closed", "success", 2),
    ]


def in_turn(requests: Sequence[bytes]) -> Make:
    at = 0

    def make() -> bytes:
        nonlocal at
        at = (at + 1) % len(requests)
        return requests[at]

    return make


# ------------------------------------------------------------------------------------------------- measuring


def idle(running: Running, tokens: dict[str, str], seconds: float, connections: int = CONNECTIONS) -> Rate:
    """Polls of a fleet for which there is nothing, for a while."""
    rate = Rate()
    counting = False

    def see(body: bytes, asked: float, answered: float) -> None:
        if counting:
            rate.answers += 1
            rate.waits.append(answered - asked)

    async def run() -> None:
        nonlocal counting
        done = asyncio.Event()
        requests = [poll(device, token) for device, token in tokens.items()]
        task = asyncio.create_task(load(running.port, in_turn(requests), see, until=done, connections=connections))
        await asyncio.sleep(1)
        counting, before, began = True, cpu_seconds(running.pid), time.perf_counter()
        await asyncio.sleep(seconds)
        counting, rate.seconds = False, time.perf_counter() - began
        rate.cpu = cpu_seconds(running.pid) - before
        done.set()
        if wrong := await task:
            raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")

    uvloop.run(run())
    return rate


def told(running: Running, updates: Sequence[Sequence[bytes]], connections: int = CONNECTIONS) -> Rate:
    """Every message of every device once: the first of all, then the second of all, then the third."""
    rate = Rate()

    def see(body: bytes, asked: float, answered: float) -> None:
        rate.answers += 1
        rate.waits.append(answered - asked)

    async def run() -> None:
        before, began = cpu_seconds(running.pid), time.perf_counter()
        for requests in zip(*updates, strict=True):
            if wrong := await work_off(running.port, requests, see, connections=connections):
                raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")
        rate.seconds, rate.cpu = time.perf_counter() - began, cpu_seconds(running.pid) - before

    uvloop.run(run())
    return rate


def against_bare(folder: Path, devices: int, seconds: float, rounds: int) -> None:
    """The own protocol and a callable that does nothing, both on our server."""
    idle_path, idle_tokens = ours(folder, "idle", devices, slices=1, offer=False)
    busy_path, busy_tokens = ours(folder, "reports", devices, slices=devices, offer=True)
    asked = {"check-ins": (idle_path, lambda: check_ins(idle_tokens), 0.5)}
    asked["reports of one event"] = (busy_path, lambda: reports(busy_tokens, 1), 0.3)
    for what, (path, make, wanted) in asked.items():
        found: dict[str, list[Rate]] = {"ours": [], "bare": []}
        for _ in range(rounds):
            for which, rates in found.items():
                rates.append(measure(which, path, make(), seconds, connections=A_FLEET))
        best = {which: max(rates, key=lambda rate: rate.answers / rate.seconds) for which, rates in found.items()}
        for which, rate in best.items():
            print(rate.line(f"{what}, {which}"))
        mine, bare = best["ours"], best["bare"]
        figure(
            f"{what} against a bare ASGI callable on the same server",
            f"{mine.per_second / bare.per_second:.2f} of its rate ({mine.per_second:,.0f} a second, "
            f"99 % within {mine.wait(0.99):.0f} ms), {mine.per_cpu_second / bare.per_cpu_second:.2f} by CPU",
            f"at least {wanted}",
        )


class Wave:
    """``wave serve`` over a fresh installation with devices that speak DDI."""

    def __init__(self, folder: Path, devices: int, *, slices: int) -> None:
        self._folder = folder
        self._root = folder / f"wave-{time.monotonic_ns()}"
        self.tokens = of_files(self._root, devices, slices=slices)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Running]:
        port = free_port()
        with process(wave_serve(self._root, port), port, ALONE, self._folder) as running:
            yield running

    def offers(self, running: Running) -> dict[str, int]:
        """Every device polls until it is shown an action; the action of each."""
        actions: dict[str, int] = {}

        def see(body: bytes, asked: float, answered: float) -> None:
            found = re.search(rb"/controller/v1/([^/]+)/deploymentBase/(\d+)", body)
            if found:
                actions[found[1].decode()] = int(found[2])

        ends = time.monotonic() + STARTS_WITHIN  # the first tick may be still to come
        while len(actions) < len(self.tokens) and time.monotonic() < ends:
            polls = [poll(device, token) for device, token in self.tokens.items() if device not in actions]
            if wrong := uvloop.run(work_off(running.port, polls, see)):
                raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")
        return actions

    def counted(self) -> tuple[int, int]:
        """Devices that applied the Target, and events in the log."""
        with contextlib.closing(World(f"sqlite:///{self._root / 'wave.db'}")) as world, world.store.reading() as r:
            row = r.rollout("lmp-42")
            assert row is not None
            done = {UpdateStatus.APPLIED, UpdateStatus.CONFIRMED}
            updates = r.list_updates(row.key, statuses=done, limit=10**9)
            return len(updates), len(r.events(rollout="lmp-42", limit=10**9))


def against_goosebit(folder: Path, devices: int, seconds: float) -> None:
    """Both as they are, and goosebit tuned: polls of an idle fleet, and the feedback of a fleet that updates."""
    few = max(100, devices // 10)  # as many as it does in a reasonable time
    idles: dict[str, Rate] = {}
    feedbacks: dict[str, Rate] = {}
    counted: dict[str, str] = {}
    tokens = {f"dev-{number:07}": f"token-{number}" for number in range(few)}
    for which in ("as shipped", "tuned"):
        peer = Goosebit(folder, few, tuned=which == "tuned", rollout=False)
        with peer.serving() as running:
            idles[which] = idle(running, tokens, seconds)
        peer = Goosebit(folder, few, tuned=which == "tuned", rollout=True)
        with peer.serving() as running:
            feedbacks[which] = told(running, [an_update(device, token, 1) for device, token in tokens.items()])
        counted[which] = f"{peer.successes()} of {few}"
    ours_idle = Wave(folder, devices, slices=1)
    with ours_idle.serving() as running:
        idles["ours"] = idle(running, ours_idle.tokens, seconds)
    many = 5 * devices  # enough that it lasts some seconds
    ours_busy = Wave(folder, many, slices=many)
    with ours_busy.serving() as running:
        actions = ours_busy.offers(running)
        if len(actions) != many:
            raise SystemExit(f"{len(actions)} of {many} devices were offered the Target")
        updates = [an_update(device, ours_busy.tokens[device], action) for device, action in actions.items()]
        feedbacks["ours"] = told(running, updates)
    applied, events = ours_busy.counted()
    counted["ours"] = f"{applied:,} of {many:,}"
    for what, rates, wanted in (("idle polls", idles, 60), ("feedback", feedbacks, 30)):
        for which, rate in rates.items():
            print(rate.line(f"DDI {what}, {which}"))
        mine, shipped, tuned = (rates[which] for which in ("ours", "as shipped", "tuned"))
        figure(
            f"DDI {what} against goosebit {GOOSEBIT}",
            f"{mine.per_second / shipped.per_second:.0f} times ({mine.per_second:,.0f} a second), "
            f"{mine.per_cpu_second / shipped.per_cpu_second:.0f} times by CPU, 99 % within {mine.wait(0.99):.0f} ms "
            f"(its {shipped.wait(0.99):,.0f}); against it tuned {mine.per_second / tuned.per_second:.0f} and "
            f"{mine.per_cpu_second / tuned.per_cpu_second:.0f} times",
            f"at least {wanted} times, both; 99 % lower",
        )
    figure(
        f"successes counted, each acknowledged once, against goosebit {GOOSEBIT}",
        f"{counted['ours']}, {events:,} of {3 * many:,} messages logged; goosebit {counted['as shipped']}, "
        f"tuned {counted['tuned']}",
        "every one, once",
    )
    if (applied, events) != (many, 3 * many):
        raise SystemExit(f"of {many} successes {applied} were counted, of {3 * many} messages {events} are logged")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seconds", type=float, default=4)
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--devices", type=int, default=1_000)
    asked.add_argument("--only", choices=["goosebit", "bare"])
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "goosebit":
            against_bare(Path(folder), options.devices, options.seconds, options.rounds)
        if options.only != "bare":
            against_goosebit(Path(folder), options.devices, options.seconds)


if __name__ == "__main__":
    main()
