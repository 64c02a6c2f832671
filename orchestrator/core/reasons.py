"""The sentences that people read in ``status``, ``explain``, the journal and messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.durations import duration_text
from orchestrator.core.evidence.clock import (
    FLEET,
    FLOOR,
    VETO_FROM,
    Clock,
    ClockFacts,
    ClockReading,
    limit,
    reading,
    too_short,
)
from orchestrator.core.evidence.confident import Boundary, reports_needed
from orchestrator.core.evidence.crossing import Step, first_step
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import Apart, BudgetFacts, DeltaFacts, MonitorFacts, RolloutState, SliceFacts
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance, in_order, word
from orchestrator.core.policy import FromUnknown, Otherwise
from orchestrator.core.rules import WaveRules
from orchestrator.core.slices import segment_population
from orchestrator.core.states import ReasonKind, WaveStatus
from orchestrator.core.words import plural

# ------------------------------------------------------------------------------------------------- words


EMPTY: Final = (
    "No eligible device is in it: `wave resume` looks again when some have come, `wave skip` lets the next waves go on"
    " without it."
)
"""Of a wave that has not opened."""
NOBODY_LEFT: Final = (
    "All its devices were retired or are left out of what is counted, and nobody is left to wait for: `wave complete`"
    " with its name lets the next waves go on, `wave resume` looks again."
)
"""Of a wave that is open."""


def words(outcomes: tuple[Outcome, ...]) -> str:
    """The classes as people say them: ``failed``, ``failed or rolled back``; those of the operator's own by name."""
    return _listed([word(outcome) for outcome in outcomes], "or")


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 22nd."""
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def a_or_an(number: int) -> str:
    """The article before an ordinal: a 4th, an 8th, an 11th, an 80th."""
    digits = str(number)
    return "an" if digits[0] == "8" or (len(digits) % 3 == 2 and digits[:2] in ("11", "18")) else "a"


def devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"


def names(waves: Sequence[str]) -> str:
    """``lab``, ``lab and canary``."""
    return _listed(waves, "and")


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def are(count: int, of: int) -> str:
    """``1 of 20 devices is``, ``2 of 20 devices are``."""
    return f"{count} of {devices(of)} {_of(count, of, 'is', 'are')}"


def have(count: int, of: int) -> str:
    """``1 of 20 devices has``, ``2 of 20 devices have``."""
    return f"{count} of {devices(of)} {_of(count, of, 'has', 'have')}"


def _listed(found: Sequence[str], last: str) -> str:
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}"


def _one_or_more(count: int, one: str, more: str) -> str:
    return one if count == 1 else more


def _of(count: int, of: int, one: str, more: str) -> str:
    """The verb after ``count of so many``: ``0 of 1 device is``, ``1 of 3 devices is``, ``0 of 3 devices are``."""
    return one if 1 in (count, of) else more


# ------------------------------------------------------------------------------------------------- evidence


def _where(monitor: MonitorFacts) -> str:
    if monitor.segment is not None:
        return f"of {monitor.segment}"
    return f"of wave {monitor.wave}" if monitor.wave else "of the rollout"


def monitor_sentence(monitor: MonitorFacts) -> str:
    """A crossed monitor: what was seen, and the limit."""
    if monitor.crossed_at is None:
        return monitor_state(monitor)
    count, place = monitor.crossed_at
    limit = staircase(monitor.tolerance, monitor.alpha).limit(count)
    return (
        f"{count} {words(monitor.outcomes)} within the first {place} places {_where(monitor)}: {count} within the first"
        f" {limit} are more than a tolerance of {percent(monitor.tolerance)} explains."
    )


def step_of(monitor: MonitorFacts, step: Step | None = None) -> Step:
    """What is missing for a monitor to cross, as found in its tree; the staircase's own next step where nobody looked:
    exact while nothing is bad."""
    steps = staircase(monitor.tolerance, monitor.alpha)
    if step is not None or not monitor.bad:
        return step or first_step(steps)
    count = max(steps.first, monitor.bad + 1)
    return Step(more=count - monitor.bad, within=steps.limit(count), there=monitor.bad)


def monitor_state(monitor: MonitorFacts, step: Step | None = None) -> str:
    """A monitor in one line, for ``explain``."""
    seen = f"{monitor.bad} {words(monitor.outcomes)} among {plural(monitor.places, 'place')}"
    tolerance = f"tolerance {percent(monitor.tolerance)}"
    if monitor.accepted:
        how = "accepted by a person and closed" if monitor.crossed_at is not None else "closed by an order"
        return f"{seen}; {how}; {tolerance}"
    if monitor.crossed_at is not None:
        count, place = monitor.crossed_at
        return f"{seen}; crossed by the {ordinal(count)} at place {place}; {tolerance}"
    if monitor.answer is Answer.COUNT:
        return f"{seen}; only counted"
    amber = "; amber" if monitor.amber else ""
    return f"{seen}{amber}; {_next(monitor, step_of(monitor, step))}; {tolerance}"


def _next(monitor: MonitorFacts, step: Step) -> str:
    """``a 4th within the first 33 halts``; ``2 more within the first 52, where 3 are, halt``."""
    one, more = ("excludes it", "exclude it") if monitor.segment else (f"{monitor.answer.value}s", monitor.answer.value)
    verb = one if step.more == 1 else more
    if step.more == 1 and step.there == monitor.bad:
        return f"{a_or_an(monitor.bad + 1)} {ordinal(monitor.bad + 1)} within the first {step.within} {verb}"
    if not step.there:
        return f"{step.more} within the first {step.within} {verb}"
    are = _one_or_more(step.there, "is", "are")
    return f"{step.more} more within the first {step.within}, where {step.there} {are}, {verb}"


def does(outcomes: Sequence[Outcome], count: int) -> str:
    """What so many devices do: ``fails``, ``fail or roll back``."""
    said = [_DOES.get(outcome, (f"fails as {outcome}", f"fail as {outcome}")) for outcome in outcomes]
    return _listed([one if count == 1 else more for one, more in said], "or")


_DOES: Final[Mapping[Outcome, tuple[str, str]]] = {
    OutcomeClass.FAILED: ("fails", "fail"),
    OutcomeClass.VERIFY_FAILED: ("fails to verify", "fail to verify"),
    OutcomeClass.ROLLED_BACK: ("rolls back", "roll back"),
    OutcomeClass.SILENT: ("stays silent", "stay silent"),
    OutcomeClass.IGNORED: ("ignores its offer", "ignore their offer"),
    OutcomeClass.DOWNLOAD_FAILED: ("cannot download", "cannot download"),
}


def excluded_sentence(segment: str, count: int) -> str:
    """That a segment is left out from now on."""
    return f"Segment {segment} with its {devices(count)} is excluded; the rest goes on."


def escalated_sentence(segment: str, state: RolloutState, together: int, of: int, share: float) -> str:
    """Why a segment that would be excluded halts the whole."""
    before = [each.segment for each in state.excluded]
    excluded = f"{segment} and {names(before)}, excluded before," if before else segment
    return f"{excluded} would be {together} of {devices(of)}, more than the {percent(share)} that may be excluded."


CARRIES: Final = "carries the failures"
"""By which a sentence is known to name a segment."""


def carries_sentence(monitor: MonitorFacts) -> str:
    """Which segment most of what went bad is in."""
    seen = f"{monitor.bad} {words(monitor.outcomes)} among {plural(monitor.places, 'place')}"
    return f"Segment {monitor.segment} {CARRIES}: {seen}."


def carries_silence_sentence(board: ClockReading) -> str:
    """Which hardware id the silence is in; ``board``: what its devices say by themselves."""
    segment = segment_population("hardware_id", board.seen[0].hardware_id)
    return f"Segment {segment} {CARRIES}: {_count(board)} silent after {board.minutes} min, and the others are not."


def excluded_offer_sentence(segment: str, state: RolloutState) -> str:
    """Why a device of an excluded segment has no offer."""
    why = next(each.standing.reason.sentence for each in state.excluded if each.segment == segment)
    return f"It is in segment {segment}, which is excluded: {why}"


def budget_sentence(budget: BudgetFacts) -> str:
    """A budget that is reached."""
    accepted = f", {budget.base} of them accepted before" if budget.base else ""
    counted = f"{devices(budget.bad)} counted as {words(budget.outcomes)}{accepted}"
    return f"{counted}: the budget of {budget.limit} is used up."


def first_bad_sentence(wave: str, accepted: int = 0) -> str:
    """A bad device in a small wave of a small fleet; ``accepted``: how many a person has seen and resumed over."""
    which = "The first bad device" if not accepted else f"One more bad device, after {accepted} accepted,"
    return f"{which} in {wave}, which began with fewer than 10: a fleet this small cannot tell chance from cause."


def clock_seen(found: ClockReading) -> str:
    """``18 of 20 devices were not heard of 12 min after installing began; in earlier releases 1 of 20``."""
    were = _one_or_more(found.silent, "was", "were")
    usual = f"in earlier releases {found.usual:.0f} of {found.devices}"
    return f"{_count(found)} {were} not heard of {found.minutes} min after installing began; {usual}"


def _count(found: ClockReading) -> str:
    return f"{found.silent} of {devices(found.devices)}"


def clock_sentence(facts: ClockFacts, found: ClockReading) -> str:
    """The clock test has crossed: what was seen, what was usual, the limit, and what the untouched devices say."""
    # The limit is for silence that is spread over the boards as the devices are; that of one board crosses sooner.
    at = limit(found)
    said = f"{clock_seen(found)}{'' if at is None else f' (limit {min(at, found.silent)})'}."
    look = facts.untouched
    if look is None or not look.devices:
        return f"{said} No untouched device was due in that time, so nothing else explains it."
    untouched = f"untouched {_one_or_more(look.devices, 'device that was', 'devices that were')} due"
    few = "too few devices to tell" if look.devices < VETO_FROM else "that does not explain it"
    return f"{said} Of {look.devices:,} {untouched}, {look.dark:,} went dark: {few}."


def environment_sentence(facts: ClockFacts, found: ClockReading) -> str:
    """The clock test has crossed, and untouched devices have gone dark too."""
    look = facts.untouched
    assert look is not None
    return (
        f"{clock_seen(found)}. But {look.dark} of {devices(look.devices)} that were due and not updated have gone dark"
        f" in the same {look.minutes} min: something else than the release. `wave resume` begins the clock anew."
    )


def clock_state(facts: ClockFacts) -> str:
    """The clock test in one line, for ``explain`` and ``status``."""
    learnt = f"learnt from {devices(facts.devices)} of earlier releases"
    if facts.dark:
        learnt += f", up to {percent(facts.dark)} of them dark for good; {percent(facts.tolerance)} more are tolerated"
    found = reading(facts)
    if found is None:
        return f"no device has come to its first look yet; {learnt}"
    at = limit(found)
    verb = f"{facts.answer}s"
    if found.crossed:
        return f"{clock_seen(found)}: crossed; {learnt}"
    need = "even all of them decide nothing yet" if at is None else f"{at} {verb}"
    return f"{clock_seen(found)}; {need}; {learnt}"


def clock_plan(clock: Clock | None, silent: Tolerance, silent_after: timedelta, *, small: bool) -> str:
    """What ``plan`` says of silence: from how many devices the clock was learnt, when it looks and how much is
    tolerated, or that only the hard stop speaks. ``silent``: what that tolerates."""
    hard_stop = f"silent_after ({duration_text(silent_after)})"
    above = f"above {percent(silent.at_most)} it {silent.then}s"
    if clock is None:
        why = "so small a fleet has no clock for it" if small else "no history"
        if not small and too_short(silent_after):
            why = f"its clock would look for the first time only after {FLOOR} min"
        return f"Silence: {why}: only the hard stop speaks, {hard_stop}; {above}."
    own = ", ".join(f"{name} {each.devices:,}" for name, each in sorted(clock.learnt.items()) if name != FLEET)
    looks = ", ".join(str(each.minutes) for each in clock.learnt[FLEET].checkpoints)
    return (
        f"Silence: learnt from {clock.devices:,} devices of earlier releases{f' ({own})' if own else ''}; looked at"
        f" {looks} min after installing began, it {clock.answer}s. The hard stop is {hard_stop}: up to"
        f" {percent(clock.dark.fleet)} of those stayed dark, {percent(clock.tolerance)} more are tolerated; {above}."
    )


def bad_sentence(bad: Mapping[Outcome, int]) -> str:
    """``1 failed, 2 silent``, or ``none is bad``."""
    return _counts(bad) or "none is bad"


def _counts(bad: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{bad[outcome]} {word(outcome)}" for outcome in in_order(bad) if bad[outcome])


def apart_sentence(apart: Apart) -> str:
    """Devices that are left out because they were unhealthy before: ``3 devices were unhealthy before and are not
    counted: 1 confirmed, 2 failed``; empty when there are none."""
    if not apart.offered:
        return ""
    said = _counts(apart.bad)
    parts = [
        *([f"{apart.confirmed} confirmed"] if apart.confirmed else []),
        *([said] if said else []),
        *([f"{apart.in_flight} in flight"] if apart.in_flight else []),
    ]
    what = f": {', '.join(parts)}" if parts else ""
    were = _one_or_more(apart.offered, "was", "were")
    are = _one_or_more(apart.offered, "is", "are")
    return f"{devices(apart.offered)} {were} unhealthy before and {are} not counted{what}."


# ------------------------------------------------------------------------------------------------- order of waves


def after_sentence(waiting_for: Sequence[str], statuses: Mapping[str, WaveStatus], *, opened: bool) -> str:
    """What a wave waits for: that those before it open (``opened``), or that they have passed."""
    if cancelled := cancelled_among(waiting_for, statuses):
        was, them = ("was", "it") if len(cancelled) == 1 else ("were", "them")
        return f"{names(cancelled)} {was} cancelled: `wave skip` lets what comes after {them} go on."
    one, more = ("opens", "open") if opened else ("has passed", "have passed")
    return f"It waits until {names(waiting_for)} {_one_or_more(len(waiting_for), one, more)}."


def after_kind(waves: Sequence[str], statuses: Mapping[str, WaveStatus]) -> ReasonKind:
    return ReasonKind.CANCELLED_BEFORE if cancelled_among(waves, statuses) else ReasonKind.AFTER


def cancelled_among(waves: Iterable[str], statuses: Mapping[str, WaveStatus]) -> list[str]:
    return [name for name in waves if statuses[name] is WaveStatus.CANCELLED]


def done_sentence(before: Sequence[str], statuses: Mapping[str, WaveStatus]) -> str:
    """That what a wave comes after is done: ``lab has passed. ``, or nothing when it comes after nothing."""
    passed = [name for name in before if statuses[name] is WaveStatus.PASSED]
    skipped = [name for name in before if statuses[name] is WaveStatus.SKIPPED]
    said = []
    if passed:
        said.append(f"{names(passed)} {_one_or_more(len(passed), 'has', 'have')} passed")
    if skipped:
        said.append(f"{names(skipped)} {_one_or_more(len(skipped), 'was', 'were')} skipped")
    return f"{', '.join(said)}. " if said else ""


def already_there_sentence(count: int) -> str:
    runs = _one_or_more(count, "runs", "run")
    return f"Nothing to do: {devices(count)} of it already {runs} the Target or a newer version."


# ------------------------------------------------------------------------------------------------- slices


def slice_sentence(last: SliceFacts, *, needed: int) -> str:
    """What the next slice waits for; one of which all were unhealthy before waits for these."""
    if not last.reachable and last.apart.offered:
        reported = have(last.apart.resolved, last.apart.offered)
        return f"{reported} an outcome in slice {last.number}, all unhealthy before; the next slice opens at {needed}."
    said = f"{have(last.reported, last.reachable)} reported an outcome in slice {last.number}"
    return f"{said}; the next slice opens at {needed}."


def slice_held_sentence(last: SliceFacts) -> str:
    """The last slice had all its time and does not let another one open."""
    if not last.reachable and last.apart.offered:
        return (
            f"All devices of slice {last.number} were unhealthy before, and only"
            f" {have(last.apart.resolved, last.apart.offered)} an outcome after all the time they had: `wave resume`"
            " grants as much again."
        )
    confirmed = f"{last.confirmed} {_one_or_more(last.confirmed, 'is', 'are')} confirmed"
    return (
        f"Only {have(last.reported, last.reachable)} reported an outcome in slice {last.number} and {confirmed},"
        " after all the time they had: `wave resume` grants as much again."
    )


def amber_sentence(keys: Sequence[str]) -> str:
    """Why slices are small and no wave opens."""
    it = _one_or_more(len(keys), "it", "them")
    return f"{_amber(keys)}: slices and offers slow to a trickle, and no wave opens, until confirmations calm {it}."


def amber_held_sentence(keys: Sequence[str]) -> str:
    """Amber for as long as a slice is given: the wave has not opened."""
    it = _one_or_more(len(keys), "it", "them")
    return (
        f"{_amber(keys)}, and confirmations did not calm {it} in time: `wave resume` lets the wave open all the same."
    )


def _amber(keys: Sequence[str]) -> str:
    is_ = _one_or_more(len(keys), "Monitor {} is", "Monitors {} are").format(names(keys))
    return f"{is_} amber, with a fifth or more of the evidence that halts"


def failing_sentence(upper: float) -> str:
    """What the evidence leaves open of the failure rate, without a stop."""
    return (
        "nothing is known of how many fail yet"
        if upper >= 1.0
        else f"up to {100 * upper:.2g} % may fail for all that is known"
    )


# ------------------------------------------------------------------------------------------------- bake


def confident_sentence(proof: Boundary, rate: float) -> str:
    """Why a wave passes before its bake is over."""
    return (
        f"Early: {proof.good} confirmed among its first {proof.places} places prove, at 95 %, that fewer than"
        f" {percent(rate)} fail."
    )


def not_confident_sentence(last: Boundary, needed: int | None, rate: float) -> str:
    """What the early door waits for; ``needed``: confirmations among all places that open it, None when not even all
    would."""
    if needed is None:
        fewest = devices(reports_needed(0, rate))
        return (
            f"It cannot pass earlier: to prove that fewer than {percent(rate)} fail takes {fewest} without a failure."
        )
    return f"It passes earlier once {needed} of its {last.places} places are confirmed; {last.good} are."


# ------------------------------------------------------------------------------------------------- deltas


def ready_sentence(deltas: DeltaFacts) -> str:
    """``2 of 3 deltas are ready, for 8 of 10 devices``."""
    noun = _one_or_more(deltas.pairs, "delta", "deltas")
    ready = f"{deltas.ready} of {deltas.pairs} {noun} {_of(deltas.ready, deltas.pairs, 'is', 'are')} ready"
    return f"{ready}, for {deltas.covered} of {devices(deltas.devices)}"


def missing_sentence(deltas: DeltaFacts, cover: float) -> str:
    """Why the delta gate keeps a wave shut."""
    failed = f", {deltas.failed} could not be built (`wave delta list`)" if deltas.failed else ""
    return f"{ready_sentence(deltas)}; {percent(cover)} must be covered{failed}."


def covered_sentence(deltas: DeltaFacts | None, rules: WaveRules) -> str:
    """With which deltas a wave opens, and what becomes of the rest."""
    if deltas is None:
        return "No device of it needs a delta."
    said = ready_sentence(deltas) if deltas.devices else "No device of it needs a delta"
    if deltas.covered < deltas.devices:
        if deltas.coverage >= rules.cover:
            said += f"; {percent(rules.cover)} had to be covered"
        else:
            rest = "are served whole" if rules.otherwise is Otherwise.FULL else "wait for their delta"
            said += f"; the time for the others is over: they {rest}"
    said += "."
    if deltas.unknown:
        whole = _one_or_more(deltas.unknown, "is", "are") + " served whole"
        what = (
            whole if rules.from_unknown is FromUnknown.FULL else _one_or_more(deltas.unknown, "is", "are") + " left out"
        )
        said += f" {devices(deltas.unknown)} with a commit that the repository does not have {what}."
    return said
