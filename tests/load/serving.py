"""Real server processes for measuring and killing: loopback only, each ended by its own process id."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.bootstrap import initialise
from orchestrator.core.artifact import FILES, Artifact, Digests, Format
from orchestrator.core.fleet import Target
from tests.loopback import listens
from tests.services.fleet_world import HARDWARE, TAG, World

STARTS_WITHIN = 60.0
ALONE = {"WAVE_BUILDERS": "0", "WAVE_CONSOLE_PORT": "off", "WAVE_LIMIT_PER_DEVICE": "1000000/s burst 1000000"}
"""The environment of a server that is measured: no builders and no console beside it, and the limit of a device is
looked at as ever, but a few devices ask in the name of a fleet."""


@dataclass
class Running:
    port: int
    pid: int


@contextlib.contextmanager
def process(command: Sequence[str], port: int, environment: dict[str, str], folder: Path) -> Iterator[Running]:
    """A server until the block ends; its words go to a file. Raises RuntimeError with them when it does not come."""
    words = folder / f"{port}.log"
    with words.open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
    try:
        until = time.monotonic() + STARTS_WITHIN
        while not listens(port):
            if child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {words.read_text()[-2000:]}")
            time.sleep(0.1)
        yield Running(port, child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wave_serve(root: Path, port: int) -> list[str]:
    """The command of a real ``wave serve`` over an installation."""
    return [sys.executable, "-m", "orchestrator", "--root", str(root), "serve", "--port", str(port)]


_NOTHING_STOPS = {each: {"at_most": "15%", "then": "count"} for each in ("ignored", "silent", "download_failed")}


def of_files(root: Path, devices: int, *, slices: int) -> dict[str, str]:
    """The same for devices of foreign protocols, which take files: none has an offer yet."""
    initialise(root)
    world = World(f"sqlite:///{root / 'wave.db'}", now=datetime.now(UTC))
    try:
        for version in (41, 42):
            content = f"image {version}".encode()
            sha256, sha1 = hashlib.sha256(content).hexdigest(), hashlib.sha1(content).hexdigest()
            digests = Digests(sha256, sha1, hashlib.md5(content).hexdigest(), len(content))
            artifact = Artifact(digests, Format.SWU, "image.swu", "demo", f"1.{version}.0", (HARDWARE,))
            with world.store.writing() as w:
                w.add_artifact(artifact)
                target = Target(f"{HARDWARE}-{version}", version, artifact.sha256, (HARDWARE,), (TAG,), provider=FILES)
                w.add_target(target, now=world.now)
            if version == 41:
                runs = {"commit": artifact.sha256, "version": 41, "since_at": world.now, "last_seen_at": world.now}
        fleet = world.enroll(devices, **runs)
        world.apply(policy={"slices": {"first": slices}, "tolerate": _NOTHING_STOPS})
        return {device: world.tokens[device] for device in fleet}
    finally:
        world.close()


def installation(root: Path, devices: int, *, slices: int, offered: bool) -> dict[str, str]:
    """An installation with a fleet and a running rollout that nothing stops; tokens by device. ``slices``: how many
    devices the first slice has; ``offered``: every device has its offer."""
    initialise(root)
    world = World(f"sqlite:///{root / 'wave.db'}", now=datetime.now(UTC))
    try:
        fleet = world.fleet(devices)
        world.apply(policy={"slices": {"first": slices}, "tolerate": _NOTHING_STOPS})
        if offered:
            for device in fleet:
                world.check_in(device)
        return {device: world.tokens[device] for device in fleet}
    finally:
        world.close()
