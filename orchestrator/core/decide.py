"""The decision: ``decide(state, facts, rules, now) -> Plan``. Pure, total, deterministic.

It looks at a rollout's own record, at counters and at the rules it is bound to, and says what is to be done, why
nothing more, and when the same facts would say otherwise. It costs the same for a hundred devices and for ten million.
One call goes as far as these facts allow, so that deciding twice decides nothing new.

Safety comes first and alone: budgets, monitors that halt, segments (the next look sees the rest without them), then
what holds. Time never leads out of ``halted`` or ``held``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, assert_never

from orchestrator.core.admission import amber_at_door, ambers, early_door, most_in_slice, slowing
from orchestrator.core.approvals import wave_lacks
from orchestrator.core.decisions import (
    CompleteRollout,
    EnsureDeltas,
    HoldWave,
    OpenSlice,
    OpenWave,
    PassWave,
    Plan,
    PrepareWave,
    StartBake,
    StartRollout,
)
from orchestrator.core.evidence.clock import reading
from orchestrator.core.evidence.door import LIFTED_EARLY, Condition, Unmet, door
from orchestrator.core.facts import (
    DeltaFacts,
    Facts,
    RolloutState,
    SliceFacts,
    Tally,
    WaveFacts,
    WaveState,
)
from orchestrator.core.gating import gates_sentence, shut
from orchestrator.core.look import Look
from orchestrator.core.policy import Otherwise
from orchestrator.core.reasons import (
    EMPTY,
    NOBODY_LEFT,
    after_kind,
    after_sentence,
    already_there_sentence,
    amber_held_sentence,
    amber_sentence,
    apart_sentence,
    are,
    bad_sentence,
    covered_sentence,
    devices,
    done_sentence,
    have,
    missing_sentence,
    moment,
    slice_held_sentence,
    slice_sentence,
)
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.safety import bad_in_small_waves as bad_in_small_waves
from orchestrator.core.safety import heeded, watching
from orchestrator.core.safety import safety as safety
from orchestrator.core.safety import small_wave_with_bad as small_wave_with_bad
from orchestrator.core.slices import next_size
from orchestrator.core.states import DONE_WAVE, Reason, ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.window import Window

LOOK_AGAIN: Final = timedelta(minutes=15)
"""How old the look at a preparing wave's devices may grow: they update and move meanwhile."""

SLICE_REPORTED: Final = Fraction(3, 4)
"""Of a slice's places: those that must have an outcome, silence and ignoring aside, before the next one opens."""

OFFERED_ENOUGH: Final = Fraction(9, 10)
"""Of the reachable: those that must have been offered before the bake clock starts."""

_BEGUN: Final = frozenset({WaveStatus.OPEN, WaveStatus.BAKING, WaveStatus.PASSED, WaveStatus.SKIPPED})


def decide(state: RolloutState, facts: Facts, rules: Rules, now: datetime) -> Plan:
    """What to do with this rollout at ``now`` (aware UTC), and why nothing more.

    ``facts.waves`` and ``state.waves`` name the same waves as ``rules``; ``now`` is not before any time in them.
    """
    amber = tuple(monitor for monitor in watching(state, facts.monitors) if monitor.amber)
    clock = heeded(state, facts)
    found = None if clock is None else reading(clock)
    look = Look(state, facts, rules, now, amber, silence_is_amber=found is not None and found.amber)
    if facts.next_deadline is not None:
        look.wake(facts.next_deadline)
    if facts.clock is not None and facts.clock.next_at is not None:
        look.wake(facts.clock.next_at)
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


def _still(look: Look, kind: ReasonKind, sentence: str, *, wake: bool = True) -> Plan:
    look.wait(None, kind, sentence)
    plan = look.plan()
    return plan if wake else Plan(plan.decisions, plan.reasons, None)


def _scheduled(state: RolloutState, look: Look) -> Plan:
    if state.start_at is not None and state.start_at > look.now:
        look.wait(None, ReasonKind.START_AT, f"It starts at {moment(state.start_at)}.", state.start_at)
        return look.plan()
    look.decisions.append(StartRollout(Reason(ReasonKind.START_AT, "Its start time has come.")))
    return _moving(state, look)


