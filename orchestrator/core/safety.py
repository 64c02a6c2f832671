"""What must stop now, whatever else: budgets first, then monitors and the clock of silence that halt the whole, then
segments, then what holds. A silence that one segment carries excludes it.

``decide`` asks it before everything, and the transaction that counts a report asks it at once (RULES 1.4). A segment
that is excluded leaves the others to be counted without it: whoever asked asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from orchestrator.core.decisions import ExcludeSegment, HaltRollout, HoldRollout
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW
from orchestrator.core.evidence.carrying import carrier, seen_beside
from orchestrator.core.evidence.clock import ClockFacts, explained, reading
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts, Facts, MonitorFacts, RolloutState, WaveFacts
from orchestrator.core.outcomes import Answer
from orchestrator.core.policy import OnSegment
from orchestrator.core.reasons import (
    budget_sentence,
    carries_sentence,
    carries_silence_sentence,
    clock_sentence,
    environment_sentence,
    escalated_sentence,
    excluded_sentence,
    first_bad_sentence,
    monitor_sentence,
)
from orchestrator.core.rules import Rules
from orchestrator.core.slices import segment_population
from orchestrator.core.states import WATCHED_ROLLOUT, Reason, ReasonKind, RolloutStatus

SMALL_WAVE: Final = 10
"""In a small fleet, the first bad device of a wave of fewer devices holds the rollout."""

FIRST_BAD: Final = "small-wave/first_bad"
"""By which name a person accepts that."""


Stop = HaltRollout | ExcludeSegment | HoldRollout


def safety(state: RolloutState, facts: Facts, rules: Rules) -> Stop | None:
    """What must stop now, whatever else: the most severe first. None when nothing does."""
    if state.status not in WATCHED_ROLLOUT:
        return None
    reached = [budget for budget in facts.budgets if budget.reached]
    found = [monitor for monitor in watching(state, facts.monitors) if monitor.crossed_at is not None]
    crossed = [monitor for monitor in found if monitor.segment is None]
    segments = [monitor for monitor in found if monitor.segment is not None]
    if (reason := _stopping(reached, crossed, Answer.HALT)) is not None:
        return HaltRollout(_naming(reason, state, facts))
    clock = clock_stop(state, facts)
    if isinstance(clock, HaltRollout):
        return _dark_board(clock, state, facts, rules)
    if segments:
        return _segment(max(segments, key=_weight), state, facts, rules)
    if state.status in (RolloutStatus.HELD, RolloutStatus.PAUSED):
        return None
    if (reason := _stopping(reached, crossed, Answer.HOLD)) is not None:
        return HoldRollout(reason)
    if clock is not None:
        return clock
    accepted = state.first_bad_accepted
    if facts.devices < SMALL_FLEET_BELOW and (wave := small_wave_with_bad(facts, rules, accepted)):
        return HoldRollout(Reason(ReasonKind.FIRST_BAD, first_bad_sentence(wave, accepted)))
    return None


def clock_stop(state: RolloutState, facts: Facts) -> HaltRollout | HoldRollout | None:
    """What the clock test for silence asks for: its class's answer; a hold where untouched devices have gone dark too.

    A rollout that is held for that is not halted by the same darkness when the others are back: those that were not
    heard of in time stay so, and who resumes it begins the clock anew."""
    clock = heeded(state, facts)
    if clock is None or clock.answer is Answer.COUNT:
        return None
    if state.status is RolloutStatus.HELD and state.standing.reason.kind is ReasonKind.ENVIRONMENT:
        return None
    if (stricter := halting(clock)) is not None and isinstance(stop := _clock_stop(stricter), HaltRollout):
        return stop
    return _clock_stop(clock)


def halting(clock: ClockFacts) -> ClockFacts | None:
    """The same clock as it halts, where an edit has made its hold a halt: by all that it has seen, with an alpha of
    its own. None where it has one answer.

    No evidence is left out for it: there is only one process of it, and the more is tolerated the smaller it is. So
    whichever tolerance and alpha an edit comes to choose, a release within them crosses with at most that chance."""
    if clock.halts is None:
        return None
    return replace(clock, alpha=clock.halts, answer=Answer.HALT, halts=None)


def _clock_stop(clock: ClockFacts) -> HaltRollout | HoldRollout | None:
    found = reading(clock)
    if found is None or not found.crossed:
        return None
    if explained(clock):
        return HoldRollout(Reason(ReasonKind.ENVIRONMENT, environment_sentence(clock, found)))
    sentence, board = clock_sentence(clock, found), carrier(clock)
    if board is not None and seen_beside(clock, board):
        sentence = f"{sentence} {carries_silence_sentence(board)}"
    reason = Reason(ReasonKind.SILENCE, sentence)
    return HaltRollout(reason) if clock.answer is Answer.HALT else HoldRollout(reason)


def _dark_board(halt: HaltRollout, state: RolloutState, facts: Facts, rules: Rules) -> Stop:
    """Where one watched hardware id carries the silence it is left out instead, as for any other failure of its own:
    long before the hard stop lets its monitor say so. It is on the clock's account (``false_halt``)."""
    clock = heeded(state, facts)
    board = None if clock is None else carrier(clock)
    if clock is None or board is None:
        return halt
    hardware_id = board.seen[0].hardware_id
    devices = dict(clock.boards).get(hardware_id)
    if devices is None or rules.on_segment is OnSegment.HALT:
        return halt
    return _left_out(segment_population("hardware_id", hardware_id), devices, halt.reason, state, facts, rules)


