"""Whom a rollout serves whole because their protocol has no deltas: what its plan says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from orchestrator.core.artifact import Artifact
from orchestrator.core.fleet import Scope
from orchestrator.core.offers import unfit
from orchestrator.core.protocols import SPOKEN_AS, DeviceProtocol
from orchestrator.core.reasons import devices
from orchestrator.services.delta_stock import moves
from orchestrator.services.records import WaveCount


class ServedWhole(NamedTuple):
    """Devices that a rollout serves whole because their protocol has no deltas, by protocol, and their bytes."""

    devices: Mapping[DeviceProtocol, int]
    bytes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """As a plan says it."""
        return tuple(
            f"{devices(many)} {'speaks' if many == 1 else 'speak'} {SPOKEN_AS[protocol]}, which has no deltas:"
            f" {'it is' if many == 1 else 'they are'} served whole, and no delta is made or waited for."
            for protocol, many in self.devices.items()
        )


def served_whole(
    scope: Scope,
    counts: Mapping[str, WaveCount],
    files: Mapping[str, Artifact],
    asked: Collection[tuple[str, str, str]],
) -> ServedWhole:
    """Of the devices that have been counted those that get the file whole for their protocol's sake. ``files``: those
    that the Targets are, by commit; who takes no such file is not offered it. ``asked``: wave, from-commit and commit
    of whom the look counts among the others, as their commit is not known."""
    found: dict[DeviceProtocol, int] = {}
    size = 0
    for wave, count in counts.items():
        for protocol, running in count.whole.items():
            for (from_commit, to_commit), many in moves(scope, running).items():
                file = files.get(to_commit)
                if file is None or (wave, from_commit, to_commit) in asked:
                    continue
                if unfit(protocol, file=file.format) is None:
                    found[protocol] = found.get(protocol, 0) + many
                    size += many * file.size
    return ServedWhole(dict(sorted(found.items())), size)
