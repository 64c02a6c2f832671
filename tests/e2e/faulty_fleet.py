"""Devices over HTTP that never give up, and a fleet of them: they go on asking and resending until they are heard."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.adapters.ostree_trees import Versions
from tests.e2e.faults import FIELD, LAB, OSTREE, House, begins_on
from tests.waiting import PATIENCE


def ask(
    port: int, path: str, body: Any, token: str | None, *, within: float = 30.0, method: str = "POST"
) -> tuple[int, Any]:
    """One request; status and decoded answer. ``body``: bytes as they are, anything else as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, sent, headers)
        except ConnectionError:
            # Whoever says too much is answered while it still speaks, and may find that nobody listens any more.
            if sent is None or len(sent) <= 1 << 20:
                raise
        answer = connection.getresponse()
        content = answer.read()
        told = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if told else content
    finally:
        connection.close()


@dataclass
class Device:
    """One device: it asks, does as it is told, and sends what it has to tell with the same ids until that is taken."""

    id: str
    token: str
    commit: str
    version: int
    waiting: list[dict[str, Any]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)
    offers: list[tuple[float, str, int]] = field(default_factory=list)

    def step(self, port: int, commits: Mapping[int, str]) -> None:
        """Ask once and do what follows. Raises OSError, HTTPException when the server is away."""
        self.tell(port)
        answer = self.check_in(port)
        offer = answer["offer"]
        if offer is None or offer["target"]["commit"] == self.commit:
            return
        self.offers.append((time.time(), offer["rollout"], offer["target"]["version"]))
        assert commits[offer["target"]["version"]] == offer["target"]["commit"]
        for event in ("downloading", "installing", "applied"):
            self.note(event, offer["rollout"], offer["target"]["version"])
        self.commit, self.version = offer["target"]["commit"], offer["target"]["version"]
        self.tell(port)
        self.check_in(port)

    def note(self, event: str, rollout: str, target: int) -> None:
        self.waiting.append({"id": str(uuid.uuid4()), "rollout": rollout, "target": target, "event": event})

    def check_in(self, port: int) -> Any:
        said = {"commit": self.commit, "version": self.version}
        status, answer = ask(port, f"/v1/devices/{self.id}/check-in", said, self.token)
        if status != 200:
            raise OSError(f"{status}: {answer}")
        return answer

    def tell(self, port: int) -> None:
        if not self.waiting:
            return
        sent = list(self.waiting)
        status, answer = ask(port, f"/v1/devices/{self.id}/reports", {"events": sent}, self.token)
        if status != 200:
            raise OSError(f"{status}: {answer}")
        assert answer["accepted"] + answer["duplicates"] + len(answer["refused"]) == len(sent)
        self.refused += answer["refused"]
        self.taken += [event["id"] for event in sent]
        del self.waiting[: len(sent)]


class Fleet:
    """All devices in one thread, in turn, again and again. Whoever is not answered asks again."""

    def __init__(self, house: House, *, ports: Sequence[int] = (), seed: str = "fleet") -> None:
        self.house = house
        self.ports = list(ports) or [house.port]
        commits = house.versions.commits
        self.devices = [
            Device(name, token, commits[begins_on(name)], begins_on(name))
            for name, token in sorted(house.tokens.items())
        ]
        self.unanswered = 0
        self.problem: BaseException | None = None
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Fleet:
        """They live until the block ends, and may live again in another."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._live, name="devices", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(PATIENCE)
        if self.problem is not None:
            raise self.problem

    def _live(self) -> None:
        try:
            while not self._stop.is_set():
                for device in self.devices:
                    if not self.once(device):
                        self._stop.wait(0.05)
                    if self._stop.is_set():
                        return
                self._stop.wait(0.1)
        except BaseException as error:
            self.problem = error

    def once(self, device: Device) -> bool:
        """Whether it was answered."""
        try:
            device.step(self._random.choice(self.ports), self.house.versions.commits)
        except (OSError, http.client.HTTPException, ValueError):
            self.unanswered += 1
            return False
        return True

    def round(self) -> None:
        """Each of them once, in this thread."""
        for device in self.devices:
            assert self.once(device), device.id

    def round_whatever(self) -> int:
        """Each of them once, in this thread; how many were not answered."""
        return sum(not self.once(device) for device in self.devices)

    def running(self, version: int) -> int:
        return sum(device.version == version for device in self.devices)

    def assert_told_once(self, events: Counter[tuple[str, str]]) -> None:
        """Each event that was taken is in the log, and none twice."""
        taken = {(device.id, event) for device in self.devices for event in device.taken}
        assert taken <= set(events), f"lost: {sorted(taken - set(events))[:5]}"
        assert set(events.values()) <= {1}


def make_template(root: Path, versions: Versions) -> House:
    """Three Targets, a lab and a field, nothing running. To be copied."""
    root.mkdir(parents=True)
    versions.copy(root / "repo")
    house = House(root, versions)
    house.tools.mkdir()
    real = shutil.which("ostree")
    assert real is not None, "ostree is not installed: `make setup` gets it."
    script = house.tools / "ostree"
    script.write_text(OSTREE.replace("OSTREE", real))
    script.chmod(0o755)
    house.ok("init", str(root))
    for version in (1, 2, 3):
        house.ok("target", "add", str(version), f"os/{version}", "--hardware-id", "board", "--tag", "main")
    names = [(f"lab-{n}", "lab") for n in range(LAB)] + [(f"dev-{n:02}", "field") for n in range(FIELD)]
    lines = [f"  - {{id: {name}, hardware_id: board, tag: main, group: {group}}}\n" for name, group in names]
    house.file("fleet.yaml", "devices:\n" + "".join(lines))
    house.ok("device", "enroll", "--from", "fleet.yaml", "--tokens-to", "tokens")
    server = house.serve()
    try:
        Fleet(house).round()
    finally:
        server.close()
    return house