def heeded(state: RolloutState, facts: Facts) -> ClockFacts | None:
    """The clock without the devices of excluded hardware ids."""
    clock, excluded = facts.clock, state.excluded_segments
    if clock is None or not excluded:
        return clock
    kept = tuple(each for each in clock.seen if segment_population("hardware_id", each.hardware_id) not in excluded)
    return replace(clock, seen=kept)


def watching(state: RolloutState, monitors: Iterable[MonitorFacts]) -> list[MonitorFacts]:
    """The monitors that may still stop something: not accepted, and not those of excluded segments."""
    excluded = state.excluded_segments
    return [each for each in monitors if not each.accepted and each.segment not in excluded]


def _segment(monitor: MonitorFacts, state: RolloutState, facts: Facts, rules: Rules) -> Stop:
    """One segment at a time, the one with the most evidence: without it others that share devices may be fine."""
    assert monitor.segment is not None
    reason = Reason(ReasonKind.SEGMENT, monitor_sentence(monitor))
    if rules.on_segment is OnSegment.HALT:
        return HaltRollout(reason)
    return _left_out(monitor.segment, segment_devices(monitor), reason, state, facts, rules)


def _left_out(segment: str, devices: int, why: Reason, state: RolloutState, facts: Facts, rules: Rules) -> Stop:
    """The segment is excluded, unless too much would be: then the rollout halts."""
    together = devices + sum(each.devices for each in state.excluded)
    if together > rules.escalate_over * facts.devices:
        escalated = escalated_sentence(segment, state, together, facts.devices, rules.escalate_over)
        return HaltRollout(Reason(why.kind, f"{why.sentence} {escalated}"))
    reason = Reason(ReasonKind.SEGMENT, f"{excluded_sentence(segment, devices)} {why.sentence}")
    return ExcludeSegment(segment, reason, devices)


def segment_devices(monitor: MonitorFacts) -> int:
    """How many devices a monitored segment has, as far as is known: those at the start, or with a place since."""
    return max(monitor.devices, monitor.places)


def _naming(reason: Reason, state: RolloutState, facts: Facts) -> Reason:
    """The segment that carries the failures, where one of those watched has so much evidence that it stands out."""
    loud = [
        each
        for each in watching(state, facts.monitors)
        if each.segment is not None and (each.crossed_at is not None or each.amber)
    ]
    if not loud:
        return reason
    return Reason(reason.kind, f"{reason.sentence} {carries_sentence(max(loud, key=_weight))}")


def _weight(monitor: MonitorFacts) -> tuple[float, int, str]:
    """By evidence as it stands now, then the smaller segment, then by name."""
    evidence = staircase(monitor.tolerance, monitor.alpha).log_evidence(max(monitor.places, monitor.bad), monitor.bad)
    return evidence, -segment_devices(monitor), monitor.monitor


def _stopping(budgets: list[BudgetFacts], monitors: list[MonitorFacts], answer: Answer) -> Reason | None:
    """The first cause with this answer: budgets before monitors."""
    for budget in budgets:
        if budget.answer is answer:
            return Reason(ReasonKind.BUDGET, budget_sentence(budget))
    for monitor in monitors:
        if monitor.answer is answer:
            return Reason(ReasonKind.MONITOR, monitor_sentence(monitor))
    return None


def bad_in_small_waves(facts: Facts, rules: Rules) -> int:
    """Bad outcomes, of classes that halt, in waves that began with fewer than ten devices. It falls only with
    the devices of a segment that is excluded."""
    return sum(_halting_bad(wave, rules) for wave in facts.waves if _small(wave))


def small_wave_with_bad(facts: Facts, rules: Rules, accepted: int) -> str | None:
    """A small wave with a bad device, when there are more than a person has accepted; else None."""
    if bad_in_small_waves(facts, rules) <= accepted:
        return None
    return next(wave.wave for wave in facts.waves if _small(wave) and _halting_bad(wave, rules))


def _small(wave: WaveFacts) -> bool:
    """As it was when its first slice with a device opened: a wave that grows later stays what it was, and so do the
    bad devices of it that a person has accepted."""
    first = next((piece for piece in wave.slices if piece.members), None)
    return first is not None and first.members + first.waiting < SMALL_WAVE


def _halting_bad(wave: WaveFacts, rules: Rules) -> int:
    return sum(wave.bad(outcome) for outcome, tolerance in rules.tolerate.items() if tolerance.then is Answer.HALT)
