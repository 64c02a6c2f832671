"""The decision: ``decide(state, facts, rules, now) -> Plan``. Pure, total, deterministic.

It looks at a rollout's own record, at counters and at the rules it is bound to, and says what is to be done, why nothing more, and
when the same facts would say otherwise. It costs the same for a hundred devices and for ten million. One call goes as far as these
facts allow: when a wave passes, the waves after it are looked at again at once, so that deciding twice decides nothing new.

Safety comes first and alone: budgets, then monitors that halt, then what holds. Time never leads out of ``halted`` or ``held``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, TypeVar, assert_never

from orchestrator.core.decisions import (
    CompleteRollout,
    Decision,
    EnsureDeltas,
    HaltRollout,
    HoldRollout,
    HoldWave,
    OpenSlice,
    OpenWave,
    PassWave,
    Plan,
    PrepareWave,
    StartBake,
    StartRollout,
    Waiting,
)
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW
from orchestrator.core.evidence.door import Condition, Unmet, door
from orchestrator.core.facts import BudgetFacts, Facts, MonitorFacts, RolloutState, WaveFacts, WaveState
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.policy import Otherwise
from orchestrator.core.reasons import budget_sentence, first_bad_sentence, monitor_sentence
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.slices import next_size
from orchestrator.core.states import DONE_WAVE, WATCHED_ROLLOUT, Reason, ReasonKind, RolloutStatus, WaveStatus

LOOK_AGAIN: Final = timedelta(minutes=15)
"""How old the look at a preparing wave's devices may grow: they update and move meanwhile."""

SLICE_RESOLVED: Final = Fraction(3, 4)
"""Of a slice's places: those that must have an outcome before the next one opens."""

OFFERED_ENOUGH: Final = Fraction(9, 10)
"""Of the reachable: those that must have been offered before the bake clock starts."""

SMALL_WAVE: Final = 10
"""In a small fleet, the first bad device of a wave of fewer devices holds the rollout."""

_Stop = TypeVar("_Stop", BudgetFacts, MonitorFacts)

_BEGUN: Final = frozenset({WaveStatus.OPEN, WaveStatus.BAKING, WaveStatus.PASSED, WaveStatus.SKIPPED})


def decide(state: RolloutState, facts: Facts, rules: Rules, now: datetime) -> Plan:
    """What to do with this rollout at ``now`` (aware UTC), and why nothing more.

    ``facts.waves`` and ``state.waves`` name the same waves as ``rules``; ``now`` is not before any time in them.
    """
    look = _Look(facts, rules, now)
    if facts.next_deadline is not None:
        look.wake(facts.next_deadline)
    match state.status:
        case RolloutStatus.DRAFT:
            return _still(look, ReasonKind.APPLIED, "It waits to be started: `wave start`.", wake=False)
        case RolloutStatus.SCHEDULED:
            return _scheduled(state, look)
        case RolloutStatus.HALTED | RolloutStatus.CANCELLED:
            return _still(look, state.standing.reason.kind, state.standing.reason.sentence)
        case RolloutStatus.RUNNING | RolloutStatus.PAUSED | RolloutStatus.HELD | RolloutStatus.COMPLETED:
            stop = safety(state, facts, rules)
            if stop is not None:
                return Plan((stop,), (), look.wake_at)
            if state.status in (RolloutStatus.PAUSED, RolloutStatus.HELD):
                return _still(look, state.standing.reason.kind, state.standing.reason.sentence)
            return _moving(state, look)
        case _:
            assert_never(state.status)


def safety(state: RolloutState, facts: Facts, rules: Rules) -> HaltRollout | HoldRollout | None:
    """What must stop the rollout now, whatever else: the most severe first. None when nothing does."""
    if state.status not in WATCHED_ROLLOUT:
        return None
    budgets = [budget for budget in facts.budgets if budget.reached]
    crossed = [monitor for monitor in facts.monitors if monitor.crossed_at is not None and not monitor.accepted]
    for budget in _severest(budgets, Answer.HALT):
        return HaltRollout(Reason(ReasonKind.BUDGET, budget_sentence(budget)))
    for monitor in _severest(crossed, Answer.HALT):
        return HaltRollout(Reason(ReasonKind.MONITOR, monitor_sentence(monitor)))
    if state.status is RolloutStatus.HELD or state.status is RolloutStatus.PAUSED:
        return None
    for budget in _severest(budgets, Answer.HOLD):
        return HoldRollout(Reason(ReasonKind.BUDGET, budget_sentence(budget)))
    for monitor in _severest(crossed, Answer.HOLD):
        return HoldRollout(Reason(ReasonKind.MONITOR, monitor_sentence(monitor)))
    if facts.devices < SMALL_FLEET_BELOW and (wave := small_wave_with_bad(facts, rules, state.first_bad_accepted)):
        return HoldRollout(Reason(ReasonKind.FIRST_BAD, first_bad_sentence(wave)))
    return None


