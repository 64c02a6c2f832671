"""How many check-ins and reports the gateway takes, against the plain way; and how soon a halt is a halt over HTTP.

``python -m tests.benchmarks.gateway_rates [--seconds 3] [--rounds 3] [--devices 1000] [--halts 5] [--only rates|halt]``

Each server is a process of its own (Uvicorn, one worker) on 127.0.0.1 with a SQLite file (WAL, synchronous FULL); the
same load generator asks both: 64 connections, one request at a time on each, answers read to their end. CPU is the
server's own, by request. Two figures of one machine: believe the ratio, not the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvloop

from orchestrator.core.states import RolloutStatus
from orchestrator.gateway.http import JSON, Receive, Send
from tests.benchmarks.figures import figure
from tests.benchmarks.http_load import CONNECTIONS, Make, Rate, cpu_seconds, load
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of

# ------------------------------------------------------------------------------------------------- servers


async def bare(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """The least that any application on this server costs: an answer that is always the same. It is a task and two
    writes, as Uvicorn has it; ours is run ``at_once``."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"38"), JSON]})
    await send({"type": "http.response.body", "body": b'{"offer":null,"check_in_after":300.0} '})


def serve(which: str, path: str) -> None:
    """In the child: tell the port on the first line, and serve until stdin closes."""
    from concurrent.futures import ThreadPoolExecutor
    from datetime import UTC, datetime
    from threading import Thread

    from orchestrator.gateway.server import App, Server, spare_collector

    def told(port: int) -> None:
        print(port, flush=True)

    closing: list[Callable[[], object]] = []
    if which == "plain":
        from tests.benchmarks.plain_gateway import make_app

        app: App = make_app(path)
    elif which == "bare":
        app = bare
    else:
        from orchestrator.adapters.scheduler import TickScheduler
        from orchestrator.adapters.sql.store import open_store
        from orchestrator.gateway.app import Gateway
        from orchestrator.gateway.own import OwnDoor
        from orchestrator.services.devices import Devices
        from orchestrator.services.settings import Settings
        from orchestrator.services.settling import settle
        from orchestrator.services.tick import Ticker

        def clock() -> datetime:
            return datetime.now(UTC)

        store, pool = open_store(f"sqlite:///{path}"), ThreadPoolExecutor(1)
        ticking: list[TickScheduler] = []

        def poke() -> None:
            for each in ticking:
                each.poke()

        def later(work: Callable[[], None]) -> None:
            pool.submit(work)

        devices = Devices(store, Settings(), clock, settle=settle, poke=poke, later=later)
        ticker = Ticker(store, devices.expire, lambda row, wave, *, now: None, changed=devices.refresh)
        beat = Settings()
        ticks = TickScheduler(ticker, store, clock, at_most=beat.tick_at_most, lease=beat.lease)
        ticking.append(ticks)
        ticks.start()
        app = Gateway([OwnDoor(devices)])
        closing = [ticks.stop, devices.close, pool.shutdown, store.close]
    server = Server(app, started=told, signals=False)

    def until_closed() -> None:
        sys.stdin.read()
        server.stop()

    Thread(target=until_closed, daemon=True).start()
    spare_collector()
    server.run()
    for close in closing:
        close()


