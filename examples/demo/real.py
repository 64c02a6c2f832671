"""Real devices: each has its own OSTree repository and deployments on disk and runs the reference device's program.

They are cloned from golden ones by hard links: a repository's objects and a deployment's files never change in place,
so a clone costs the names alone. Everything that does change is copied.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.demo.fleet import Fetched, Member, Notes
from examples.device import Device

LINKED = ("objects", "deployments")
"""Folders whose files are never changed in place."""


def make_golden(
    root: Path, repository: Path, commits: Mapping[tuple[str, int], str], wanted: Sequence[tuple[str, int]]
) -> None:
    """Make a device below ``root/<hardware id>-<version>`` for each of ``wanted`` that is not there yet, as a factory
    would."""

    def make(key: tuple[str, int]) -> None:
        hardware_id, version = key
        place = golden_path(root, key)
        if (place / ".whole").exists() and (place / ".whole").read_text() == commits[key]:
            return
        shutil.rmtree(place, ignore_errors=True)
        device = Device("", "golden", "", place, hardware_id)
        try:
            device.provision(repository.absolute().as_uri(), commits[key], version)
        finally:
            device.close()
        (place / ".whole").write_text(commits[key])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, wanted))


def golden_path(root: Path, key: tuple[str, int]) -> Path:
    return root / f"{key[0]}-{key[1]}"


def clone(golden: Path, place: Path) -> None:
    """A device of its own that has what ``golden`` has."""
    shutil.copytree(
        golden, place, symlinks=True, ignore=lambda folder, names: [n for n in names if n in (*LINKED, ".whole")]
    )
    for folder in ("repo/objects", "deployments"):
        subprocess.run(["cp", "-al", golden / folder, place / folder], check=True, capture_output=True, timeout=120)


class ShownDevice(Device):
    """The reference device, watched: what it fetched for an update, how long its reports took, what it is at."""

    notes: Notes

    def _post(self, what: str, body: dict[str, Any]) -> Any:
        sent_at = datetime.now(UTC)
        answer = super()._post(what, body)
        if what == "check-in":
            self.notes.checked_in(self.device_id, sent_at, answer["offer"])
        else:
            self.notes.reported(self.device_id, [each["id"] for each in body["events"]], sent_at)
        return answer

    def _fetch_delta(self, repository: str, path: str, commit: str) -> None:
        requests, size = self.requests, self.bytes
        super()._fetch_delta(repository, path, commit)
        self.notes.fetched.append(
            Fetched(
                self.device_id,
                self.hardware_id,
                self.state["commit"],
                commit,
                self.requests - requests,
                self.bytes - size,
            )
        )

    def _update(self, offer: dict[str, Any]) -> bool:
        done = super()._update(offer)
        if not done:
            self.notes.doing.pop(self.device_id, None)
        return done

    def _boot(self) -> None:
        super()._boot()
        self.notes.doing.pop(self.device_id, None)


@dataclass(frozen=True, slots=True)
class Placed:
    """A real device and where it lives."""

    member: Member
    root: Path


class RealFleet:
    """Runs every device in a thread of its own, from ``start`` to ``stop``."""

    def __init__(
        self,
        placed: Sequence[Placed],
        *,
        server: str,
        tokens: Mapping[str, str],
        notes: Notes,
        log: Callable[[str], None],
    ) -> None:
        self._devices = [self._make(each, server, tokens[each.member.id], notes, log) for each in placed]
        self._threads = [
            threading.Thread(target=device.run, name=device.device_id, daemon=True) for device in self._devices
        ]

    @staticmethod
    def _make(placed: Placed, server: str, token: str, notes: Notes, log: Callable[[str], None]) -> ShownDevice:
        member = placed.member
        device = ShownDevice(server, member.id, token, placed.root, member.hardware_id, retry_seconds=0.2)
        device.notes = notes

        def said(line: str) -> None:
            notes.doing[member.id] = line.split()[0].rstrip(":")
            log(f"{member.id}: {line}")

        device.log = said
        return device

    def running(self) -> dict[str, int]:
        """What each runs now, by its own state."""
        return {device.device_id: int(device.state["version"]) for device in self._devices}

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for device in self._devices:
            device.stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(20)
        for device, thread in zip(self._devices, self._threads, strict=True):
            if not thread.is_alive():
                with suppress(OSError):
                    device.close()


def fetch_without_delta(
    golden: Path, place: Path, repository: str, commit: str, version: int, hardware_id: str
) -> tuple[int, int]:
    """What a device cloned from ``golden`` needs for the same update as loose objects: (requests, bytes), as libostree
    states it."""
    clone(golden, place)
    device = Device("", place.name, "", place, hardware_id)
    try:
        device.provision(repository, commit, version)
    finally:
        device.close()
    return device.requests, device.bytes


def libostree_version() -> str:
    """Of the client that every real device uses."""
    said = subprocess.run(["ostree", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return next(line.split("'")[1] for line in said.splitlines() if "Version:" in line)