def bad_in_small_waves(facts: Facts, rules: Rules) -> int:
    """Bad outcomes, of classes that halt, in waves of fewer than ten devices."""
    return sum(_halting_bad(wave, rules) for wave in facts.waves if 0 < _size(wave) < SMALL_WAVE)


def small_wave_with_bad(facts: Facts, rules: Rules, accepted: int) -> str | None:
    """A small wave with a bad device, when there are more than a person has accepted; else None."""
    if bad_in_small_waves(facts, rules) <= accepted:
        return None
    return next(wave.wave for wave in facts.waves if 0 < _size(wave) < SMALL_WAVE and _halting_bad(wave, rules))


def _size(wave: WaveFacts) -> int:
    return max(wave.members + wave.waiting, wave.eligible or 0) if wave.slices else 0


def _halting_bad(wave: WaveFacts, rules: Rules) -> int:
    return sum(wave.bad(outcome) for outcome, tolerance in rules.tolerate.items() if tolerance.then is Answer.HALT)


def _severest(found: list[_Stop], answer: Answer) -> list[_Stop]:
    return [each for each in found if each.answer is answer]


@dataclass(slots=True)
class _Look:
    """One pass: what was given, and what has been found so far."""

    facts: Facts
    rules: Rules
    now: datetime
    decisions: list[Decision] = field(default_factory=list)
    reasons: list[Waiting] = field(default_factory=list)
    wake_at: datetime | None = None
    waves: dict[str, WaveFacts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waves = {wave.wave: wave for wave in self.facts.waves}

    def wake(self, at: datetime) -> None:
        if at > self.now and (self.wake_at is None or at < self.wake_at):
            self.wake_at = at

    def wait(self, wave: str | None, kind: ReasonKind, sentence: str, until: datetime | None = None) -> None:
        self.reasons.append(Waiting(wave, Reason(kind, sentence), until))
        if until is not None:
            self.wake(until)

    def plan(self) -> Plan:
        return Plan(tuple(self.decisions), tuple(self.reasons), self.wake_at)


def _still(look: _Look, kind: ReasonKind, sentence: str, *, wake: bool = True) -> Plan:
    look.wait(None, kind, sentence)
    plan = look.plan()
    return plan if wake else Plan(plan.decisions, plan.reasons, None)


def _scheduled(state: RolloutState, look: _Look) -> Plan:
    if state.start_at is not None and state.start_at > look.now:
        look.wait(None, ReasonKind.START_AT, f"It starts at {_moment(state.start_at)}.", state.start_at)
    else:
        look.decisions.append(StartRollout(Reason(ReasonKind.START_AT, "Its start time has come.")))
    return look.plan()


def _moving(state: RolloutState, look: _Look) -> Plan:
    completed = state.status is RolloutStatus.COMPLETED
    statuses = {wave.wave: wave.status for wave in state.waves}
    waves = {wave.wave: wave for wave in state.waves}
    for rules in look.rules.waves:
        if completed:
            _served(waves[rules.wave], look)
        else:
            statuses[rules.wave] = _wave(waves[rules.wave], rules, statuses, look)
    if not completed and all(status in DONE_WAVE for status in statuses.values()):
        reason = Reason(ReasonKind.WAVES_DONE, "Every wave has passed: the Target is generally available.")
        look.decisions.append(CompleteRollout(reason))
    if completed:
        look.wait(None, state.standing.reason.kind, state.standing.reason.sentence)
    return look.plan()


def _wave(wave: WaveState, rules: WaveRules, statuses: dict[str, WaveStatus], look: _Look) -> WaveStatus:
    """Take one wave as far as it goes now; its status afterwards."""
    facts = look.waves.get(wave.wave) or WaveFacts(wave.wave)
    status = wave.status
    if status is WaveStatus.PENDING:
        not_begun = [name for name in rules.after if statuses[name] not in _BEGUN]
        if not_begun:
            look.wait(wave.wave, ReasonKind.AFTER, _after_sentence(not_begun, statuses, "opens"))
            return status
        reason = Reason(ReasonKind.DELTAS, "Its turn comes next: its devices are looked at and their deltas made.")
        look.decisions.append(PrepareWave(wave.wave, reason))
        status = WaveStatus.PREPARING
    if status is WaveStatus.PREPARING:
        return _preparing(wave, rules, facts, statuses, look)
    if status is WaveStatus.OPEN:
        status = _open(wave, facts, look)
    if status is WaveStatus.BAKING:
        return _baking(wave, rules, facts, look)
    if status is WaveStatus.PASSED:
        _stragglers(wave, facts, look)
    elif status in (WaveStatus.FAILED, WaveStatus.CANCELLED):
        look.wait(wave.wave, wave.standing.reason.kind, wave.standing.reason.sentence)
    return status


def _preparing(
    wave: WaveState, rules: WaveRules, facts: WaveFacts, statuses: dict[str, WaveStatus], look: _Look
) -> WaveStatus:
    name = wave.wave
    if facts.deltas is None or facts.eligible is None:
        look.wait(name, ReasonKind.DELTAS, "Its devices are being looked at.")
        return WaveStatus.PREPARING
    stale_at = facts.deltas.computed_at + LOOK_AGAIN
    if stale_at <= look.now:
        reason = Reason(ReasonKind.DELTAS, "The last look at its devices is a quarter of an hour old.")
        look.decisions.append(EnsureDeltas(name, reason))
    else:
        look.wake(stale_at)
    if not_done := [before for before in rules.after if statuses[before] not in DONE_WAVE]:
        look.wait(name, _after_kind(not_done, statuses), _after_sentence(not_done, statuses, "has passed"))
    elif facts.eligible == 0 and facts.already_there > 0:
        devices = _devices(facts.already_there)
        sentence = f"Nothing to do: {devices} of it already {_run(facts.already_there)} the Target or a newer version."
        look.decisions.append(PassWave(name, Reason(ReasonKind.ALREADY_THERE, sentence)))
        return WaveStatus.PASSED
    elif facts.eligible == 0:
        look.wait(name, ReasonKind.EMPTY, "No eligible device is in it: `wave skip` lets the next waves go on.")
    elif (late := _deltas_missing(wave, rules, facts, look)) is not None:
        look.reasons.append(late)
    elif rules.awaits_promotion and not wave.promoted:
        look.wait(name, ReasonKind.AWAITING_PROMOTION, "It waits for a person: `wave promote`.")
    elif rules.window is not None and not rules.window.is_open(look.now):
        _wait_for_window(name, rules, look, "opens")
    elif look.facts.frozen is not None:
        look.wait(name, ReasonKind.FROZEN, f"Everything is frozen: {look.facts.frozen.sentence}")
    else:
        sentence = f"{_done_before(rules)}{_covered_sentence(facts)}"
        look.decisions.append(OpenWave(name, Reason(ReasonKind.OFFERING, sentence)))
        first = Reason(ReasonKind.SLICE, f"The first slice: up to {_devices(look.rules.first_slice)}.")
        look.decisions.append(OpenSlice(name, look.rules.first_slice, first))
        return WaveStatus.OPEN
    return WaveStatus.PREPARING


def _deltas_missing(wave: WaveState, rules: WaveRules, facts: WaveFacts, look: _Look) -> Waiting | None:
    """Why the delta gate keeps the wave shut; None when it lets it open."""
    deltas = facts.deltas
    if deltas is None or deltas.coverage >= rules.cover:
        return None
    failed = f", {deltas.failed} could not be built (`wave delta list`)" if deltas.failed else ""
    sentence = (
        f"{deltas.ready} of {deltas.pairs} deltas are ready, for {deltas.covered} of {_devices(deltas.devices)};"
        f" {_percent(rules.cover)} must be covered{failed}."
    )
    ends = (wave.prepared_at or look.now) + rules.within
    if look.now < ends:
        look.wake(ends)
        return Waiting(wave.wave, Reason(ReasonKind.DELTAS, sentence), ends)
    if rules.otherwise is Otherwise.HOLD:
        late = f"{sentence} The time for that is over; it opens when they are there."
        return Waiting(wave.wave, Reason(ReasonKind.DELTAS_LATE, late))
    return None


def _open(wave: WaveState, facts: WaveFacts, look: _Look) -> WaveStatus:
    name = wave.wave
    if wave.hold is not None:
        look.wait(name, wave.hold.reason.kind, wave.hold.reason.sentence)
        return WaveStatus.OPEN
    if not facts.slices:
        _open_slice(name, facts, look, "The first slice", f"up to {_devices(look.rules.first_slice)}")
        return WaveStatus.OPEN
    last = facts.slices[-1]
    if facts.waiting > 0:
        needed = math.ceil(SLICE_RESOLVED * last.members)
        ends = last.opened_at + look.rules.slice_at_most * (1 + wave.extra_slices)
        if last.resolved >= needed:
            have = f"{last.resolved} of {_devices(last.members)} of the slice before have an outcome"
            _open_slice(name, facts, look, "The next slice", have)
        elif look.now < ends:
            sentence = (
                f"{last.resolved} of {_devices(last.members)} in slice {last.number} have an outcome; the next slice"
                f" opens at {needed}."
            )
            look.wait(name, ReasonKind.SLICE, sentence, ends)
        elif 2 * last.confirmed >= last.members:
            have = f"{last.confirmed} of {_devices(last.members)} of the slice before are confirmed in time"
            _open_slice(name, facts, look, "The next slice", have)
        else:
            sentence = (
                f"Only {last.resolved} of {_devices(last.members)} in slice {last.number} have an outcome and"
                f" {last.confirmed} are confirmed, after all the time it had: `wave resume` grants as much again."
            )
            look.decisions.append(HoldWave(name, Reason(ReasonKind.SLICE_INCONCLUSIVE, sentence)))
        return WaveStatus.OPEN
    if facts.late:
        _open_slice(name, facts, look, "A late slice", "devices came since the last one")
        return WaveStatus.OPEN
    ends = (wave.opened_at or look.now) + look.rules.open_at_most
    offered, needed = facts.offered, math.ceil(OFFERED_ENOUGH * facts.members)
    if facts.members and offered >= needed:
        sentence = f"{offered} of {_devices(facts.members)} have the offer: the bake begins."
    elif look.now >= ends:
        sentence = f"{offered} of {_devices(facts.members)} have the offer after all the time it had: the bake begins."
    else:
        missing = f"{offered} of {_devices(facts.members)} have come for the offer; the bake begins at {needed}."
        nobody = "None of its devices has been seen lately; it waits for them."
        look.wait(name, ReasonKind.OFFERING, missing if facts.members else nobody, ends)
        return WaveStatus.OPEN
    look.decisions.append(StartBake(name, Reason(ReasonKind.BAKE, sentence)))
    return WaveStatus.BAKING


def _baking(wave: WaveState, rules: WaveRules, facts: WaveFacts, look: _Look) -> WaveStatus:
    name, since = wave.wave, wave.baking_at or look.now
    if wave.hold is not None:
        look.wait(name, wave.hold.reason.kind, wave.hold.reason.sentence)
        return WaveStatus.BAKING
    if facts.late:
        _open_slice(name, facts, look, "A late slice", "devices came since the last one")
    unmet = unmet_at_door(facts, rules, look.rules, look.facts.monitors, baked=look.now - since)
    floor, ceiling = since + rules.at_least, since + rules.at_most * (1 + wave.extra_bakes)
    look.wake(floor)
    if not unmet:
        if rules.window is not None and not rules.window.is_open(look.now):
            _wait_for_window(name, rules, look, "passes")
            return WaveStatus.BAKING
        sentence = f"{facts.confirmed} of {_devices(facts.members)} are confirmed, {_bad_sentence(facts)}."
        look.decisions.append(PassWave(name, Reason(ReasonKind.DOOR, sentence)))
        return WaveStatus.PASSED
    if look.now >= ceiling:
        sentence = f"Its bake is over and it could not pass: {unmet[0].sentence} `wave resume` grants as long again."
        look.decisions.append(HoldWave(name, Reason(ReasonKind.BAKE_INCONCLUSIVE, sentence)))
        return WaveStatus.BAKING
    time_only = all(each.condition is Condition.TIME for each in unmet)
    look.wait(name, ReasonKind.BAKE, " ".join(each.sentence for each in unmet), floor if time_only else ceiling)
    return WaveStatus.BAKING


def unmet_at_door(
    facts: WaveFacts, rules: WaveRules, rollout: Rules, monitors: tuple[MonitorFacts, ...], *, baked: timedelta
) -> tuple[Unmet, ...]:
    """What keeps a baking wave from passing (RULES 5.3); empty when the door opens."""
    outcomes = facts.resolved
    return door(
        baked=baked,
        at_least=rules.at_least,
        offers=max(facts.expected, outcomes),
        outcomes=outcomes,
        reports=rules.reports,
        confirmed=min(facts.confirmed, outcomes),
        reachable=facts.members,
        # A failed download is no outcome by itself, so there may be more of them than outcomes.
        bad={outcome: min(facts.bad(outcome), outcomes) for outcome in OutcomeClass},
        tolerate=rollout.tolerate,
        amber=[m.monitor for m in monitors if m.amber and not m.accepted and m.wave in (None, facts.wave)],
    )


def _stragglers(wave: WaveState, facts: WaveFacts, look: _Look) -> None:
    """A passed wave goes on to serve who is left of it, as carefully as before."""
    if not facts.slices:
        _open_slice(wave.wave, facts, look, "The first slice", "passed by a person")
        return
    last = facts.slices[-1]
    if facts.late or (facts.waiting > 0 and last.resolved >= math.ceil(SLICE_RESOLVED * last.members)):
        _open_slice(wave.wave, facts, look, "A further slice", "devices of a passed wave are left")


def _served(wave: WaveState, look: _Look) -> None:
    """A wave of a completed rollout: everybody may come."""
    if wave.status is WaveStatus.CANCELLED:
        return
    facts = look.waves.get(wave.wave) or WaveFacts(wave.wave)
    if facts.deltas is None:
        reason = Reason(ReasonKind.DELTAS, "Completed before its turn: its devices are looked at.")
        look.decisions.append(EnsureDeltas(wave.wave, reason))
    if look.facts.frozen is not None:
        return
    if not facts.slices or facts.waiting > 0 or facts.late:
        reason = Reason(ReasonKind.SLICE, "Completed: all that are left may come.")
        look.decisions.append(OpenSlice(wave.wave, None, reason))


def _open_slice(wave: str, facts: WaveFacts, look: _Look, what: str, because: str) -> None:
    if look.facts.frozen is not None:
        look.wait(wave, ReasonKind.FROZEN, f"Everything is frozen: {look.facts.frozen.sentence}")
        return
    size = next_size(facts.members, first=look.rules.first_slice, growth=look.rules.growth)
    look.decisions.append(OpenSlice(wave, size, Reason(ReasonKind.SLICE, f"{what}: {because}.")))


def _wait_for_window(wave: str, rules: WaveRules, look: _Look, verb: str) -> None:
    opens = rules.window.next_open(look.now) if rules.window is not None else None
    when = f"at {_moment(opens)}" if opens else "never again"
    look.wait(wave, ReasonKind.WINDOW, f"It {verb} when the window does, {when}.", opens)


def _after_kind(names: list[str], statuses: dict[str, WaveStatus]) -> ReasonKind:
    cancelled = any(statuses[name] is WaveStatus.CANCELLED for name in names)
    return ReasonKind.CANCELLED_BEFORE if cancelled else ReasonKind.AFTER


def _after_sentence(names: list[str], statuses: dict[str, WaveStatus], verb: str) -> str:
    cancelled = [name for name in names if statuses[name] is WaveStatus.CANCELLED]
    if cancelled:
        return f"{_names(cancelled)} was cancelled: `wave skip` lets what comes after it go on."
    return f"It waits until {_names(names)} {verb}."


def _done_before(rules: WaveRules) -> str:
    return f"{_names(rules.after)} passed; " if rules.after else ""


def _covered_sentence(facts: WaveFacts) -> str:
    deltas = facts.deltas
    if deltas is None or not deltas.devices:
        return "no device of it needs a delta."
    return f"{deltas.ready} of {deltas.pairs} deltas are ready, for {deltas.covered} of {_devices(deltas.devices)}."


def _bad_sentence(facts: WaveFacts) -> str:
    counts = [(outcome, facts.bad(outcome)) for outcome in OutcomeClass if facts.bad(outcome)]
    return ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in counts) if counts else "none is bad"


def _names(names: tuple[str, ...] | list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"


def _run(count: int) -> str:
    return "runs" if count == 1 else "run"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
