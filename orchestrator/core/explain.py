"""What would move a rollout, either way (``wave explain``): sentences out of what the next decision sees.

Answers for: what lets it advance, what halts it, what holds it, and when it looks again. Does not answer for: what it
has come to (``reasons``), and why one device has no offer (``offers``). Each sentence follows "It advances when …",
"It halts when …" or "It holds when …", and stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.core.decide import SLICE_REPORTED
from orchestrator.core.decisions import Plan, Waiting
from orchestrator.core.durations import span_text
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW
from orchestrator.core.evidence.clock import CLOCK
from orchestrator.core.evidence.crossing import Step
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import Facts, MonitorFacts, RolloutState, WaveFacts, WaveState
from orchestrator.core.outcomes import Answer
from orchestrator.core.policy import OnSegment, Otherwise
from orchestrator.core.reasons import clock_state, devices, does, moment, names, percent, step_of
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.safety import FIRST_BAD, SMALL_WAVE, clock_stop, halting, watching
from orchestrator.core.states import WATCHED_ROLLOUT, ReasonKind, RolloutStatus, WaveStatus

NAMED: Final = 3
"""So many monitors of one kind are named; more are counted."""


_STILL: Final = frozenset({RolloutStatus.HALTED, RolloutStatus.CANCELLED})
"""Silences are still counted there; what they decide is nothing."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would move a rollout. ``now``: what the next tick decides as things stand."""

    now: tuple[str, ...]
    advances: tuple[str, ...]
    halts: tuple[str, ...]
    excludes: tuple[str, ...]
    holds: tuple[str, ...]
    looks_again: str


NOTHING_TOLD: Final = Outlook((), (), (), (), (), "")


def outlook(
    state: RolloutState, facts: Facts, rules: Rules, plan: Plan, steps: Mapping[str, Step], now: datetime
) -> Outlook:
    """``steps`` by monitor, as ``crossing.next_step`` finds them; where one is missing its staircase's next is told."""
    watched = state.status in WATCHED_ROLLOUT
    holding = watched and state.status not in (RolloutStatus.PAUSED, RolloutStatus.HELD)
    return Outlook(
        now=tuple(decision.reason.sentence for decision in plan.decisions),
        advances=tuple(_advances(state, facts, rules, plan)),
        halts=tuple(_halts(state, facts, rules, steps)) if watched else (),
        excludes=tuple(_by_segments(state, facts, steps)) if watched and not _segments_halt(rules) else (),
        holds=tuple(_holds(state, facts, rules, plan, steps)) if holding else (),
        looks_again="" if state.status in _STILL else looks_again(plan.wake_at, now),
    )


def looks_again(wake_at: datetime | None, now: datetime) -> str:
    """When the next decision may be another one; empty when nothing looks again by the clock."""
    if wake_at is None:
        return ""
    return (
        f"Looks again with the next report that counts, at the latest at {moment(wake_at)}"
        f" (in {span_text(wake_at - now)}); until then the same facts decide nothing new."
    )


def stopped_by(state: RolloutState, facts: Facts) -> tuple[str, ...]:
    """What a resume has to accept, by name."""
    kind = state.standing.reason.kind
    first = [FIRST_BAD] if kind is ReasonKind.FIRST_BAD else [CLOCK] if kind is ReasonKind.SILENCE else []
    if not first and state.status is RolloutStatus.HELD and (stop := clock_stop(state, facts)) is not None:
        first = [CLOCK] if stop.reason.kind is ReasonKind.SILENCE else []
    crossed = (monitor.monitor for monitor in _crossed(state, facts))
    return (*first, *crossed, *(f"budget/{budget.name}" for budget in facts.budgets if budget.reached))


def _crossed(state: RolloutState, facts: Facts) -> list[MonitorFacts]:
    """Those whose evidence stops it, or would."""
    return [each for each in watching(state, facts.monitors) if each.crossed_at and each.answer is not Answer.COUNT]


# ------------------------------------------------------------------------------------------------- to advance