def _moving(state: RolloutState, look: Look) -> Plan:
    """First each wave as far as it goes, in an order in which it stands after all it comes after; then who is left."""
    completed = state.status is RolloutStatus.COMPLETED
    before = {wave.wave: wave for wave in state.waves}
    statuses = {wave.wave: wave.status for wave in state.waves}
    if completed:
        look.wait(None, state.standing.reason.kind, state.standing.reason.sentence)
    else:
        for rules in look.rules.waves:
            statuses[rules.wave] = _wave(before[rules.wave], rules, statuses, look)
        completed = all(status in DONE_WAVE for status in statuses.values())
        if completed:
            passed = "has passed" if WaveStatus.SKIPPED not in statuses.values() else "has passed or was skipped"
            reason = Reason(ReasonKind.WAVES_DONE, f"Every wave {passed}: the Target is generally available.")
            look.decisions.append(CompleteRollout(reason))
    for rules in look.rules.waves:
        wave, status = before[rules.wave], statuses[rules.wave]
        if completed and replace(wave, status=status).serves_when_completed():
            _serve_all(wave, look)
        elif status is WaveStatus.PASSED or wave.status in (WaveStatus.OPEN, WaveStatus.BAKING):
            _serve_rest(wave, status, look)
    return look.plan()


def _wave(wave: WaveState, rules: WaveRules, statuses: dict[str, WaveStatus], look: Look) -> WaveStatus:
    """Take one wave as far as it goes now; its status afterwards."""
    facts = look.of(wave)
    status = wave.status
    if status is WaveStatus.PENDING:
        not_begun = [name for name in rules.after if statuses[name] not in _BEGUN]
        if not_begun:
            look.wait(wave.wave, after_kind(not_begun, statuses), after_sentence(not_begun, statuses, opened=True))
            return status
        reason = Reason(ReasonKind.DELTAS, "Its turn comes next: its devices are looked at and their deltas made.")
        look.decisions.append(PrepareWave(wave.wave, reason))
        status, wave = WaveStatus.PREPARING, replace(wave, prepared_at=look.now, asked_at=look.now)
    if status is WaveStatus.PREPARING:
        return _preparing(wave, rules, facts, statuses, look)
    if status is WaveStatus.OPEN:
        status = _open(wave, facts, look)
        wave = replace(wave, baking_at=look.now)
    if status is WaveStatus.BAKING:
        return _baking(wave, rules, look.of(wave), look)
    if status in (WaveStatus.FAILED, WaveStatus.CANCELLED):
        look.wait(wave.wave, wave.standing.reason.kind, wave.standing.reason.sentence)
    return status


def _preparing(
    wave: WaveState, rules: WaveRules, facts: WaveFacts, statuses: dict[str, WaveStatus], look: Look
) -> WaveStatus:
    name, deltas = wave.wave, facts.deltas
    fresh = deltas is not None and _fresh(deltas.computed_at, wave, look)
    if deltas is not None and fresh:
        look.wake(deltas.computed_at + LOOK_AGAIN)
    else:
        _look_at_devices(wave, look, "Its devices are looked at again: they update and move meanwhile.")
    if wave.hold is not None:
        look.wait(name, wave.hold.reason.kind, wave.hold.reason.sentence)
    elif not_done := [before for before in rules.after if statuses[before] not in DONE_WAVE]:
        look.wait(name, after_kind(not_done, statuses), after_sentence(not_done, statuses, opened=False))
    elif deltas is None or facts.eligible is None or not fresh:
        look.wait(name, ReasonKind.DELTAS, "Its devices are being looked at.")
    elif facts.eligible == 0 and facts.already_there == 0:
        look.decisions.append(HoldWave(name, Reason(ReasonKind.EMPTY, EMPTY)))
    elif deltas.coverage < rules.cover and not _served_without(wave, rules, deltas, look):
        pass  # it has said why
    elif rules.awaits_promotion and not wave.promoted:
        look.wait(name, ReasonKind.AWAITING_PROMOTION, "It waits for a person: `wave promote`.")
    elif rules.window is not None and not rules.window.is_open(look.now):
        _wait_for_window(name, rules.window, look, "open")
    elif facts.eligible == 0:
        sentence = already_there_sentence(facts.already_there)
        look.decisions.append(PassWave(name, Reason(ReasonKind.ALREADY_THERE, sentence)))
        return WaveStatus.PASSED
    elif lacks := wave_lacks(look.state, rules):
        look.wait(name, lacks.kind, lacks.sentence)
    elif look.shut is not None:
        look.wait(name, look.shut.kind, look.shut.sentence)
    elif _amber(wave, look) or shut(wave, rules.gates, facts, look):
        pass  # it has said why
    else:
        sentence = f"{done_sentence(rules.after, statuses)}{covered_sentence(deltas, rules)}"
        sentence += gates_sentence(rules.gates, facts)
        look.decisions.append(OpenWave(name, Reason(ReasonKind.OFFERING, sentence)))
        _open_slice(name, facts, look, "The first slice", f"up to {devices(look.rules.first_slice)}")
        return WaveStatus.OPEN
    return WaveStatus.PREPARING


