"""A simulated aktualizr-lite: it keeps its metadata, takes the highest version for its hardware and tags, goes back by
itself never, and remembers what failed. What it asks and says is what the real one was seen to ask and say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from tests.gateway.aktualizr.verifier import Rejected, Repository

Ask = Callable[[str, str, dict[str, str], bytes], tuple[int, bytes]]
"""Method, path below the device's base, headers and body; status and body of the answer."""


@dataclass
class Software:
    """A Target as a device has it; ``name`` "Initial Target" and version -1 when it was never told."""

    name: str
    version: int
    commit: str


@dataclass
class Client:
    """``ask`` sends a request. ``seen`` collects the versions and Targets that it was shown, oldest first."""

    device: str
    hardware_id: str
    tags: str
    runs: Software
    ask: Ask
    now: Callable[[], datetime]
    failing: set[str] = field(default_factory=set)
    pending: Software | None = None
    seen_versions: list[tuple[int, int, int]] = field(default_factory=list)
    seen_targets: list[frozenset[str]] = field(default_factory=list)
    queue: list[dict[str, Any]] = field(default_factory=list)
    ids: Any = field(default_factory=lambda: count(1))
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self.repository = Repository(self._get)

    @property
    def headers(self) -> dict[str, str]:
        return {
            "user-agent": "Aktualizr/2023.08+fio",
            "accept": "*/*",
            "x-ats-tags": self.tags,
            "x-ats-target": self.runs.name,
            "x-ats-ostreehash": self.runs.commit,
        }

    def _get(self, name: str) -> bytes | None:
        status, body = self.ask("GET", f"/repo/{name}", self.headers, b"")
        return body if status == 200 else None

    def check(self) -> Software | None:
        """Fetch metadata; the Target to install, or None. Raises Rejected."""
        had_root = None if self.repository.root is None else self.repository.root["signed"]["version"]
        targets = self.repository.update(self.now())
        repository = self.repository
        assert repository.root and repository.timestamp and repository.snapshot and repository.targets
        if had_root not in (None, repository.root["signed"]["version"]):
            self.seen_versions.append((0, 0, 0))  # a new root: what was kept of the others is forgotten
        kept = (repository.timestamp, repository.snapshot, repository.targets)
        timestamp, snapshot, shown = (each["signed"]["version"] for each in kept)
        self.seen_versions.append((timestamp, snapshot, shown))
        self.seen_targets.append(frozenset(targets))
        return self._latest(targets)

    def _latest(self, targets: dict[str, Any]) -> Software | None:
        fit = [
            Software(name, int(each["custom"]["version"]), each["hashes"]["sha256"])
            for name, each in targets.items()
            if self._fits(each)
        ]
        latest = max(fit, key=lambda each: each.version, default=None)
        if latest is None or latest.version < self.runs.version or latest.name == self.runs.name:
            return None
        return None if latest.name in self.failing else latest

    def _fits(self, entry: dict[str, Any]) -> bool:
        custom = entry["custom"]
        if custom["targetFormat"] != "OSTREE" or custom["hardwareIds"] != [self.hardware_id]:
            return False
        return bool(set(custom["tags"]) & set(self.tags.split(",")))

    # ---------------------------------------------------------------------------------------------- an update

    def begin(self, target: Software) -> None:
        """Download and write it; it waits for its reboot."""
        self.event("EcuDownloadStarted", target, details=f"Updating from {self.runs.name} to {target.name}")
        self.event("EcuDownloadCompleted", target, success=True)
        self.event("EcuInstallationStarted", target)
        self.event("EcuInstallationApplied", target, details="Application successful, need reboot")
        self.pending = target

    def boot(self, *, good: bool = True) -> None:
        """Restart: into what was written, or, when the bootloader fell back, into what ran before."""
        target = self.pending
        assert target is not None
        self.pending = None
        if good:
            self.runs = target
            self.event("EcuInstallationCompleted", target, success=True, details="Successfully booted on new version")
        else:
            self.failing.add(target.name)
            self.event("EcuInstallationCompleted", target, success=False, details="Wrong version booted")

    def fail(self, target: Software, details: str = "failed to install App: app1") -> None:
        """It cannot be written; the device syncs what it ran, and says of that that it succeeded."""
        self.event("EcuDownloadStarted", target)
        self.event("EcuDownloadCompleted", target, success=True)
        self.event("EcuInstallationStarted", target)
        self.event("EcuInstallationCompleted", target, success=False, details=details)
        self.failing.add(target.name)
        self.event("EcuInstallationStarted", self.runs)
        self.event("EcuInstallationCompleted", self.runs, success=True)

    def event(self, kind: str, target: Software, *, success: bool | None = None, details: str = "") -> None:
        said: dict[str, Any] = {
            "correlationId": f"{target.version}-{self.device}",
            "ecu": self.device,
            "targetName": target.name,
            "version": str(target.version),
        }
        if details:
            said["details"] = details
        if success is not None:
            said["success"] = success
        event_id = f"00000000-0000-4000-8000-{next(self.ids):012d}"
        self.queue.append(
            {
                "deviceTime": "2026-11-02T09:00:00Z",
                "event": said,
                "eventType": {"id": kind, "version": 0},
                "id": event_id,
            }
        )

    def flush(self, *, at_once: int = 6, keep: bool = False) -> int:
        """Send what is queued, six at a time; the last status. With ``keep`` the answers are lost, and it will all be
        sent again."""
        status, start = 200, 0
        while start < len(self.queue):
            some = self.queue[start : start + at_once]
            headers = {**self.headers, "content-type": "application/json"}
            status, _ = self.ask("POST", "/events", headers, json.dumps(some, separators=(",", ":")).encode())
            if status not in (200, 404):
                return status
            start += at_once
        if not keep:
            self.queue.clear()
        return status

    def cycle(self, *, bad: bool = False) -> Software | None:
        """One turn of the daemon: check, update, restart, report; what was installed."""
        target = self.check()
        if target is not None:
            if bad:
                self.begin(target)
                self.boot(good=False)
            else:
                self.begin(target)
                self.boot()
        self.flush()
        return target


def monotone(client: Client) -> None:
    """No version of any role ever went down while a root stood."""
    before = (0, 0, 0)
    for versions in client.seen_versions:
        if versions != (0, 0, 0) and any(now < then for now, then in zip(versions, before, strict=True)):
            raise Rejected(f"versions went down: {before} -> {versions}")
        before = versions
