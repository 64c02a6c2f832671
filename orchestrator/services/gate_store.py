"""The part of the port to the store that keeps what gates said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.core.gates import GateFacts


class ReadsGates(Protocol):
    def gates(self, rollout_key: int) -> Mapping[str, Sequence[GateFacts]]:
        """What each gate of each wave said last, by wave, then by name."""


class WritesGates(ReadsGates, Protocol):
    def set_gates(self, rollout_key: int, wave: str, answers: Sequence[GateFacts]) -> None:
        """Replace what the wave's gates said."""
