"""Targets and devices as the rest of the core sees them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from orchestrator.core.membership import Member, WaveSelector
from orchestrator.core.position import device_hash
from orchestrator.errors import InvalidInput

_COMMIT: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
LABEL_KEY_PATTERN: Final = f"^{_LABEL_KEY.pattern}$"
LONGEST_LABEL_VALUE: Final = 255
"""Characters."""


def check_commit(text: str) -> str:
    """The text itself when it is a commit, 64 lower-case hex digits. Raises InvalidInput."""
    if not _COMMIT.fullmatch(text):
        raise InvalidInput(f"{text[:80]!r} is no commit: a commit has 64 lower-case hex digits.")
    return text


def is_name(text: str) -> bool:
    """Whether it can name a device, hardware id, tag, group or Target."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """The text itself when it can name a device, hardware id, tag, group or Target. Raises InvalidInput."""
    if not is_name(text):
        raise InvalidInput(
            f"{text[:80]!r} cannot be a {what}: use letters, digits and . _ : -, beginning with a letter or digit, "
            "128 at most."
        )
    return text


def wrong_key(key: str) -> str | None:
    """What is wrong with a label's key, as the end of a sentence; None when nothing is. A key may be a path, such as
    ``site/rack``."""
    if _LABEL_KEY.fullmatch(key):
        return None
    return "is no name for a label: use letters, digits and . _ / : -, beginning with a letter or digit, 128 at most."


def wrong_value(value: str) -> str | None:
    """The same for a label's value."""
    if 1 <= len(value) <= LONGEST_LABEL_VALUE and value.isprintable():
        return None
    return f"must be 1 to {LONGEST_LABEL_VALUE} printable characters on one line."


def check_label(key: str, value: str | None) -> None:
    """Raises InvalidInput when this cannot be a label; ``value`` None: one that is taken away."""
    if wrong := wrong_key(key):
        raise InvalidInput(f"{key[:80]!r} {wrong}")
    if value is not None and (wrong := wrong_value(value)):
        raise InvalidInput(f"The label {key} {wrong}")


@dataclass(frozen=True, slots=True)
class Target:
    """The software a device should run. ``added_at`` by the server's clock; ``provider`` names the content system."""

    name: str
    version: int
    commit: str
    hardware_ids: tuple[str, ...]
    tags: tuple[str, ...] = ()
    provider: str = "ostree"
    added_at: datetime | None = None


class DeviceStatus(StrEnum):
    ACTIVE = "active"
    HELD = "held"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Device:
    """One machine in the field.

    ``commit`` and ``version`` are what it runs, None while unknown. ``since_at``: from when on it has been reachable
    and as it is (slices go by it).
    ``usual_gap``: its usual time between check-ins. ``held_because``: why a person holds it.
    """

    id: str
    hardware_id: str
    tag: str
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    version: int | None = None
    status: DeviceStatus = DeviceStatus.ACTIVE
    held_because: str | None = None
    healthy: bool = True
    enrolled_at: datetime | None = None
    last_seen_at: datetime | None = None
    since_at: datetime | None = None
    usual_gap: timedelta = timedelta(0)

    @property
    def member(self) -> Member:
        return Member(device_hash(self.id), self.hardware_id, self.group, self.labels)


def segment_value(device: Device, dimension: str) -> str | None:
    """What a device has in a dimension of segments; None where it has nothing, and is in no segment of it."""
    match dimension:
        case "hardware_id":
            return device.hardware_id
        case "source_version":
            return None if device.version is None else str(device.version)
        case _:
            return device.labels.get(dimension.removeprefix("label:"))


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a rollout is for, in a form that Python and SQL evaluate alike.

    ``commits`` maps each hardware id the version exists for to its commit. Devices that run ``version`` or a newer one
    are already there. ``from_versions``: with ``allow_older``, the versions whose devices may be taken back; then only
    those are eligible. ``selectors`` in file order, bounds worked out; a device that none of them holds is in no wave.
    ``excluded``: the segments that are left out, in sorted order; what their devices are in now counts here.
    """

    rollout: str
    tag: str
    version: int
    commits: Mapping[str, str]
    selectors: tuple[WaveSelector, ...]
    from_versions: tuple[int, ...] = ()
    excluded: tuple[str, ...] = ()

    def follows(self, device: Device) -> bool:
        """Follows the tag, has a hardware id the version exists for, and a person has neither retired nor held it."""
        return device.tag == self.tag and device.hardware_id in self.commits and device.status is DeviceStatus.ACTIVE

    def already_there(self, device: Device) -> bool:
        """Runs the Target's commit, or the version or a newer one (unless this rollout takes that version back)."""
        if device.commit is not None and device.commit == self.commits.get(device.hardware_id):
            return True
        if device.version is None or device.version < self.version:
            return False
        return device.version not in self.from_versions or device.version == self.version

    def eligible(self, device: Device) -> bool:
        """Would be offered the Target, its wave and its place aside."""
        if not self.follows(device) or self.already_there(device) or self.leaves_out(device):
            return False
        return not self.from_versions or device.version in self.from_versions

    def leaves_out(self, device: Device) -> bool:
        """Is in an excluded segment."""
        for segment in self.excluded:
            dimension, _, value = segment.partition("=")
            if segment_value(device, dimension) == value:
                return True
        return False
