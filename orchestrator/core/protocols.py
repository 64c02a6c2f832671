"""The protocols that devices speak, and what a device of each can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator.core.artifact import Format


class DeviceProtocol(StrEnum):
    """How a device talked to us last."""

    __hash__ = str.__hash__

    OWN = "own"
    """The orchestrator's own; also said of whoever was never heard."""
    DDI = "ddi"
    MENDER = "mender"
    AKTUALIZR = "aktualizr"


ONLY_FORWARD: Final = frozenset({DeviceProtocol.AKTUALIZR})
"""Their devices take no version below the highest they have run, whatever they are offered."""

LOOKS_TWICE: Final = frozenset({DeviceProtocol.DDI})
"""Their devices look several times before they begin."""

TAKES_FILES: Final = frozenset({DeviceProtocol.DDI, DeviceProtocol.MENDER})
"""Their devices take a Target that is a file, and no other."""

TAKES_WHOLE: Final = frozenset({DeviceProtocol.DDI, DeviceProtocol.MENDER})
"""Their devices are handed files and nothing else: the protocol has no words for a delta."""

TAKES_ONLY: Final = {DeviceProtocol.MENDER: Format.MENDER}
"""Of files their devices take this kind, and are told of no other."""

TAKES_OSTREE: Final = frozenset({DeviceProtocol.AKTUALIZR})
"""Their devices take a Target that is an OSTree commit, and no other."""

SPOKEN_AS: Final = {
    DeviceProtocol.OWN: "the orchestrator's own protocol",
    DeviceProtocol.DDI: "hawkBit's protocol",
    DeviceProtocol.MENDER: "Mender's protocol",
    DeviceProtocol.AKTUALIZR: "aktualizr's protocol",
}
"""As sentences call them."""

FAILED_FOR_GOOD: Final = frozenset({DeviceProtocol.AKTUALIZR})
"""Their devices remember by its name a Target that failed, and never try it again."""


def takes_whole(protocol: DeviceProtocol, *, installs: bool) -> bool:
    """Whether devices that speak this are handed content whole. ``installs``: deltas are files that a device installs
    as they are."""
    return protocol in TAKES_WHOLE and not installs


@dataclass(frozen=True, slots=True)
class Spoken:
    """What is known of a device by its protocol. ``highest_version``: of those that it has run."""

    protocol: DeviceProtocol = DeviceProtocol.OWN
    highest_version: int | None = None

    def heard(self, protocol: DeviceProtocol, version: int | None) -> Spoken:
        """After a check-in over ``protocol`` that says ``version`` runs. What only the own protocol was ever heard from
        needs no note."""
        if protocol is DeviceProtocol.OWN and self.protocol is DeviceProtocol.OWN:
            return self
        known = [each for each in (version, self.highest_version) if each is not None]
        return Spoken(protocol, max(known, default=None))


NOTHING_SPOKEN: Final = Spoken()