def _fresh(looked_at: datetime, wave: WaveState, look: Look) -> bool:
    """Whether a look is young enough to decide by: not a quarter of an hour old, nor from before a person's resume."""
    return looked_at + LOOK_AGAIN > look.now and (wave.granted_at is None or looked_at >= wave.granted_at)


def _look_at_devices(wave: WaveState, look: Look, sentence: str) -> None:
    """Ask for a look, unless one was asked for a short time ago and is under way."""
    if wave.asked_at is not None and _fresh(wave.asked_at, wave, look):
        look.wake(wave.asked_at + LOOK_AGAIN)
    else:
        look.decisions.append(EnsureDeltas(wave.wave, Reason(ReasonKind.DELTAS, sentence)))


def _served_without(wave: WaveState, rules: WaveRules, deltas: DeltaFacts, look: Look) -> bool:
    """Whether the wave opens although deltas are missing (RULES 6.2); while not, it waits, and at the end it holds."""
    sentence = missing_sentence(deltas, rules.cover)
    ends = _later(wave.prepared_at, wave.granted_at, look) + rules.within
    if look.now < ends:
        look.wait(wave.wave, ReasonKind.DELTAS, sentence, ends)
        return False
    if rules.otherwise is Otherwise.HOLD:
        late = f"{sentence} The time for that is over: `wave resume` grants as long again."
        look.decisions.append(HoldWave(wave.wave, Reason(ReasonKind.DELTAS_LATE, late)))
        return False
    return True


def _open(wave: WaveState, facts: WaveFacts, look: Look) -> WaveStatus:
    name = wave.wave
    if wave.hold is not None:
        look.wait(name, wave.hold.reason.kind, wave.hold.reason.sentence)
        return WaveStatus.OPEN
    if not facts.slices:
        if not _amber(wave, look):
            _open_slice(name, facts, look, "The first slice", f"up to {devices(look.rules.first_slice)}")
        return WaveStatus.OPEN
    if facts.waiting > 0:
        last = facts.slices[-1]
        seen, ends = _seen_enough(wave, facts, look)
        if slow := slowing(look.amber, None) + slowing(look.amber, name):
            look.wait(name, ReasonKind.AMBER, amber_sentence(slow))
        if seen:
            facts = _open_slice(name, facts, look, "The next slice", seen)
        elif look.now < ends:
            look.wait(name, ReasonKind.SLICE, _slice_wait(last), ends)
        else:
            look.decisions.append(HoldWave(name, Reason(ReasonKind.SLICE_INCONCLUSIVE, slice_held_sentence(last))))
        if facts.waiting > 0:
            return WaveStatus.OPEN
    if facts.members and not facts.reachable and not facts.late:
        look.decisions.append(HoldWave(name, Reason(ReasonKind.EMPTY, NOBODY_LEFT)))
        return WaveStatus.OPEN
    ends = _later(wave.opened_at, wave.granted_at, look) + look.rules.open_at_most
    offers, needed = facts.standing, math.ceil(OFFERED_ENOUGH * facts.reachable)
    if facts.reachable and offers >= needed:
        sentence = f"{have(offers, facts.reachable)} the offer: the bake begins."
    elif look.now >= ends:
        sentence = f"{have(offers, facts.reachable)} the offer after all the time it had: the bake begins."
    else:
        missing = f"{have(offers, facts.reachable)} come for the offer; the bake begins at {needed}."
        nobody = "None of its devices has been seen lately; it waits for them."
        look.wait(name, ReasonKind.OFFERING, missing if facts.reachable else nobody, ends)
        return WaveStatus.OPEN
    look.decisions.append(StartBake(name, Reason(ReasonKind.BAKE, sentence)))
    return WaveStatus.BAKING


