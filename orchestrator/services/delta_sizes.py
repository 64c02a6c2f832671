"""The file that tells a device before its download whether the delta to a Target fits on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

from orchestrator.core.tuf import canonical
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.remembered import Remembered

MOST_KEPT: Final = 10_000


class DeltaSizes(NamedTuple):
    """Bytes of a delta: ``packed`` as it is fetched, ``unpacked`` as it needs room."""

    packed: int
    unpacked: int


class StatsFile(NamedTuple):
    """``{TO: {FROM: {"size": packed, "u_size": unpacked}}}`` with its digest."""

    sha256: str
    text: str

    @property
    def named(self) -> tuple[str, int]:
        """As a Target names it: digest and size."""
        return self.sha256, len(self.text)


def stats_file(pair: DeltaPair, sizes: DeltaSizes) -> StatsFile:
    assert pair.from_commit is not None
    named = {"size": sizes.packed, "u_size": sizes.unpacked}
    text = canonical({pair.to_commit: {pair.from_commit: named}})
    return StatsFile(hashlib.sha256(text).hexdigest(), text.decode())


class StatsFiles:
    """Files made so far. ``sizes`` reads them off a published delta; None where there is none."""

    def __init__(self, sizes: Callable[[DeltaPair], DeltaSizes | None]) -> None:
        self._sizes = sizes
        self._made: Remembered[DeltaPair, StatsFile] = Remembered(MOST_KEPT)

    def made(self, pair: DeltaPair) -> bool:
        """Whether ``of`` need not read."""
        return self._made.get(pair) is not None

    def of(self, pair: DeltaPair) -> StatsFile | None:
        found = self._made.get(pair)
        if found is None and (sizes := self._sizes(pair)) is not None:
            found = stats_file(pair, sizes)
            self._made.put(pair, found)
        return found
