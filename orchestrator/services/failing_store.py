"""The part of the store that knows what failed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from orchestrator.services.records import UpdateRow


class ReadsFailing(Protocol):
    def some_bad(self, rollout_key: int, *, limit: int) -> Sequence[tuple[str, UpdateRow]]:
        """With the device's id, so many of those with a bad outcome, whichever; no others are looked at."""

    def last_codes(self, rollout_key: int, device_keys: Collection[int]) -> Mapping[int, str]:
        """The error code that each of these devices said last in the rollout, by device key; without one left out."""
