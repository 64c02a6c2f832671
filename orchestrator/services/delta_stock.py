"""What is there of the deltas that somebody requires: recorded, published, lost, broken, and what the missing ones will
cost.

No database session is open while the provider is asked: reading checksums takes as long as it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.delta_plan import NOTHING, CommitGraph, EdgeState, Required
from orchestrator.core.fleet import Scope
from orchestrator.errors import ContentUnavailable, CorruptDelta
from orchestrator.services.commits import pair_text
from orchestrator.services.delta_provider import DeltaEstimate, DeltaPair, DeltaProvider, DeltaRecord
from orchestrator.services.records import BuildJob, DeltaNeed, JobStatus, RunningCount, WaveCount
from orchestrator.services.remembered import Remembered
from orchestrator.services.store import Reading

LOG = logging.getLogger(__name__)

FOUND_HOLDS: Final = timedelta(hours=1)
"""How long a delta that was found whole on disk is taken to be so."""

ADOPT_AT_MOST: Final = 64_000_000
"""Bytes up to which a delta that somebody else published is verified in place; a larger one is left to a builder, which
verifies instead of building."""

ADOPT_AT_ONCE: Final = 2
"""How many such deltas are verified in one look, which the tick waits for; the others are queued as if missing."""

UNKNOWN_COST: Final = DeltaEstimate(likely_bytes=0, at_most_bytes=0, objects=0, build_seconds=60.0)
"""Stands in where an estimate is not possible, as for a commit that lacks an object: the build will say why."""

_MOST_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Stock:
    """``ready``: recorded, and whole on disk. ``adopted``: published by somebody, verified just now, to be recorded; so
    is that a pair is served whole. ``lost``: recorded, but gone or broken. ``failed``: given up by the builders."""

    ready: Mapping[DeltaPair, DeltaRecord] = field(default_factory=dict)
    adopted: tuple[DeltaRecord, ...] = ()
    lost: tuple[DeltaPair, ...] = ()
    failed: frozenset[DeltaPair] = frozenset()


class StockTaker:
    """Asks store and provider, and remembers for a while what it was told. Safe in threads."""

    def __init__(self, provider: DeltaProvider) -> None:
        self._provider = provider
        self._estimates: Remembered[DeltaPair, DeltaEstimate] = Remembered(_MOST_REMEMBERED)
        self._found_at: Remembered[DeltaPair, datetime] = Remembered(_MOST_REMEMBERED)

    def take(
        self, r: Reading, pairs: Iterable[DeltaPair]
    ) -> Mapping[DeltaPair, tuple[DeltaRecord | None, BuildJob | None]]:
        """What the store says of each pair. Inside a session."""
        return {pair: (r.delta(pair), r.job(pair)) for pair in pairs}

    def check(
        self,
        said: Mapping[DeltaPair, tuple[DeltaRecord | None, BuildJob | None]],
        *,
        now: datetime,
        adopt: bool = True,
    ) -> Stock:
        """Hold what the store says against what is on disk. Outside of any session. Raises ContentUnavailable."""
        ready: dict[DeltaPair, DeltaRecord] = {}
        adopted: list[DeltaRecord] = []
        whole: list[DeltaRecord] = []
        lost: list[DeltaPair] = []
        failed: set[DeltaPair] = set()
        for pair, (record, job) in said.items():
            if record is not None:
                if self._is_whole(pair, now):
                    ready[pair] = record
                else:
                    lost.append(pair)
                continue
            if (settled := self._settled(pair)) is not None:
                ready[pair] = settled
                if adopt:
                    whole.append(settled)
                continue
            under_way = job is not None and job.status is JobStatus.RUNNING
            if adopt and not under_way and len(adopted) < ADOPT_AT_ONCE and (found := self._adopt(pair, now)):
                adopted.append(found)
                ready[pair] = found
            elif job is not None and job.status is JobStatus.FAILED:
                failed.add(pair)
        return Stock(ready, (*adopted, *whole), tuple(lost), frozenset(failed))

    def forget(self, pair: DeltaPair) -> None:
        """It was dropped, or found broken."""
        self._found_at.pop(pair)

    def estimate(self, pair: DeltaPair) -> DeltaEstimate | None:
        """What the pair will cost; None where that cannot be said."""
        if (known := self._estimates.get(pair)) is not None:
            return known
        try:
            found = self._provider.estimate(pair)
        except ContentUnavailable as error:
            LOG.warning("no estimate for %s: %s", pair_text(pair), error)
            return None
        self._estimates.put(pair, found)
        return found

    def graph(self, pairs: Iterable[DeltaPair], stock: Stock, *, unknown_to: Iterable[str] = ()) -> CommitGraph:
        """The ways there are between the commits of these pairs, and from NOTHING to ``unknown_to``."""
        graph = CommitGraph()
        for to_commit in unknown_to:
            cost = self.estimate(DeltaPair(None, to_commit)) or UNKNOWN_COST
            graph.add_whole(NOTHING, to_commit, bytes=cost.at_most_bytes)
        for pair in pairs:
            from_commit = pair.from_commit or NOTHING
            cost = self.estimate(pair) or UNKNOWN_COST
            record = stock.ready.get(pair)
            graph.add_whole(from_commit, pair.to_commit, bytes=cost.at_most_bytes)
            if record is not None:
                size = record.bytes + record.fallback_bytes
                graph.add_delta(from_commit, pair.to_commit, bytes=size, state=EdgeState.READY)
            else:
                state = EdgeState.FAILED if pair in stock.failed else EdgeState.MISSING
                graph.add_delta(
                    from_commit, pair.to_commit, bytes=cost.likely_bytes, seconds=cost.build_seconds, state=state
                )
        return graph

    def _settled(self, pair: DeltaPair) -> DeltaRecord | None:
        """The record that its devices fetch everything, where nothing is to be built."""
        try:
            return self._provider.settled(pair)
        except CorruptDelta as error:
            LOG.warning("the content of %s does not hold: %s", pair_text(pair), error)
            return None

    def _is_whole(self, pair: DeltaPair, now: datetime) -> bool:
        found_at = self._found_at.get(pair)
        if found_at is not None and found_at <= now < found_at + FOUND_HOLDS:
            return True
        try:
            whole = self._provider.find(pair) is not None
        except CorruptDelta as error:
            LOG.warning("the delta %s does not hold any more: %s", pair_text(pair), error)
            whole = False
        if whole:
            self._found_at.put(pair, now)
        else:
            self._found_at.pop(pair)
        return whole

    def _adopt(self, pair: DeltaPair, now: datetime) -> DeltaRecord | None:
        """A delta that is published, not recorded, and small enough to be verified here and now; None otherwise."""
        try:
            found = self._provider.find(pair)
            if found is None or found.bytes + found.fallback_bytes > ADOPT_AT_MOST:
                return None
            verified = self._provider.verify(pair)
        except CorruptDelta as error:
            LOG.warning("a delta %s is published but does not hold, it is built anew: %s", pair_text(pair), error)
            return None
        self._found_at.put(pair, now)
        return verified


def required(scope: Scope, count: WaveCount, has_commit: Mapping[str, bool]) -> tuple[Required, ...]:
    """The deltas that these devices need to come to the scope's commits. Pure.

    A device that has not said its commit is on NOTHING. Devices on the Target's very commit need none, whatever version
    they say (RULES 6.3); nor do those whose protocol has no deltas. From a commit that is not known these are counted
    like all others: no delta is made, and the policy's ``from_unknown`` holds for them, too.
    """
    need = moves(scope, count.running)
    for spoken in count.whole.values():
        for pair, devices in moves(scope, spoken).items():
            if has_commit.get(pair[0], False):
                need[pair] = need.get(pair, 0) - devices
    return tuple(
        Required(from_commit, to_commit, devices, known=has_commit.get(from_commit, False))
        for (from_commit, to_commit), devices in sorted(need.items())
        if devices > 0
    )


def moves(scope: Scope, running: Iterable[RunningCount]) -> dict[tuple[str, str], int]:
    """How many of these devices have to go from what to what."""
    found: dict[tuple[str, str], int] = {}
    for count in running:
        to_commit = scope.commits.get(count.hardware_id)
        if to_commit is None or count.commit == to_commit or count.devices <= 0:
            continue
        pair = count.commit or NOTHING, to_commit
        found[pair] = found.get(pair, 0) + count.devices
    return found


def commits_there(provider: DeltaProvider, commits: Collection[str | None]) -> dict[str, bool]:
    """Which of them the repository has. Raises ContentUnavailable when it cannot be asked."""
    return {commit: provider.has_commit(commit) for commit in sorted({c for c in commits if c})}


def pair_of(need: Required) -> DeltaPair:
    return DeltaPair(need.from_commit or None, need.to_commit)


def need_of(need: Required) -> DeltaNeed:
    return DeltaNeed(pair_of(need), need.devices, known=need.known)
