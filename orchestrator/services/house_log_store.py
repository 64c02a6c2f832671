"""The part of the port to the store that keeps the house's log (``house_log``). The contract of ``services.store``
holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class HouseEvent:
    """One order: what ``by`` did to ``what``, in a sentence. ``number``: its place in the log, 0 before it has one."""

    at: datetime
    by: str
    event: str
    what: str
    sentence: str
    number: int = 0


class ReadsHouseLog(Protocol):
    """Part of a snapshot."""

    def house_events(self, *, after: int | None = None, limit: int = 100) -> Sequence[HouseEvent]:
        """The newest first; with ``after`` those before that number."""


class WritesHouseLog(ReadsHouseLog, Protocol):
    """Part of a transaction."""

    def log_house_event(self, event: HouseEvent) -> None: ...