def _advances(state: RolloutState, facts: Facts, rules: Rules, plan: Plan) -> Iterator[str]:
    name = state.rollout
    match state.status:
        case RolloutStatus.DRAFT:
            yield f"A person starts it: `wave start {name}`."
        case RolloutStatus.PAUSED:
            yield f"A person resumes it: `wave resume {name}`."
        case RolloutStatus.HELD | RolloutStatus.HALTED:
            accepts = "".join(f" --accept {each}" for each in stopped_by(state, facts))
            because = " --reason TEXT" if accepts else ""
            for segment in dict.fromkeys(each.segment for each in _crossed(state, facts) if each.segment is not None):
                yield (
                    f"First {segment} may be left out, so that the rest is counted without it:"
                    f" `wave exclude {name} {segment} --reason TEXT`."
                )
            yield f"A person has looked and resumes it: `wave resume {name}{accepts}{because}`."
            yield from _held_waves(state)
            yield f"Or ends it: `wave cancel {name}`."
        case RolloutStatus.CANCELLED:
            yield "It has ended."
        case RolloutStatus.SCHEDULED | RolloutStatus.RUNNING | RolloutStatus.COMPLETED:
            waves = {wave.wave: wave for wave in state.waves}
            for waiting in plan.reasons:
                wave = waves[waiting.wave] if waiting.wave is not None else None
                if wave is None or (wave.status is not WaveStatus.PENDING and wave.hold is None):
                    yield _wait(waiting, wave, facts, rules)
            yield from _held_waves(state)


def _held_waves(state: RolloutState) -> Iterator[str]:
    """What each wave that is held for itself waits for, whatever the rollout waits for."""
    name = state.rollout
    for wave in state.waves:
        if wave.hold is not None:
            yield (
                f"{wave.wave} is held; a person lets it go on, `wave resume {name} --wave {wave.wave}`,"
                f" or pass, `wave complete {name} {wave.wave}`."
            )


