"""Deltas as the console lists them: a page of all there are, and those that one rollout needs. Read by pairs and by
pages; no device is read, and no list as a whole but that of what is not made yet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.services.console_store import Made, NeededBy
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.delta_views import DeltaState, DeltaView, order_of, state_of
from orchestrator.services.records import BuildJob
from orchestrator.services.store import Reading
from orchestrator.services.views import RolloutView

MOST_UNSETTLED: Final = 1_000
"""Builds that wait, run or failed, the newest; of what is under way there are never so many."""

_NOTHING: Final = Made((), frozenset())


@dataclass(frozen=True, slots=True)
class DeltasPage:
    """Deltas that are needed, built or recorded: first what is not made yet, then what is, the newest first.
    ``counts``: all by state; ``counted_at``: when the devices that could use them were counted; ``more``: there are
    others after these."""

    deltas: tuple[DeltaView, ...]
    counts: Mapping[DeltaState, int]
    counted_at: datetime | None
    more: bool


def delta_page(r: Reading, state: DeltaState | None, *, offset: int, limit: int) -> DeltasPage:
    """Those in one state, or all."""
    census = r.census()
    on: dict[tuple[str, str], int] = defaultdict(int)
    for one in census.running if census else ():
        if one.commit is not None:
            on[one.commit, one.hardware_id] += one.devices
    needed = r.needed_now()
    jobs = {job.pair: job for job in r.unsettled(limit=MOST_UNSETTLED)}
    recorded = r.deltas_of(needed)
    waiting = [pair for pair in needed if pair not in recorded]
    pairs = {*waiting, *jobs}
    jobs |= r.jobs_of([pair for pair in waiting if pair not in jobs])
    making = _Listing(needed, jobs, {}, _made(r, pairs), on)
    not_made = sorted((making.view(pair) for pair in pairs), key=order_of)
    counts = Counter(each.state for each in not_made)
    counts[DeltaState.READY] = r.count_deltas()
    chosen = [each for each in not_made if state is None or each.state is state]
    shown = chosen[offset : offset + limit + 1]
    if state in (None, DeltaState.READY) and len(shown) <= limit:
        records = r.delta_page(offset=max(0, offset - len(chosen)), limit=limit + 1 - len(shown))
        ready = {record.pair: record for record in records}
        listing = _Listing(needed, {}, ready, _made(r, ready), on)
        shown += [listing.view(pair) for pair in ready]
    return DeltasPage(
        tuple(shown[:limit]),
        {each: counts[each] for each in DeltaState if counts[each]},
        None if census is None else census.at,
        len(shown) > limit,
    )


def deltas_needed(r: Reading, view: RolloutView, *, limit: int) -> tuple[DeltaView, ...]:
    """What a rollout's waves need, most devices first."""
    needed: dict[DeltaPair, list[NeededBy]] = defaultdict(list)
    for wave in view.waves:
        for need in wave.needs:
            needed[need.pair].append(NeededBy(wave.state.wave, need.devices, need.known))
    devices = {pair: sum(each.devices for each in these) for pair, these in needed.items()}
    chosen = sorted(needed, key=lambda pair: (-devices[pair], pair.from_commit or ""))[:limit]
    if not chosen:
        return ()
    listing = _Listing(needed, r.jobs_of(chosen), r.deltas_of(chosen), _made(r, chosen), None)
    return tuple(map(listing.view, chosen))


@dataclass(frozen=True, slots=True)
class _Listing:
    """What is known of some pairs. ``on``: devices by commit and hardware id; without it those that wait are shown."""

    needed: Mapping[DeltaPair, Sequence[NeededBy]]
    jobs: Mapping[DeltaPair, BuildJob]
    records: Mapping[DeltaPair, DeltaRecord]
    made: Mapping[str, Made]
    on: Mapping[tuple[str, str], int] | None

    def view(self, pair: DeltaPair) -> DeltaView:
        needs = self.needed.get(pair, ())
        record, job = self.records.get(pair), self.jobs.get(pair)
        state = state_of(record, job)
        if state is DeltaState.MISSING and not any(each.known for each in needs):
            state = DeltaState.UNKNOWN
        before, after = (self.made.get(commit or "", _NOTHING) for commit in (pair.from_commit, pair.to_commit))
        waiting = sum(each.devices for each in needs)
        return DeltaView(
            pair=pair,
            state=state,
            from_versions=before.versions,
            to_versions=after.versions,
            devices=waiting if self.on is None else self._on(pair, after.hardware_ids),
            waves=tuple(each.wave for each in needs),
            waiting_devices=waiting,
            record=record,
            job=job,
        )

    def _on(self, pair: DeltaPair, hardware_ids: Collection[str]) -> int:
        """Devices that could use it: on its from commit, of a hardware id that has a Target with its to commit."""
        if pair.from_commit is None or self.on is None:
            return 0
        return sum(self.on.get((pair.from_commit, hardware_id), 0) for hardware_id in hardware_ids)


def _made(r: Reading, pairs: Collection[DeltaPair]) -> Mapping[str, Made]:
    commits = {commit for pair in pairs for commit in (pair.from_commit, pair.to_commit) if commit is not None}
    return r.made_of(commits) if commits else {}
