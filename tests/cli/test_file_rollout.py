"""A rollout of a file, from the command line to the device, with a delta by the real xdelta3.

Day 0, 09:00  two releases are added, six devices run the first; the rollout to the second starts, and its wave waits
              for the delta: nobody is offered anything.
     then     the delta is built; the wave opens, a device fetches the delta by its signed address, applies it, and
              confirms by checking in with the sha256 of what it runs now.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from orchestrator.core.fleet import Device
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.services.messages import CheckIn
from tests.cli.house import House

SETTINGS = """
delta_program:
  name: xdelta3
  make: [xdelta3, -e, -f, -s, "{from}", "{to}", "{delta}"]
  apply: [xdelta3, -d, -f, -s, "{from}", "{delta}", "{to}"]
"""
ROLLOUT = """
rollout: two
target: 2
tag: promoted
policy: accelerated
waves:
  - wave: all
    devices: all
"""
RANDOM = random.Random(11)
ONE = RANDOM.randbytes(200_000)
TWO = ONE[:50_000] + RANDOM.randbytes(500) + ONE[50_200:]
STRANGE = RANDOM.randbytes(150_000)


class Fleet:
    """Six devices on the first release, which is in the store with the second."""

    def __init__(self, house: House, folder: Path, *, second: bytes = TWO, program: bool = True) -> None:
        self.house = house
        if program:
            (house.root / "wave.yaml").write_text(SETTINGS)
        self.commits: dict[int, str] = {}
        for version, content in ((1, ONE), (2, second)):
            file = folder / f"os-{version}.0.img"
            file.write_bytes(content)
            house.ok("artifact", "add", str(file), "--version", f"{version}.0", "--hardware-id", "rpi4")
            added = house.json("target", "add", str(version), "--artifact", str(file), "--tag", "promoted")
            self.commits[version] = added["commit"]
            assert added["commit"] == hashlib.sha256(content).hexdigest()
        with house.application() as app:
            devices = [Device(f"dev-{n}", "rpi4", "promoted") for n in range(6)]
            for name, token in app.devices.enroll(devices, tokens=True):
                house.tokens[name] = str(token)
        for name in house.tokens:
            self.check_in(name, 1)
        (folder / "rollout.yaml").write_text(ROLLOUT)
        self.rollout = str(folder / "rollout.yaml")

    def check_in(self, name: str, version: int) -> Any:
        with self.house.application() as app:
            said = CheckIn(commit=self.commits[version])
            answer = app.devices.check_in(name, self.house.tokens[name], said)
            return (answer.result(10) if isinstance(answer, Future) else answer).offer

    def fetch(self, url: str) -> httpx.Response:
        """As a device would, without a token."""
        with self.house.application() as app:
            signer = app.downloads.signer
            server = ArtifactServer(app.settings.artifacts_path, signer, lambda: self.house.now)
        parts = urlsplit(url)

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=Gateway([], artifacts=server))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.get(f"{parts.path}?{parts.query}")

        return asyncio.run(ask())

    def wave(self) -> Any:
        return self.house.json("status", "two")["waves"][0]

    def start(self) -> None:
        self.house.ok("apply", self.rollout, "--start")
        self.tick()

    def tick(self) -> None:
        for _ in range(3):
            self.house.tick(timedelta(minutes=1))


def test_the_wave_waits_for_the_delta_and_the_device_comes_by_it(house: House, tmp_path: Path) -> None:
    fleet = Fleet(house, tmp_path)
    planned = house.ok("plan", fleet.rollout)
    assert "missing" in planned and "whole:" not in planned
    fleet.start()
    assert fleet.wave()["status"] == "preparing"
    assert fleet.check_in("dev-0", 1) is None
    [waiting] = house.json("delta", "list")
    assert (waiting["state"], waiting["from"], waiting["to"]) == ("queued", fleet.commits[1], fleet.commits[2])

    house.ok("delta", "build", "1", "2", "--here")
    fleet.tick()
    assert fleet.wave()["status"] == "open"
    offer = fleet.check_in("dev-0", 1)
    assert (offer.target.commit, offer.repository) == (fleet.commits[2], None)
    assert (offer.artifact.sha256, offer.artifact.bytes, offer.artifact.filename) == (
        fleet.commits[2],
        len(TWO),
        "os-2.0.img",
    )
    delta = offer.delta
    assert (delta.from_commit, delta.program) == (fleet.commits[1], "xdelta3") and delta.bytes < len(TWO) / 10

    fetched = fleet.fetch(delta.url)
    assert fetched.status_code == 200 and hashlib.sha256(fetched.content).hexdigest() == delta.sha256
    assert len(fetched.content) == delta.bytes
    (tmp_path / "running").write_bytes(ONE)
    (tmp_path / "delta").write_bytes(fetched.content)
    apply = ["xdelta3", "-d", "-s", str(tmp_path / "running"), str(tmp_path / "delta"), str(tmp_path / "next")]
    subprocess.run(apply, check=True, timeout=60)
    assert (tmp_path / "next").read_bytes() == TWO
    assert fleet.fetch(offer.artifact.url).content == TWO
    assert fleet.fetch(offer.artifact.url.partition("?")[0]).status_code == 403

    assert fleet.check_in("dev-0", 2) is None
    explained = house.json("explain", "dev-0")
    assert (explained["version"], explained["updates"][0]["status"]) == (2, "confirmed")


def test_a_wave_does_not_open_on_a_delta_that_was_damaged_meanwhile(house: House, tmp_path: Path) -> None:
    fleet = Fleet(house, tmp_path)
    house.ok("delta", "build", "1", "2", "--here")
    [file] = (house.root / "artifacts" / "deltas" / fleet.commits[1] / fleet.commits[2]).iterdir()
    file.write_bytes(b"!" + file.read_bytes()[1:])
    fleet.start()
    assert fleet.wave()["status"] == "preparing"
    house.ok("delta", "build", "1", "2", "--here")
    fleet.tick()
    assert fleet.wave()["status"] == "open"


@pytest.mark.parametrize("reason", ["no program", "not smaller"])
def test_what_has_no_delta_is_served_whole_and_nobody_waits(house: House, tmp_path: Path, reason: str) -> None:
    program = reason == "not smaller"
    fleet = Fleet(house, tmp_path, second=STRANGE if program else TWO, program=program)
    if program:
        house.ok("delta", "build", "1", "2", "--here")
    else:
        assert "whole: no delta is made" in " ".join(house.ok("plan", fleet.rollout).split())
        assert house.json("plan", fleet.rollout)["waves"][0]["deltas"][0]["state"] == "whole"
    fleet.start()
    assert fleet.wave()["status"] == "open"
    offer = fleet.check_in("dev-0", 1)
    assert offer.delta is None
    assert hashlib.sha256(fleet.fetch(offer.artifact.url).content).hexdigest() == offer.target.commit