def _seen_enough(wave: WaveState, facts: WaveFacts, look: Look) -> tuple[str, datetime]:
    """What of the last slice lets the next one open (RULES 3.1), empty while nothing does; when its time is over."""
    last = facts.slices[-1]
    ends = _later(last.opened_at, wave.granted_at, look) + look.rules.slice_at_most
    if last.reachable == 0:
        # Nothing of those who were unhealthy before is counted, but nobody is at risk unseen: their outcomes must come.
        if last.apart.resolved < SLICE_REPORTED * last.apart.offered:
            return "", ends
        return "nobody was there before", ends
    if last.reported >= SLICE_REPORTED * last.reachable:
        return f"{have(last.reported, last.reachable)} reported an outcome in the slice before", ends
    if 2 * last.confirmed < last.reachable:
        return "", ends
    if look.now < ends:
        look.wake(ends)
        return "", ends
    return f"{are(last.confirmed, last.reachable)} confirmed in the slice before, whose time is over", ends


def _amber(wave: WaveState, look: Look) -> bool:
    """Whether a monitor that is amber keeps a wave from opening; then it has said why.

    Confirmations calm it. When the time that a slice is given is over and it is amber still, the wave holds; a person's
    resume after that lets it open all the same, at a trickle (``offers``).
    """
    keys = (*ambers(look.amber, None), *ambers(look.amber, wave.wave))
    if not keys or look.shut is not None:
        return False
    # Since the newest slice anywhere nobody was given a place.
    pieces = [piece for each in look.facts.waves for piece in each.slices]
    since = max((piece.opened_at for piece in pieces), default=wave.prepared_at or look.now)
    if wave.granted_at is not None and wave.granted_at > since:
        return False
    ends = since + look.rules.slice_at_most
    if look.now < ends:
        look.wait(wave.wave, ReasonKind.AMBER, amber_sentence(keys), ends)
    else:
        look.decisions.append(HoldWave(wave.wave, Reason(ReasonKind.AMBER, amber_held_sentence(keys))))
    return True


def _slice_wait(last: SliceFacts) -> str:
    return slice_sentence(last, needed=math.ceil(SLICE_REPORTED * (last.reachable or last.apart.offered)))


def _baking(wave: WaveState, rules: WaveRules, facts: WaveFacts, look: Look) -> WaveStatus:
    name, since = wave.wave, wave.baking_at or look.now
    if wave.hold is not None:
        look.wait(name, wave.hold.reason.kind, wave.hold.reason.sentence)
        return WaveStatus.BAKING
    # Who is given a place after the bake began feeds the monitors, not the bake (RULES 5.3).
    tally = facts.tally(opened_until=since)
    amber = amber_at_door(look.amber, name, silence=look.silence_is_amber)
    unmet = unmet_at_door(tally, rules, look.rules, amber, baked=look.now - since)
    floor, ceiling = since + rules.at_least, _later(since, wave.granted_at, look) + rules.at_most
    early = ""
    if rules.early and not {each.condition for each in unmet}.isdisjoint(LIFTED_EARLY):
        early, lifted = early_door([piece for piece in facts.slices if piece.opened_at <= since], look.rules.tolerate)
        unmet = tuple(each for each in unmet if not (lifted and each.condition in LIFTED_EARLY))
    if not unmet:
        if rules.window is not None and not rules.window.is_open(look.now):
            _wait_for_window(name, rules.window, look, "pass")
            return WaveStatus.BAKING
        sentence = f"{are(tally.confirmed, tally.reachable)} confirmed, {bad_sentence(tally.bad)}.{early}"
        if facts.apart.offered:
            sentence = f"{sentence} {apart_sentence(facts.apart)}"
        look.decisions.append(PassWave(name, Reason(ReasonKind.DOOR, sentence)))
        return WaveStatus.PASSED
    why = " ".join(each.sentence for each in unmet) + early
    if look.now >= ceiling:
        sentence = f"Its bake is over and it could not pass: {why} `wave resume` grants as long again."
        look.decisions.append(HoldWave(name, Reason(ReasonKind.BAKE_INCONCLUSIVE, sentence)))
        return WaveStatus.BAKING
    look.wake(floor)
    time_only = all(each.condition is Condition.TIME for each in unmet)
    look.wait(name, ReasonKind.BAKE, why, floor if time_only else ceiling)
    return WaveStatus.BAKING


