"""What ``wave doctor`` finds: one thing looked at, how it stands, and what to do. Looking is the adapters' work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a thing stands. Only ``fail`` keeps an installation from working, now or within days."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Area(StrEnum):
    """What was looked at, in the order of the answer."""

    SETTINGS = "settings"
    STORE = "store"
    DISK = "disk"
    CONTENT = "content"
    DELTAS = "deltas"
    CLOCK = "clock"
    CERTIFICATES = "certificates"
    TUF = "tuf"
    SECRETS = "secrets"
    PORTS = "ports"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class Finding:
    """``sentence`` says what is so; ``remedy`` what to do, where something is to be done."""

    area: Area
    level: Level
    sentence: str
    remedy: str | None = None


def fine(area: Area, sentence: str) -> Finding:
    return Finding(area, Level.OK, sentence)


def doubtful(area: Area, sentence: str, remedy: str) -> Finding:
    return Finding(area, Level.WARN, sentence, remedy)


def broken(area: Area, sentence: str, remedy: str) -> Finding:
    return Finding(area, Level.FAIL, sentence, remedy)


def worst(findings: Sequence[Finding]) -> Level:
    """Of an empty list ``ok``."""
    order = list(Level)
    return max((each.level for each in findings), key=order.index, default=Level.OK)