def _wait(waiting: Waiting, state: WaveState | None, facts: Facts, rules: Rules) -> str:
    """What the rollout or one of its waves waits for, and what time does to that."""
    if state is None:
        return waiting.reason.sentence
    wave, until = state.wave, waiting.until
    said = f"{wave}: {waiting.reason.sentence}"
    match waiting.reason.kind:
        case ReasonKind.BAKE if state.baking_at and until == state.baking_at + rules.wave(wave).at_least:
            return f"{said} That is at {moment(until)}."
        case ReasonKind.SLICE if until is not None:
            last = _of(wave, facts).slices[-1]
            needed = -(-last.reachable // 2)
            return f"{said} Or at {moment(until)}, if {needed} are confirmed by then; {last.confirmed} are."
        case ReasonKind.OFFERING if until is not None:
            return f"{said} At {moment(until)} it begins with those that have come."
        case ReasonKind.DELTAS if until is not None and rules.wave(wave).otherwise is not Otherwise.HOLD:
            return f"{said} At {moment(until)} it opens all the same."
        case _:
            return said


# ------------------------------------------------------------------------------------------------- to halt


def _halts(state: RolloutState, facts: Facts, rules: Rules, steps: Mapping[str, Step]) -> Iterator[str]:
    yield from _by_evidence(Answer.HALT, state, facts, steps)
    if _segments_halt(rules):
        yield from _by_segments(state, facts, steps)
    elif rules.segments and facts.devices >= SMALL_FLEET_BELOW:
        yield f"Segments of more than {percent(rules.escalate_over)} of the devices together would be excluded."
    yield f"A person says so: `wave halt {state.rollout}`."


def _segments_halt(rules: Rules) -> bool:
    return rules.on_segment is OnSegment.HALT


def _by_segments(state: RolloutState, facts: Facts, steps: Mapping[str, Step]) -> Iterator[str]:
    """What segments still need that have a bad device, those with most first."""
    found = [each for each in watching(state, facts.monitors) if each.segment is not None and each.crossed_at is None]
    for monitor in sorted(found, key=lambda each: -each.bad):
        yield _needed([monitor], step_of(monitor, steps.get(monitor.monitor)))


def _by_evidence(answer: Answer, state: RolloutState, facts: Facts, steps: Mapping[str, Step]) -> Iterator[str]:
    """What monitors and budgets with this answer still need, those nearest to it first."""
    alike: dict[tuple[object, ...], list[MonitorFacts]] = {}
    for monitor in watching(state, facts.monitors):
        if monitor.answer is not answer or monitor.segment is not None or monitor.crossed_at is not None:
            continue
        if monitor.places or monitor.wave is None:  # else its wave has not opened
            kind = monitor.monitor if monitor.bad or monitor.wave is None else "wave"
            alike.setdefault((kind, monitor.outcomes, monitor.tolerance, monitor.alpha), []).append(monitor)
    for group in sorted(alike.values(), key=lambda each: -max(monitor.bad for monitor in each)):
        yield _needed(group, step_of(group[0], steps.get(group[0].monitor)))
    clocks = () if facts.clock is None else (facts.clock, halting(facts.clock))
    for clock in clocks:
        if clock is not None and clock.answer is answer:
            yield f"Too many devices are not heard of in time: {clock_state(clock)}."
    for budget in facts.budgets:
        if budget.answer is answer and not budget.reached:
            left = budget.limit - (budget.bad - budget.base)
            yield f"{_more(left, budget.bad)} {does(budget.outcomes, left)}, wherever: the budget."


def _needed(group: Sequence[MonitorFacts], step: Step) -> str:
    """``1 more device fails within the first 33 places, where 3 have. Wherever they are: 6 of the 404.``"""
    first = group[0]
    where = f" of {first.segment}" if first.segment else f" of {_waves(group)}" if first.wave else ""
    who = f"{_more(step.more, step.there)} {does(first.outcomes, step.more)}"
    said = f"{who} within the first {step.within:,} places{where}"
    if step.there:
        said += f", where {step.there} {'has' if step.there == 1 else 'have'}"
    enough = staircase(first.tolerance, first.alpha).need(first.places) if first.places else 0
    if len(group) == 1 and step.more < enough - first.bad and enough <= first.places:
        said += f"; wherever they are, {enough - first.bad:,} of the {first.places:,}"
    return f"{said}."


def _waves(group: Sequence[MonitorFacts]) -> str:
    found = [monitor.wave for monitor in group if monitor.wave is not None]
    return f"wave {names(found)}" if len(found) <= NAMED else f"any of {len(found)} waves"


def _more(count: int, so_far: int) -> str:
    return devices(count) if not so_far else f"{count:,} more device{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------------------------- to hold


def _holds(state: RolloutState, facts: Facts, rules: Rules, plan: Plan, steps: Mapping[str, Step]) -> Iterator[str]:
    yield from _by_evidence(Answer.HOLD, state, facts, steps)
    if facts.devices < SMALL_FLEET_BELOW:
        yield (
            f"In a wave that began with fewer than {SMALL_WAVE} devices one more is bad, of a class that halts: a fleet"
            " this small cannot tell chance from cause."
        )
    waves = {wave.wave: wave for wave in state.waves}
    for waiting in plan.reasons:
        if waiting.wave is not None and waves[waiting.wave].hold is None:
            yield from _at_a_ceiling(waves[waiting.wave], waiting, facts, rules.wave(waiting.wave), rules)


def _at_a_ceiling(wave: WaveState, waiting: Waiting, facts: Facts, rules: WaveRules, rollout: Rules) -> Iterator[str]:
    """When this wave's wait is over, and it then holds."""
    counts = _of(wave.wave, facts)
    match waiting.reason.kind, wave.status:
        case ReasonKind.DELTAS, WaveStatus.PREPARING if wave.prepared_at and rules.otherwise is Otherwise.HOLD:
            if counts.deltas is not None and counts.deltas.coverage < rules.cover:
                at = _given_from(wave.prepared_at, wave) + rules.within
                yield f"{wave.wave}: at {moment(at)} its deltas do not cover {percent(rules.cover)} of its devices."
        case ReasonKind.SLICE, WaveStatus.OPEN if counts.slices:
            last = counts.slices[-1]
            at = _given_from(last.opened_at, wave) + rollout.slice_at_most
            yield (
                f"{wave.wave}: at {moment(at)} fewer than {percent(float(SLICE_REPORTED))} of slice {last.number} have"
                " reported an outcome, and fewer than half are confirmed."
            )
        case ReasonKind.AMBER, _ if waiting.until is not None:
            yield f"{wave.wave}: at {moment(waiting.until)} a monitor that watches it is amber still."
        case ReasonKind.BAKE, WaveStatus.BAKING if wave.baking_at:
            at = _given_from(wave.baking_at, wave) + rules.at_most
            yield f"{wave.wave}: at {moment(at)} its bake is over and it could not pass."
        case _:
            pass


def _given_from(at: datetime, wave: WaveState) -> datetime:
    """From when a time that was given counts: a person's later word gives it once more."""
    return at if wave.granted_at is None else max(at, wave.granted_at)


def _of(wave: str, facts: Facts) -> WaveFacts:
    return next(each for each in facts.waves if each.wave == wave)