def unmet_at_door(
    tally: Tally, rules: WaveRules, rollout: Rules, amber: Sequence[str], *, baked: timedelta
) -> tuple[Unmet, ...]:
    """What keeps a baking wave from passing (RULES 5.3), confidence aside; empty when the door opens. ``amber``: keys
    of its monitors."""
    outcomes = tally.resolved
    # A failed download is no outcome by itself, so there may be more of them than outcomes.
    bad = {outcome: min(count, outcomes) for outcome, count in tally.bad.items()}
    # Up to the mean, so many bad come up in half of all cases or more: no tail needs to be summed for those classes.
    over = {
        outcome: tolerance
        for outcome, count in bad.items()
        if (tolerance := rollout.tolerate.get(outcome)) is not None and count > int(outcomes * tolerance.at_most)
    }
    return door(
        baked=baked,
        at_least=rules.at_least,
        offers=max(tally.expected, outcomes),
        outcomes=outcomes,
        reports=rules.reports,
        confirmed=min(tally.confirmed, outcomes),
        reachable=tally.reachable,
        bad=bad,
        tolerate=over,
        amber=amber,
    )


def _serve_rest(wave: WaveState, status: WaveStatus, look: Look) -> None:
    """Who came late, and who is left of a wave that bakes or has passed: slice by slice, as carefully as before."""
    facts = look.of(wave)
    if not facts.slices:
        if status is WaveStatus.PASSED:
            _first_of_passed(wave, facts, look)
        return
    next_is_decided = wave.hold is not None or (status is WaveStatus.OPEN and facts.waiting > 0)
    if next_is_decided or not (facts.late or facts.waiting > 0):
        return
    seen, ends = _seen_enough(wave, facts, look)
    if not seen:
        last = facts.slices[-1]
        until = ends if look.now < ends and 2 * last.confirmed >= last.reachable else None
        look.wait(wave.wave, ReasonKind.SLICE, f"Who came later waits: {_slice_wait(last)}", until)
        return
    if facts.late and look.shut is None:
        reason = Reason(ReasonKind.DELTAS, "Devices came since the last look: their deltas are made.")
        look.decisions.append(EnsureDeltas(wave.wave, reason))
    _open_slice(wave.wave, facts, look, "A slice for those who came later" if facts.late else "A further slice", seen)


def _first_of_passed(wave: WaveState, facts: WaveFacts, look: Look) -> None:
    """A wave that passed without having opened: nobody's word lifts the care for its devices."""
    if facts.deltas is None:
        _look_at_devices(wave, look, "It passed before its turn: its devices are looked at.")
    _open_slice(wave.wave, facts, look, "The first slice", "it passed without having opened")


def _serve_all(wave: WaveState, look: Look) -> None:
    """A passed wave of a completed rollout: everybody may come."""
    facts = look.of(wave)
    if facts.deltas is None:
        _look_at_devices(wave, look, "It passed before its turn: its devices are looked at.")
    if not facts.slices or facts.waiting > 0 or facts.late:
        if look.shut is not None:
            look.wait(wave.wave, look.shut.kind, look.shut.sentence)
            return
        reason = Reason(ReasonKind.SLICE, "The rollout is completed: all that are left may come.")
        look.decisions.append(OpenSlice(wave.wave, None, reason))


def _open_slice(wave: str, facts: WaveFacts, look: Look, what: str, because: str) -> WaveFacts:
    """Open the next slice; the wave's facts as they are then, as far as they can be foreseen."""
    if look.shut is not None:
        look.wait(wave, look.shut.kind, look.shut.sentence)
        return facts
    most = most_in_slice(wave, look.facts.waves, look.rules, look.amber) if facts.reachable else None
    size = next_size(facts.reachable, first=look.rules.first_slice, growth=look.rules.growth, at_most=most)
    look.decisions.append(OpenSlice(wave, size, Reason(ReasonKind.SLICE, f"{what}: {because}.")))
    members = min(size, facts.waiting)
    opened = SliceFacts(len(facts.slices) + 1, look.now, members, facts.waiting - members)
    look.waves[wave] = replace(facts, slices=(*facts.slices, opened), late=False)
    return look.waves[wave]


def _wait_for_window(wave: str, window: Window, look: Look, verb: str) -> None:
    opens = window.next_open(look.now)
    until = f"until {moment(opens)}" if opens else "for more than a year"
    look.wait(wave, ReasonKind.WINDOW, f"Its window is closed {until}; only then can it {verb}.", opens)


def _later(at: datetime | None, granted_at: datetime | None, look: Look) -> datetime:
    """From when a time that was given counts: from ``at``, or from a person's later word."""
    return max(at or look.now, granted_at or at or look.now)