@contextlib.contextmanager
def running(which: str, path: Path) -> Iterator[tuple[int, int]]:
    """The port, and the process id."""
    command = [sys.executable, "-m", "tests.benchmarks.gateway_rates", "--serve", which, str(path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin and child.stdout
    try:
        yield int(child.stdout.readline()), child.pid
    finally:
        child.stdin.close()
        child.wait(30)


# ------------------------------------------------------------------------------------------------- load


def post(device: str, what: str, token: str, body: bytes) -> bytes:
    return (
        f"POST /v1/devices/{device}/{what} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def check_in_body(version: int) -> bytes:
    said = {"commit": commit_of(version), "version": version, "hardware_id": HARDWARE, "tag": TAG, "labels": {}}
    return json.dumps(said).encode()


def check_ins(tokens: dict[str, str]) -> Make:
    requests = [post(device, "check-in", token, check_in_body(41)) for device, token in tokens.items()]
    at = 0

    def make() -> bytes:
        nonlocal at
        at = (at + 1) % len(requests)
        return requests[at]

    return make


def reports(tokens: dict[str, str], per_post: int) -> Make:
    """Every event has an id of its own (a random UUID); devices report in turn, a download, its end and so on. Put
    together from prepared pieces: the load generator lives on the same cores."""
    known = list(tokens.items())
    chance = random.Random(7)
    prepared: list[list[tuple[bytes, bytes]]] = []
    for event in ("downloading", "installing", "applied"):
        item = f'","rollout":"lmp-42","target":42,"event":"{event}","at":"2026-03-02T12:00:00Z"}}'.encode()
        length = len(b'{"events":[]}') + per_post * (len(b'{"id":"') + 36 + len(item)) + per_post - 1
        requests = [post(device, "reports", token, b"x" * length) for device, token in known]
        prepared.append([(request[: -len(b"x" * length)] + b'{"events":[', item) for request in requests])
    at = 0

    def make() -> bytes:
        nonlocal at
        head, item = prepared[min(at // len(known), 2)][at % len(known)]
        at += 1
        items = []
        for _ in range(per_post):
            digits = b"%032x" % chance.getrandbits(128)
            name = b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
            items.append(b'{"id":"' + name + item)
        return head + b",".join(items) + b"]}"

    return make


def measure(which: str, path: Path, make: Make, seconds: float, *, connections: int = CONNECTIONS) -> Rate:
    rate = Rate()

    async def run(port: int, pid: int) -> None:
        done = asyncio.Event()
        counting = False

        def see(body: bytes, asked: float, answered: float) -> None:
            if counting:
                rate.answers += 1
                rate.waits.append(answered - asked)

        task = asyncio.create_task(load(port, make, see, until=done, connections=connections))
        await asyncio.sleep(1)
        counting, before, began = True, cpu_seconds(pid), time.perf_counter()
        await asyncio.sleep(seconds)
        counting, rate.seconds, rate.cpu = False, time.perf_counter() - began, cpu_seconds(pid) - before
        done.set()
        if wrong := await task:
            raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")

    with running(which, path) as (port, pid):
        uvloop.run(run(port, pid))
    return rate


# ------------------------------------------------------------------------------------------------- the rates


def ours(folder: Path, name: str, devices: int, *, slices: int, offer: bool) -> tuple[Path, dict[str, str]]:
    """A database with a fleet and a running rollout."""
    from datetime import UTC, datetime

    path = folder / f"{name}.db"
    world = World(f"sqlite:///{path}", now=datetime.now(UTC))
    fleet = world.fleet(devices)
    count = {each: {"at_most": "15%", "then": "count"} for each in ("ignored", "silent", "download_failed")}
    world.apply(policy={"slices": {"first": slices}, "tolerate": count})
    if offer:
        for device in fleet:
            world.check_in(device)
    world.close()
    return path, {device: world.tokens[device] for device in fleet}


def compare(folder: Path, devices: int, seconds: float, rounds: int) -> None:
    """The rivals take turns, so that what else the machine does hits both; of each the best round counts."""
    from tests.benchmarks.plain_gateway import fill

    idle_path, idle_tokens = ours(folder, "idle", devices, slices=1, offer=False)
    busy_path, busy_tokens = ours(folder, "reports", devices, slices=devices, offer=True)
    plain_idle, plain_busy = folder / "plain-idle.db", folder / "plain-reports.db"
    fill(str(plain_idle), idle_tokens, offered=False)
    fill(str(plain_busy), busy_tokens, offered=True)
    runs: dict[str, Callable[[], Rate]] = {
        "check-ins, ours": lambda: measure("ours", idle_path, check_ins(idle_tokens), seconds),
        "check-ins, plain": lambda: measure("plain", plain_idle, check_ins(idle_tokens), seconds),
        "reports of one event, ours": lambda: measure("ours", busy_path, reports(busy_tokens, 1), seconds),
        "reports of one event, plain": lambda: measure("plain", plain_busy, reports(busy_tokens, 1), seconds),
        "events in reports of a hundred, ours": lambda: measure("ours", busy_path, reports(busy_tokens, 100), seconds),
    }
    found: dict[str, list[Rate]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    best = {name: max(rates, key=lambda rate: rate.answers / rate.seconds) for name, rates in found.items()}
    for name, rate in best.items():
        print(rate.line(name, 100 if "hundred" in name else 1))
    for what in ("check-ins", "reports of one event"):
        mine, other = best[f"{what}, ours"], best[f"{what}, plain"]
        ratio = (mine.answers / mine.seconds) / (other.answers / other.seconds)
        cpu = (other.cpu / other.answers) / (mine.cpu / mine.answers)
        print(f"{what}: {ratio:.1f} times the rate, {cpu:.1f} times less CPU")
        per_second = mine.answers / mine.seconds
        figure(
            f"{what} over HTTP against plain FastAPI with a session per request",
            f"{ratio:.1f} times ({per_second:,.0f} a second), {cpu:.1f} times less CPU",
            "at least 15 times",
        )


# ------------------------------------------------------------------------------------------------- the halt


def halt_once(folder: Path, number: int, devices: int) -> tuple[float, int, int, int]:
    """Seconds from sending the proving report to its answer, which comes after the commit; failures reported; offers
    given before; offers in answers to what was asked afterwards."""
    path, tokens = ours(folder, f"halt{number}", devices, slices=devices, offer=False)
    names = list(tokens)
    took, failures = 0.0, 0
    offers: list[tuple[float, float]] = []
    halted_at = float("inf")

    async def run(port: int) -> None:
        nonlocal took, failures, halted_at
        done = asyncio.Event()

        def see(body: bytes, asked: float, answered: float) -> None:
            if not body.startswith(b'{"offer":null'):
                offers.append((asked, answered))

        task = asyncio.create_task(load(port, check_ins(tokens), see, until=done))
        await asyncio.sleep(2)
        with contextlib.closing(World(f"sqlite:///{path}")) as outside:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while outside.row().state.status is RolloutStatus.RUNNING and failures < 200:
                event = {"id": f"f{failures}", "rollout": "lmp-42", "target": 42, "event": "failed"}
                device = names[failures]
                began = time.perf_counter()
                writer.write(post(device, "reports", tokens[device], json.dumps({"events": [event]}).encode()))
                await reader.readuntil(b"}")
                halted_at = time.perf_counter()
                took = halted_at - began
                failures += 1
            assert outside.row().state.status is RolloutStatus.HALTED
            await asyncio.sleep(1)
            writer.close()
        done.set()
        if wrong := await task:
            raise SystemExit(f"{len(wrong)} answers were wrong, such as {wrong[0]!r}")

    with running("ours", path) as (port, _):
        uvloop.run(run(port))
    late = sum(asked > halted_at for asked, _ in offers)
    return took, failures, len(offers), late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--halts", type=int, default=5)
    parser.add_argument("--only", choices=["rates", "halt"])
    parser.add_argument("--serve", nargs=2, metavar=("WHICH", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    with tempfile.TemporaryDirectory(prefix="gateway-rates-") as name:
        folder = Path(name)
        if options.only != "halt":
            compare(folder, options.devices, options.seconds, options.rounds)
        if options.only != "rates":
            found = [halt_once(folder, number, options.devices) for number in range(options.halts)]
            times = sorted(1e3 * took for took, *_ in found)
            print(
                f"halt: from the proving report to its acknowledged commit {times[0]:.0f} to {times[-1]:.0f} ms"
                f" (median {statistics.median(times):.0f}), {found[0][1]} failures, {sum(each[2] for each in found)}"
                f" offers before, {sum(each[3] for each in found)} after"
            )
            figure(
                f"from sending the proving report to its answer, {options.devices:,} devices checking in",
                f"median {statistics.median(times):.0f} ms, at most {times[-1]:.0f} ms; "
                f"{sum(each[3] for each in found)} offers to what was asked after it",
                "under 1 s, none",
            )


if __name__ == "__main__":
    main()
