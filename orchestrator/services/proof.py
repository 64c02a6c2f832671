"""The last look before a wave opens: every delta that it needs is read from the disk once more.

What a wave opens by may be a quarter of an hour old, and that look itself takes a delta that was found whole as whole
for an hour. A wave opens only once, so here nothing is remembered: each byte is read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from orchestrator.errors import CorruptDelta
from orchestrator.services.commits import pair_text
from orchestrator.services.delta_provider import DeltaPair, DeltaProvider
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Store

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proof:
    """Called with a rollout and a wave that is about to open."""

    store: Store
    provider: DeltaProvider

    def __call__(self, row: RolloutRow, wave: str, *, now: datetime) -> int:
        """How many recorded deltas that the wave needs do not hold any more: those are forgotten and queued, so that
        the wave is not ready. No database session is open while the disk is read. Raises ContentUnavailable when it
        cannot be."""
        with self.store.reading() as r:
            needs = {need.pair: need.devices for need in r.needs(row.key, wave) if need.known}
            recorded = [pair for pair in needs if r.delta(pair) is not None]
        lost = [pair for pair in recorded if not self._holds(pair)]
        if lost:
            with self.store.writing() as w:
                for pair in lost:
                    w.forget_delta(pair)
                w.queue_builds({pair: float(needs[pair]) for pair in lost}, now=now, again=True)
        return len(lost)

    def _holds(self, pair: DeltaPair) -> bool:
        try:
            found = self.provider.find(pair)
        except CorruptDelta as error:
            LOG.warning("the delta %s does not hold any more, it is built anew: %s", pair_text(pair), error)
            return False
        if found is None:
            LOG.warning("the delta %s is not there any more, it is built anew", pair_text(pair))
        return found is not None
