"""What one process counts for ``/metrics``: plain numbers, so that counting costs a request nothing.

They begin at zero with the process and are nowhere written down; whoever draws a curve takes their rate. What must
survive (places, outcomes, journals) is the store's. Each number is counted up by one thread and read by any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


class Refusals:
    """Requests that were no success, by the door that refused and the kind that was told. Both are few and fixed."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def count(self, door: str, kind: str) -> None:
        key = (door, kind)
        self.counts[key] = self.counts.get(key, 0) + 1


@dataclass(slots=True)
class Ticks:
    """What the ticker of this process did. ``elsewhere``: ticks left to the process that holds the lease; ``failed``:
    those that came to no end; ``problems``: rollouts that the last one could not look at; ``seconds``: how long the
    last one took."""

    done: int = 0
    elsewhere: int = 0
    failed: int = 0
    decided: int = 0
    problems: int = 0
    last_at: datetime | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Meter:
    """All of it. ``late_seconds``: by how much in all the gateway's event loop got late to its work. ``limited``:
    requests that came too often, by which limit said so. ``operators``: requests of the operators' side, by status;
    ``beside``: what never became one."""

    refused: Refusals = field(default_factory=Refusals)
    beside: Refusals = field(default_factory=Refusals)
    ticks: Ticks = field(default_factory=Ticks)
    late_seconds: float = 0.0
    limited: Mapping[str, int] = field(default_factory=dict)
    operators: dict[int, int] = field(default_factory=dict)
