"""What fails most in a rollout: its devices with a bad outcome, counted by what they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.core.outcomes import word
from orchestrator.services.records import UpdateRow
from orchestrator.services.store import Reading

MOST_LOOKED_AT: Final = 2_000
"""Bad devices that are looked at: the question costs the same however many there are."""

MOST_LABELS: Final = 50
"""Values of one label; one that has more is told apart device by device, and says nothing."""


@dataclass(frozen=True, slots=True)
class Common:
    """So many of the bad devices have this: ``kind`` is outcome, hardware id, source version, error code or
    ``label KEY``."""

    kind: str
    value: str
    devices: int


@dataclass(frozen=True, slots=True)
class Failing:
    """``bad``: devices with a bad outcome, as counted; ``looked_at``: those that ``commons`` are of; most devices
    first, kind by kind."""

    rollout: str
    bad: int
    looked_at: int
    commons: tuple[Common, ...]


def failing(r: Reading, rollout: str, rollout_key: int, bad: int, *, limit: int) -> Failing:
    """``bad`` as the tallies have it; of each kind the ``limit`` values with most devices."""
    found = r.some_bad(rollout_key, limit=MOST_LOOKED_AT)
    codes = r.last_codes(rollout_key, [update.device_key for _, update in found])
    labels = {row.device.id: row.device.labels for row in r.devices_called([device for device, _ in found])}
    counted: dict[str, Counter[str]] = {
        "outcome": Counter(word(outcome) for _, update in found for outcome in _outcomes(update)),
        "error code": Counter(codes.values()),
        "hardware id": Counter(update.hardware_id for _, update in found),
        "source version": Counter(_version(update.from_version) for _, update in found),
    }
    for each in labels.values():
        for key, value in each.items():
            counted.setdefault(f"label {key}", Counter())[value] += 1
    commons = tuple(
        Common(kind, value, devices)
        for kind, counter in counted.items()
        if not kind.startswith("label ") or len(counter) <= MOST_LABELS
        for value, devices in _most(counter, limit)
    )
    return Failing(rollout, max(bad, len(found)), len(found), commons)


def _outcomes(update: UpdateRow) -> Iterable[str]:
    return update.update.bad


def _version(version: int | None) -> str:
    return "unknown" if version is None else str(version)


def _most(counter: Counter[str], limit: int) -> Sequence[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:limit]
