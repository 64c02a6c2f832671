"""Who is in the demo's fleet: ids, hardware, groups, labels, what each runs at first, and which of them are real."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from examples.demo.trees import HARDWARE_IDS

TAG: Final = "main"
"""The tag that every device follows."""

REGIONS: Final = ("emea", "amer")
RPI4, IMX8 = HARDWARE_IDS

LARGE: Final = 100
"""Devices from which on a fleet is as mixed as fleets are."""


@dataclass(frozen=True, slots=True)
class Member:
    """One device of the fleet. ``version``: what it runs before the first rollout; ``real``: it has a repository, a
    program and files."""

    id: str
    hardware_id: str
    version: int
    region: str
    group: str = "field"
    ring: str = "late"
    real: bool = False


def make_fleet(devices: int, real: int) -> list[Member]:
    """A fleet of ``devices``, of which ``real`` are real: a fifth of these in the lab, two fifths among the early ones,
    the others in both regions.

    The lab has boards of one hardware id only, as labs do; those who volunteered to be early have both. Only the others
    still have devices on version 1, so that each wave needs more deltas than the one before; a small fleet has none.
    """
    lab = max(10, devices * 6 // 100)
    early = max(12, devices * 12 // 100)
    large = devices >= LARGE
    real_lab, real_early = max(1, real // 5), real * 2 // 5
    real_late = real - real_lab - real_early
    members = [Member(f"lab-{n:02}", RPI4, 2, "emea", "lab", "lab", real=n <= real_lab) for n in range(1, lab + 1)]
    for n in range(early):
        region = REGIONS[n // 2 % 2]
        members.append(Member(f"early-{n + 1:02}", HARDWARE_IDS[n % 2], 2, region, ring="early", real=n < real_early))
    for n in range(devices - lab - early):
        region, version = REGIONS[n % 2], (3 if n % 10 >= 9 else 1 if large and n % 10 in (2, 5, 7) else 2)
        number = n // 2 + 1
        members.append(Member(f"{region}-{number:03}", HARDWARE_IDS[number % 2], version, region, real=n < real_late))
    return members


def write_fleet_file(members: Sequence[Member], path: Path) -> None:
    """The file for ``wave device enroll --from``. Each line is a mapping in flow style, which JSON is as well."""
    lines = ["# The demo's fleet, as enrolled: wave device enroll --from fleet.yaml --tokens-to tokens", "devices:"]
    for each in members:
        labels = {"region": each.region, "ring": each.ring}
        entry = {"id": each.id, "hardware_id": each.hardware_id, "tag": TAG, "group": each.group, "labels": labels}
        lines.append(f"  - {json.dumps(entry)}")
    path.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Answered:
    """A report as its device saw it: when it was sent and when the server's answer was there."""

    device: str
    sent_at: datetime
    answered_at: datetime


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a real device downloaded for one update, counted in its own process."""

    device: str
    hardware_id: str
    from_commit: str
    to_commit: str
    requests: int
    bytes: int


@dataclass(slots=True)
class Notes:
    """What the devices themselves know, beside the server's record: written from their threads, read by the page."""

    answers: dict[str, Answered] = field(default_factory=dict)
    """By event id."""
    offers: list[tuple[datetime, str, str]] = field(default_factory=list)
    """When it came, the device, the rollout; each offer of one rollout to one device once."""
    check_ins: list[tuple[datetime, bool]] = field(default_factory=list)
    """When each was sent, and whether it was answered with an offer."""
    fetched: list[Fetched] = field(default_factory=list)
    doing: dict[str, str] = field(default_factory=dict)
    """What a real device is at, in a word."""
    repository: str | None = None
    """The URL that offers name."""
    _offered: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def checked_in(self, device: str, sent_at: datetime, offer: dict[str, object] | None) -> None:
        now = datetime.now(UTC)
        with self._lock:
            self.check_ins.append((sent_at, offer is not None))
            if offer is None:
                return
            self.repository = str(offer["repository"])
            known = (device, str(offer["rollout"]))
            if known not in self._offered:
                self._offered.add(known)
                self.offers.append((now, *known))

    def reported(self, device: str, event_ids: Sequence[str], sent_at: datetime) -> None:
        answered = Answered(device, sent_at, datetime.now(UTC))
        with self._lock:
            for each in event_ids:
                self.answers[each] = answered
