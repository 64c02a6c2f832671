"""Editions: what a device is shown of the Targets, numbered so that no device ever sees a number go down.

A *content* is what stands in one ``targets.json``; most devices share a few. It is shown under a number, the *edition*,
which is the version of ``targets.json`` and ``snapshot.json``. Numbers are given out in one rising order for all
contents together. A device is shown the newest edition of its content, unless it has had a higher number: then the
content gets a new edition. So a withdrawn offer is an older content under a higher number, and devices that change
alike share it.

The version of ``timestamp.json`` is the edition times 1000 and how often it was signed again. All this is counted and
never taken from a clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from orchestrator.core.tuf import canonical, target_entry

SIGNINGS: Final = 1000
"""Versions of ``timestamp.json`` that an edition has room for."""

MOST_EDITIONS: Final = (2**31 - 1) // SIGNINGS - 1
"""Clients read versions as 32-bit numbers."""


class Shown(NamedTuple):
    """A Target as one device is shown it. ``stats``: digest and size of the file with its delta's sizes."""

    name: str
    version: int
    commit: str
    tags: tuple[str, ...]
    stats: tuple[str, int] | None = None


class Content(NamedTuple):
    """What one device is shown, lowest version first."""

    hardware_id: str
    targets: tuple[Shown, ...] = ()

    @property
    def body(self) -> bytes:
        """The ``targets`` of its document."""
        return canonical({each.name: self._entry(each) for each in self.targets})

    def _entry(self, each: Shown) -> dict[str, Any]:
        stats = None if each.stats is None else {"sha256": each.stats[0], "size": each.stats[1]}
        return target_entry(
            name=each.name,
            version=each.version,
            commit=each.commit,
            hardware_id=self.hardware_id,
            tags=each.tags,
            stats=stats,
        )


def content_of(hardware_id: str, shown: Iterable[Shown | None]) -> Content:
    """Each version once; of two with one version the later given stands."""
    by_version = {each.version: each for each in shown if each is not None}
    return Content(hardware_id, tuple(by_version[version] for version in sorted(by_version)))


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long signatures are good for; they are renewed at half of it."""

    timestamp: timedelta = timedelta(days=7)
    targets: timedelta = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Edition:
    """``digest`` of its content; ``signings``: how often its timestamp was signed again. ``root_version``: of the root
    whose keys signed it last."""

    number: int
    digest: str
    body: str
    expires_at: datetime
    timestamp_expires_at: datetime
    root_version: int
    signings: int = 0

    @property
    def timestamp_version(self) -> int:
        return self.number * SIGNINGS + self.signings

    def lasts(self, lifetimes: Lifetimes, now: datetime) -> bool:
        """Whether it can still be shown to devices that come now; otherwise its content needs a new edition."""
        return self.expires_at - now > lifetimes.targets / 2 and self.signings < SIGNINGS - 1

    def fresh(self, lifetimes: Lifetimes, root_version: int, now: datetime) -> bool:
        """Whether its timestamp needs no new signature."""
        return self.root_version >= root_version and self.timestamp_expires_at - now > lifetimes.timestamp / 2

    def signed_again(self, lifetimes: Lifetimes, root_version: int, now: datetime) -> Edition:
        return replace(
            self,
            signings=self.signings + 1,
            root_version=root_version,
            timestamp_expires_at=now + lifetimes.timestamp,
        )


def first_of(number: int, digest: str, body: str, lifetimes: Lifetimes, *, root_version: int, now: datetime) -> Edition:
    """A new edition."""
    return Edition(number, digest, body, now + lifetimes.targets, now + lifetimes.timestamp, root_version)


def holds(before: Content, now: Content) -> bool:
    """Whether who was shown ``before`` need not be shown anything else: it has all of ``now``, and no newer Target.
    What is more in it the device has run. Sizes of deltas matter only where there are some now."""
    if before.hardware_id != now.hardware_id:
        return False
    known = {each.name: each for each in before.targets}
    for each in now.targets:
        other = known.get(each.name)
        if other is None or other[:4] != each[:4] or (each.stats is not None and other.stats != each.stats):
            return False
    return not before.targets or (bool(now.targets) and before.targets[-1].version == now.targets[-1].version)


def read_content(hardware_id: str, body: str) -> Content:
    """The content that a body was made of. ``hardware_id`` counts where it is empty."""
    found = []
    for name, entry in json.loads(body).items():
        custom, stats = entry["custom"], entry["custom"].get("delta-stats")
        (hardware_id,) = custom["hardwareIds"]
        sizes = None if stats is None else (stats["sha256"], stats["size"])
        shown = Shown(name, int(custom["version"]), entry["hashes"]["sha256"], tuple(custom["tags"]), sizes)
        found.append(shown)
    return content_of(hardware_id, found)
