"""What the pages of the console show, each from a bounded number of rows. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.fleet import Device
from orchestrator.core.policy import Policy
from orchestrator.core.rules import Rules
from orchestrator.core.states import Reason, RolloutStatus
from orchestrator.services.chronicle import rules_of
from orchestrator.services.console_deltas import DeltasPage, delta_page, deltas_needed
from orchestrator.services.console_store import Census, JournalLine, Stain, Tallied
from orchestrator.services.delta_views import DeltaState, DeltaView
from orchestrator.services.notice_store import Unsent
from orchestrator.services.notices import policy_of
from orchestrator.services.queries import Queries, row_of, summary, view_of
from orchestrator.services.records import DeviceRow, RolloutRow
from orchestrator.services.stops import stopping
from orchestrator.services.store import Reading, Store
from orchestrator.services.views import RolloutSummary, RolloutView

ON_A_PAGE: Final = 25
"""Rollouts, devices or the newest entries of a journal that one page lists."""

ENTRIES_ON_A_PAGE: Final = 100
"""Entries on a page of a journal alone."""

MOST_DOTS: Final = 400
"""Failed devices that are drawn one by one; of more only the sum is shown."""

MOST_SEGMENTS: Final = 100
"""Segments that a form offers."""

HISTORY: Final = timedelta(days=30)
"""How far back the chart of versions goes."""


MOST_UNSENT: Final = 1_000
"""Messages that did not arrive are counted up to this."""


@dataclass(frozen=True, slots=True)
class RolloutsPage:
    """``counts``: all rollouts by status; ``more``: there are older ones; ``unsent``: messages to people that did not
    arrive."""

    rollouts: tuple[RolloutSummary, ...]
    counts: Mapping[RolloutStatus, int]
    frozen: Reason | None
    more: bool
    unsent: Unsent


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """One rollout with what its page draws. ``stains``: its failed devices, none where they are
    ``too_many`` to be drawn one by one; ``journal``: its last entries, newest first."""

    view: RolloutView
    rules: Rules
    policy: Policy
    stains: tuple[Stain, ...]
    too_many: bool
    journal: tuple[JournalLine, ...]
    deltas: tuple[DeltaView, ...]


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Entries of one rollout's journal, newest first. ``newest``: the number of its last entry of all."""

    rollout: str
    status: RolloutStatus
    newest: int
    entries: tuple[JournalLine, ...]


@dataclass(frozen=True, slots=True)
class OrderPage:
    """What a person must know to give an order. ``stops``: what stands against the rollout, by the name it is accepted
    with, each with its sentence; ``segments``: those that have places, the most bad devices first."""

    view: RolloutView
    stops: Mapping[str, str]
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetPage:
    """The fleet as it was counted last, and the versions of the censuses before. ``quietest``: devices that are silent
    still, longest first; ``live``: rollouts that run or wait."""

    census: Census | None
    versions: tuple[tuple[datetime, Mapping[int | None, int]], ...]
    quietest: tuple[Device, ...]
    live: tuple[RolloutSummary, ...]


@dataclass(frozen=True, slots=True)
class Console:
    """Answers for pages. ``clock`` gives aware UTC."""

    store: Store
    queries: Queries
    clock: Callable[[], datetime]

    def rollouts(self, statuses: Collection[RolloutStatus] | None = None, *, offset: int = 0) -> RolloutsPage:
        with self.store.reading() as r:
            rows = r.rollout_page(statuses, offset=offset, limit=ON_A_PAGE + 1)
            shown = rows[:ON_A_PAGE]
            return RolloutsPage(
                _summaries(r, shown),
                r.rollout_statuses(),
                r.frozen(),
                len(rows) > ON_A_PAGE,
                r.unsent_notices(most=MOST_UNSENT),
            )

    def rollout(self, name: str) -> RolloutPage:
        """Raises NotFound."""
        now = self.clock()
        with self.store.reading() as r:
            row = row_of(r, name)
            view, _ = view_of(r, row, now)
            many = max((each.bad for each in view.monitors if not each.accepted), default=0)
            stains = tuple(r.stains(row, limit=MOST_DOTS)) if 0 < many <= MOST_DOTS else ()
            deltas = deltas_needed(r, view, limit=ON_A_PAGE)
            last = r.journal_lines(row.key, after=max(0, row.journal_seq - ON_A_PAGE), limit=ON_A_PAGE)
        policy = policy_of(row)
        return RolloutPage(view, rules_of(row), policy, stains, many > MOST_DOTS, tuple(reversed(last)), deltas)

    def journal(self, name: str, before: int | None = None) -> JournalPage:
        """The newest entries, or those before the one with this number. Raises NotFound."""
        with self.store.reading() as r:
            row = row_of(r, name)
            newest = row.journal_seq
            end = newest if before is None else max(0, min(before - 1, newest))
            start = max(0, end - ENTRIES_ON_A_PAGE)
            found = r.journal_lines(row.key, after=start, limit=end - start)
        return JournalPage(name, row.state.status, newest, tuple(reversed(found)))

    def order(self, name: str) -> OrderPage:
        """Raises NotFound."""
        now = self.clock()
        with self.store.reading() as r:
            row = row_of(r, name)
            view, facts = view_of(r, row, now, told=False)
            placed = dict(r.segments_placed(row.key, limit=MOST_SEGMENTS))
        bad = {each.segment: each.bad for each in view.monitors if each.segment is not None}
        known = [each for each in {**placed, **bad} if each not in row.state.excluded_segments]
        known.sort(key=lambda each: (-bad.get(each, 0), -placed.get(each, 0), each))
        return OrderPage(view, stopping(row.state, facts), tuple(known[:MOST_SEGMENTS]))

    def deltas(self, state: DeltaState | None = None, *, offset: int = 0) -> DeltasPage:
        with self.store.reading() as r:
            return delta_page(r, state, offset=offset, limit=ON_A_PAGE)

    def begin_so(self, begins: str, after: str | None) -> Sequence[Device]:
        """Devices whose id begins so, a page of them and one more."""
        with self.store.reading() as r:
            return [row.device for row in r.device_ids(begins, after=after, limit=ON_A_PAGE + 1)]

    def group(self, name: str, after: int) -> Sequence[DeviceRow]:
        """Devices of a group, a page of them and one more."""
        with self.store.reading() as r:
            return r.in_group(name, after=after, limit=ON_A_PAGE + 1)

    def fleet(self) -> FleetPage:
        now = self.clock()
        with self.store.reading() as r:
            census = r.census()
            versions = tuple(r.versions_since(now - HISTORY))
            live = _summaries(r, r.rollout_page(_WATCHED, offset=0, limit=ON_A_PAGE))
            rows = {row.key: row.device for row in r.devices_at([key for key, _ in census.quietest])} if census else {}
        known = () if census is None else census.quietest
        quietest = tuple(
            device for key, seen in known if (device := rows.get(key)) is not None and device.last_seen_at == seen
        )
        return FleetPage(census, versions, quietest, live)


_WATCHED: Final = frozenset(
    {
        RolloutStatus.SCHEDULED,
        RolloutStatus.RUNNING,
        RolloutStatus.PAUSED,
        RolloutStatus.HELD,
        RolloutStatus.HALTED,
    }
)


def _summaries(r: Reading, rows: Sequence[RolloutRow]) -> tuple[RolloutSummary, ...]:
    tallies = r.tallied([row.key for row in rows])
    return tuple(summary(row, tallies.get(row.key, Tallied())) for row in rows)
