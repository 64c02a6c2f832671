"""``make kills``: a server that is killed with SIGKILL at random moments under load, again and again.

``python -m tests.load.kills [--kills 50] [--devices 1000] [--seed N]``: half of the kills with devices of the own
protocol, half with devices that speak hawkBit's.

A real ``wave serve`` on a SQLite file, devices that report as fast as they are answered, and a kill after some time. A
device that was not answered says the same again, with the same ids, to the next server. After each kill the log is
read: every event that was acknowledged is in it, and none is there twice. In the end ``wave db check`` recounts all
that is derived from it. No device says more than is kept of one (``room.MOST_KEPT``): there must be enough of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.sql.store import open_store
from orchestrator.gateway.ddi.messages import event_id
from orchestrator.services.room import MOST_KEPT
from tests.benchmarks.figures import figure
from tests.load.serving import ALONE, installation, of_files, process, wave_serve
from tests.loopback import free_port

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
    """Says one thing after the other over the own protocol; ``pending`` is what was not answered yet."""

    name: str
    token: str
    said: int = 0
    pending: list[dict[str, object]] = field(default_factory=list)

    @property
    def unanswered(self) -> bool:
        return bool(self.pending)

    def answered(self, body: bytes) -> set[Event]:
        """What this acknowledges. Raises AssertionError."""
        assert not json.loads(body)["refused"], body
        pending, self.pending = self.pending, []
        return {(self.name, str(event["id"])) for event in pending}

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


@dataclass
class DdiDevice:
    """The same over hawkBit's: it polls until it knows its action, and then gives feedback."""

    name: str
    token: str
    said: int = 0
    action: int = 0
    pending: bytes = b""

    @property
    def unanswered(self) -> bool:
        return bool(self.pending)

    def answered(self, body: bytes) -> set[Event]:
        if not self.action:
            found = re.search(rb"/deploymentBase/(\d+)", body)
            self.action = int(found[1]) if found else 0
            return set()
        pending, self.pending = self.pending, b""
        return {(self.name, event_id(self.action, "", pending))}

    def next_report(self, chance: random.Random) -> bytes:
        head = f"/DEFAULT/controller/v1/{self.name}"
        who = f"host: x\r\nauthorization: TargetToken {self.token}\r\n"
        if not self.action:
            return f"GET {head} HTTP/1.1\r\n{who}\r\n".encode()
        if not self.pending:
            self.said += 1
            result = {"progress": {"cnt": self.said, "of": 0}, "finished": "none"}
            status = {"result": result, "execution": "proceeding", "details": [f"line {self.said}"]}
            self.pending = json.dumps({"id": self.action, "status": status}).encode()
        return (
            f"POST {head}/deploymentBase/{self.action}/feedback HTTP/1.1\r\n{who}"
            f"content-length: {len(self.pending)}\r\n\r\n"
        ).encode() + self.pending


async def report_on(port: int, devices: Sequence[Device | DdiDevice], tally: Tally, chance: random.Random) -> None:
    """One connection, until the server is gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            for device in devices:
                again = device.unanswered
                request = device.next_report(chance)
                tally.unanswered += 1
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                answer = await reader.readexactly(length)
                assert head.startswith(b"HTTP/1.1 200"), f"it was answered {head!r} {answer!r}"
                acknowledged = device.answered(answer)
                tally.unanswered -= 1
                tally.answers += bool(acknowledged)
                tally.resent += again
                tally.acknowledged |= acknowledged
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def until_killed(
    port: int, pid: int, devices: Sequence[Device | DdiDevice], tally: Tally, chance: random.Random
) -> None:
    tasks = [
        asyncio.create_task(report_on(port, devices[number::CONNECTIONS], tally, chance))
        for number in range(CONNECTIONS)
    ]
    before = tally.answers
    while tally.answers == before and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    await asyncio.sleep(chance.uniform(0, 1.2))
    os.kill(pid, signal.SIGKILL)
    tally.kills += 1
    await asyncio.gather(*tasks)


def words_of(event_id: str) -> str:
    """The id without the offer that feedback of hawkBit's protocol is about: no word may be there for two of them."""
    return event_id.rpartition("-")[0] if event_id.startswith("ddi-") else event_id


def recount(root: Path, tally: Tally) -> None:
    """Read what came to the log. Raises AssertionError."""
    store = open_store(f"sqlite:///{root / 'wave.db'}")
    try:
        with store.reading() as r:
            while found := r.events(after=tally.read_to, limit=10_000):
                tally.read_to = found[-1].seq
                tally.logged.update((event.device or "", words_of(event.event_id)) for event in found)
    finally:
        store.close()
    for device, said in Counter(device for device, _ in tally.acknowledged).most_common(1):
        assert said <= MOST_KEPT, f"{device} said {said:,} things, of which {MOST_KEPT:,} are kept: take more devices"
    lost = tally.acknowledged - tally.logged.keys()
    assert not lost, f"{len(lost)} acknowledged events are not in the log, such as {min(lost)}"
    twice = [event for event, times in tally.logged.items() if times > 1]
    assert not twice, f"{len(twice)} events are in the log twice, such as {min(twice)}"


def run(root: Path, *, kills: int, devices: int, seed: int, ddi: bool = False) -> Tally:
    """Kill so often; what came of it. Raises AssertionError when something is lost, twice, or miscounted."""
    chance = random.Random(seed)
    fleet: list[Device | DdiDevice]
    if ddi:
        fleet = [DdiDevice(name, token) for name, token in of_files(root, devices, slices=devices).items()]
    else:
        tokens = installation(root, devices, slices=devices, offered=True)
        fleet = [Device(name, token) for name, token in tokens.items()]
    tally = Tally()
    for number in range(kills):
        port = free_port()
        with process(wave_serve(root, port), port, ALONE, root) as server:
            asyncio.run(asyncio.wait_for(until_killed(port, server.pid, fleet, tally, chance), 60))
        recount(root, tally)
        print(
            f"{number + 1:3} kills  {len(tally.acknowledged):8,} events acknowledged, {len(tally.logged):8,} logged, "
            f"{tally.resent:5,} said again, none lost, none twice",
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
    asked.add_argument("--devices", type=int, default=1_000)
    asked.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = asked.parse_args()
    tallies: list[Tally] = []
    for protocol in ("own", "ddi"):
        print(f"the {protocol} protocol, seed {options.seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            root, ddi = Path(folder) / "house", protocol == "ddi"
            tallies.append(run(root, kills=options.kills // 2, devices=options.devices, seed=options.seed, ddi=ddi))
    acknowledged, resent = (sum(len(each.acknowledged) for each in tallies), sum(each.resent for each in tallies))
    figure(
        f"{options.kills // 2 * 2} kills of a server under reports, each recounted",
        f"{acknowledged:,} events acknowledged, {resent:,} said again; none lost, none twice",
        "none lost, none twice",
    )


if __name__ == "__main__":
    main()
