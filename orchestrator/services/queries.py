"""Questions of people: how things stand, why, and what would happen next. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.decide import decide
from orchestrator.core.explain import NOTHING_TOLD, outlook
from orchestrator.core.facts import Facts
from orchestrator.core.fleet import Device
from orchestrator.core.journal import Entry
from orchestrator.core.protocols import NOTHING_SPOKEN
from orchestrator.core.rules import Rules
from orchestrator.core.states import LIVE_ROLLOUT, OFFERING_ROLLOUT, RolloutStatus
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import NotFound
from orchestrator.services.board import flows_in
from orchestrator.services.chronicle import rules_of
from orchestrator.services.console_store import Tallied
from orchestrator.services.failing import Failing, failing
from orchestrator.services.notices import policy_of
from orchestrator.services.pacing import standing
from orchestrator.services.records import DeviceFilter, RolloutRow, UpdateRow
from orchestrator.services.store import Reading, Store
from orchestrator.services.views import DeviceView, RolloutSummary, RolloutView, WaveView, WhyNot


@dataclass(frozen=True, slots=True)
class Queries:
    """Answers from one consistent snapshot each."""

    store: Store
    clock: Callable[[], datetime]
    why_not: Callable[[str], Iterable[WhyNot]]

    def summaries(self, statuses: Collection[RolloutStatus] | None = None) -> Sequence[RolloutSummary]:
        """Rollouts, newest first."""
        now = self.clock()
        with self.store.reading() as r:
            return [summary(row, _tallied(r.facts(row, now=now))) for row in r.rollouts(statuses)]

    def rollout(self, name: str | None = None) -> RolloutView:
        """One rollout; without a name the one live rollout, or else the newest. Raises NotFound."""
        now = self.clock()
        with self.store.reading() as r:
            return view_of(r, self._row(r, name), now)[0]

    def device(self, device_id: str) -> DeviceView:
        """One device, what every rollout that can still offer holds for it, and what it did. Raises NotFound."""
        with self.store.reading() as r:
            row = r.device(device_id)
            if row is None:
                raise NotFound(f"There is no device {device_id}.", remedy="`wave device list` shows them.")
            updates = tuple(r.updates_of_device(row.key))
            events = tuple(r.events(device=device_id, limit=20, newest=True))
            spoken = r.spoken([row.key]).get(row.key, NOTHING_SPOKEN)
            told = tuple(r.told(row.key))
        return DeviceView(row.device, tuple(self.why_not(device_id)), updates, events, spoken, told)

    def is_device(self, name: str) -> bool:
        with self.store.reading() as r:
            return r.device(name) is not None

    def journal(self, name: str, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        """The journal of a rollout, oldest first. Raises NotFound."""
        with self.store.reading() as r:
            return r.journal(self._row(r, name).key, after=after, limit=limit)

    def devices(self, which: DeviceFilter, *, after: str | None = None, limit: int = 100) -> Sequence[Device]:
        with self.store.reading() as r:
            return [row.device for row in r.devices(which, after=after, limit=limit)]

    def count_devices(self, which: DeviceFilter) -> int:
        with self.store.reading() as r:
            return r.count_devices(which)

    def updates(
        self,
        name: str,
        *,
        statuses: Collection[UpdateStatus] | None = None,
        bad: bool = False,
        limit: int = 100,
    ) -> Sequence[tuple[str, UpdateRow]]:
        """Updates of a rollout with their devices, newest offer first. Raises NotFound."""
        with self.store.reading() as r:
            return r.list_updates(self._row(r, name).key, statuses=statuses, bad=bad, limit=limit)

    def failing(self, name: str | None = None, *, limit: int = 5) -> Failing:
        """What fails most in a rollout; of each kind at most ``limit`` values. Raises NotFound."""
        now = self.clock()
        with self.store.reading() as r:
            row = self._row(r, name)
            bad = _tallied(r.facts(row, now=now)).bad
            return failing(r, row.state.rollout, row.key, bad, limit=limit)

    def _row(self, r: Reading, name: str | None) -> RolloutRow:
        if name is None:
            rows = r.rollouts()
            if not rows:
                raise NotFound("There is no rollout yet.", remedy="`wave apply FILE` makes one.")
            live = [row for row in rows if row.state.status in LIVE_ROLLOUT]
            return (live or list(rows))[0]
        return row_of(r, name)


def row_of(r: Reading, name: str) -> RolloutRow:
    """Raises NotFound."""
    row = r.rollout(name)
    if row is None:
        raise NotFound(f"There is no rollout {name}.", remedy="`wave list` shows them all.")
    return row


def view_of(r: Reading, row: RolloutRow, now: datetime, *, told: bool = True) -> tuple[RolloutView, Facts]:
    """The rollout as it stands in this snapshot, and what was seen of it. Without ``told`` there is nothing of what
    people are told of its future: outlook, steps, what its waves need, and pace."""
    facts = r.facts(row, now=now)
    rules = rules_of(row)
    plan = decide(row.state, facts, rules, now)
    steps = r.next_steps(row.key) if told else {}
    needs = r.needs_of(row.key) if told else {}
    by_wave = {wave.wave: wave for wave in facts.waves}
    waves = tuple(
        WaveView(
            state=wave,
            facts=by_wave[wave.wave],
            after=rules.wave(wave.wave).after,
            waiting=tuple((w.reason, w.until) for w in plan.reasons if w.wave == wave.wave),
            needs=tuple(needs.get(wave.wave, ())),
        )
        for wave in row.state.waves
    )
    view = RolloutView(
        summary=summary(row, _tallied(facts)),
        waves=waves,
        monitors=facts.monitors,
        budgets=facts.budgets,
        waiting=tuple((w.reason, w.until) for w in plan.reasons if w.wave is None),
        outlook=outlook(row.state, facts, rules, plan, steps, now) if told else NOTHING_TOLD,
        steps=steps,
        wake_at=plan.wake_at,
        frozen=facts.frozen,
        problems=tuple(e.error for e in r.effects() if e.rollout == row.state.rollout and e.error),
        spec_digest=row.spec_digest,
        policy_digest=row.policy_digest,
        attempt=row.state.attempt,
        pace=_pace(r, row, facts, rules, now) if told else (),
        clock=facts.clock,
        excluded=row.state.excluded,
    )
    return view, facts


def _pace(r: Reading, row: RolloutRow, facts: Facts, rules: Rules, now: datetime) -> tuple[str, ...]:
    """Of a rollout that offers."""
    if row.state.status not in OFFERING_ROLLOUT:
        return ()
    return standing(rules, *flows_in(facts, row, rules, r), now)


def _tallied(facts: Facts) -> Tallied:
    waves = facts.waves
    return Tallied(
        offered=sum(wave.offered for wave in waves),
        confirmed=sum(wave.confirmed for wave in waves),
        bad=sum(wave.bad_in_all for wave in waves),
    )


def summary(row: RolloutRow, tallied: Tallied) -> RolloutSummary:
    """One line about a rollout."""
    return RolloutSummary(
        rollout=row.state.rollout,
        status=row.state.status,
        standing=row.state.standing,
        target_version=row.target_version,
        tag=row.tag,
        policy=policy_of(row).name,
        devices=row.devices,
        offered=tallied.offered,
        confirmed=tallied.confirmed,
        bad=tallied.bad,
        created_at=row.created_at,
    )
