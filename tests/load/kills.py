"""``make kills``: a server that is killed with SIGKILL at random moments under load, again and again.

``python -m tests.load.kills [--kills 50] [--devices 200] [--seed N]``

A real ``wave serve`` on a SQLite file, devices that report as fast as they are answered, and a kill after some time. A
device that was not answered says the same again, with the same ids, to the next server. After each kill the log is
read: every event that was acknowledged is in it, and none is there twice. In the end ``wave db check`` recounts all
that is derived from it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.sql.store import open_store
from tests.load.serving import ALONE, free_port, installation, process, wave_serve

CONNECTIONS = 24
KINDS = ("downloading", "installing", "applied")
Event = tuple[str, str]
"""A device and the id of what it said."""


@dataclass
class Tally:
    """What the devices know, and what was found in the log so far."""

    acknowledged: set[Event] = field(default_factory=set)
    logged: Counter[Event] = field(default_factory=Counter)
    read_to: int = 0
    answers: int = 0
    unanswered: int = 0
    resent: int = 0
    kills: int = 0


@dataclass
class Device:
    """Says one thing after the other; ``pending`` is what was not answered yet."""

    name: str
    token: str
    said: int = 0
    pending: list[dict[str, object]] = field(default_factory=list)

    def next_report(self, chance: random.Random) -> bytes:
        if not self.pending:
            for _ in range(chance.choice((1, 1, 1, 2, 5))):
                kind = KINDS[min(self.said, 2)]
                self.pending.append({"id": f"e{self.said}", "rollout": "lmp-42", "target": 42, "event": kind})
                self.said += 1
        body = json.dumps({"events": self.pending}).encode()
        return (
            f"POST /v1/devices/{self.name}/reports HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.token}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


async def report_on(port: int, devices: list[Device], tally: Tally, chance: random.Random) -> None:
    """One connection, until the server is gone."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            for device in devices:
                again = bool(device.pending)
                request = device.next_report(chance)
                tally.unanswered += 1
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                answer = json.loads(await reader.readexactly(length))
                if not head.startswith(b"HTTP/1.1 200") or answer["refused"]:
                    raise AssertionError(f"a report was answered {head!r} {answer!r}")
                tally.unanswered -= 1
                tally.answers += 1
                tally.resent += again
                tally.acknowledged |= {(device.name, str(event["id"])) for event in device.pending}
                device.pending = []


async def until_killed(port: int, pid: int, devices: list[Device], tally: Tally, chance: random.Random) -> None:
    tasks = [
        asyncio.create_task(report_on(port, devices[number::CONNECTIONS], tally, chance))
        for number in range(CONNECTIONS)
    ]
    before = tally.answers
    while tally.answers == before:
        await asyncio.sleep(0.01)
    await asyncio.sleep(chance.uniform(0, 1.2))
    os.kill(pid, signal.SIGKILL)
    tally.kills += 1
    await asyncio.gather(*tasks)


def recount(root: Path, tally: Tally) -> None:
    """Read what came to the log. Raises AssertionError."""
    store = open_store(f"sqlite:///{root / 'wave.db'}")
    try:
        with store.reading() as r:
            while found := r.events(after=tally.read_to, limit=10_000):
                tally.read_to = found[-1].seq
                tally.logged.update((event.device or "", event.event_id) for event in found)
    finally:
        store.close()
    lost = tally.acknowledged - tally.logged.keys()
    assert not lost, f"{len(lost)} acknowledged events are not in the log, such as {min(lost)}"
    twice = [event for event, times in tally.logged.items() if times > 1]
    assert not twice, f"{len(twice)} events are in the log twice, such as {min(twice)}"


def run(root: Path, *, kills: int, devices: int, seed: int, every: int = 1) -> Tally:
    """Kill so often; what came of it. Raises AssertionError when something is lost, twice, or miscounted."""
    chance = random.Random(seed)
    tokens = installation(root, devices, slices=devices, offered=True)
    fleet = [Device(name, token) for name, token in tokens.items()]
    tally = Tally()
    for number in range(kills):
        port = free_port()
        with process(wave_serve(root, port), port, ALONE, root) as server:
            asyncio.run(asyncio.wait_for(until_killed(port, server.pid, fleet, tally, chance), 60))
        recount(root, tally)
        if (number + 1) % every == 0:
            print(
                f"{tally.kills:3} kills  {len(tally.acknowledged):8,} events acknowledged, "
                f"{len(tally.logged):8,} logged, {tally.resent:5,} reports said again, none lost, none twice",
                flush=True,
            )
    checked = subprocess.run(
        [sys.executable, "-m", "orchestrator", "--root", str(root), "db", "check"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stdout
    print(checked.stdout.strip(), flush=True)
    return tally


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=50)
    asked.add_argument("--devices", type=int, default=200)
    asked.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = asked.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "house", kills=options.kills, devices=options.devices, seed=options.seed)


if __name__ == "__main__":
    main()
