"""What the protocol of its devices means for a rollout, and the part of the store's port that holds it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from orchestrator.core.fleet import Scope
from orchestrator.core.protocols import DeviceProtocol, Spoken
from orchestrator.errors import Refused

NAMED: Final = 3
"""Devices that a sentence names."""


class Held(NamedTuple):
    """Devices that cannot do something: how many, and the first of them by id."""

    devices: int
    first: Sequence[str]

    def __str__(self) -> str:
        named = ", ".join(self.first)
        return named if self.devices <= len(self.first) else f"{named} and {self.devices - len(self.first)} more"


class ReadsProtocols(Protocol):
    """Part of a snapshot."""

    def spoken(self, device_keys: Collection[int]) -> Mapping[int, Spoken]:
        """By device key; who was heard only over the own protocol is left out."""

    def only_forward(self, scope: Scope, protocols: Collection[DeviceProtocol], *, limit: int) -> Held:
        """Eligible devices in some wave that speak one of the protocols and run, or have run, a newer version than the
        scope's; the first ``limit`` by id."""


class WritesProtocols(ReadsProtocols, Protocol):
    """Part of a transaction."""

    def set_spoken(self, spoken: Mapping[int, Spoken]) -> None:
        """By device key; only what changed is handed in."""


def refuse_going_back(r: ReadsProtocols, scope: Scope, protocols: Collection[DeviceProtocol]) -> None:
    """Raises Refused when a rollout would take back devices that take no older version (RULES 7.6). That is not only
    where ``allow_older`` says so: who ran a newer version and fell back from it runs an older one than the scope's."""
    held = r.only_forward(scope, protocols, limit=NAMED)
    if not held.devices:
        return
    one = held.devices == 1
    raise Refused(
        f"{held.devices} device{'' if one else 's'} of the rollout ({held}) {'takes' if one else 'take'} no version "
        f"below the highest {'it has' if one else 'they have'} run: aktualizr-lite refuses every downgrade.",
        remedy="Add the content once more under a higher version (`wave target add`) and roll that out, or hold these"
        " devices (`wave device hold`) and roll out to the others.",
    )
