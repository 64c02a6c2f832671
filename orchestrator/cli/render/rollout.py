"""``wave list`` and ``wave status`` for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph
from orchestrator.cli.render.words import (
    MARK,
    STYLE,
    ago,
    clock,
    more,
    number,
    plural,
    span,
    status,
)
from orchestrator.core.evidence.clock import CLOCK, ClockFacts, reading
from orchestrator.core.evidence.crossing import Step
from orchestrator.core.facts import BudgetFacts, MonitorFacts
from orchestrator.core.outcomes import Answer
from orchestrator.core.reasons import apart_sentence, clock_state, step_of, words
from orchestrator.core.states import WATCHED_ROLLOUT, Reason, RolloutStatus, WaveStatus
from orchestrator.services.views import RolloutSummary, RolloutView, WaveView

BAR: Final = 10
ENDED: Final = frozenset({WaveStatus.FAILED, WaveStatus.CANCELLED, WaveStatus.SKIPPED})
"""Waves whose end is worth its reason."""

EXIT: Final = {
    RolloutStatus.HELD: 10,
    RolloutStatus.HALTED: 11,
    RolloutStatus.CANCELLED: 12,
    RolloutStatus.PAUSED: 13,
}
"""What ``wave status --exit-code`` ends with; 0 for every other status."""

TIMED_OUT: Final = 14
"""What ``wave status --watch --timeout`` ends with when the rollout is still under way."""


def rollouts(found: Sequence[RolloutSummary], now: datetime) -> RenderableType:
    if not found:
        return Text("No rollout yet. `wave apply FILE` makes one.")
    grid = Grid(["~NAME", ">VERSION", "~TAG", "STATUS", ">DEVICES", ">CONFIRMED", ">BAD", "SINCE"])
    for each in found:
        since = span(now - each.standing.since)
        bad = Text(number(each.bad), style="red" if each.bad else "")
        devices = "-" if each.status is RolloutStatus.DRAFT else number(each.devices)
        grid.add(
            each.rollout,
            each.target_version,
            each.tag,
            status(each.status),
            devices,
            number(each.confirmed),
            bad,
            since,
        )
    return grid


def rollout(view: RolloutView, now: datetime) -> RenderableType:
    """The whole page of ``wave status``."""
    return Group(*_page(view, now))


def _page(view: RolloutView, now: datetime) -> Iterator[RenderableType]:
    yield from header(view, now)
    yield Text()
    yield waves(view, now)
    lines = list(monitors(counting(view), view.budgets, view.steps))
    if lines and view.summary.status is not RolloutStatus.DRAFT:
        yield Text()
        yield from lines
    if said := apart_sentence(view.apart):
        yield Paragraph(f"   {said}", hang=3)
    if view.pace:
        yield Text()
        yield from (Paragraph(f"Pace: {sentence}", hang=6) for sentence in view.pace)
    if view.clock is not None and view.summary.status in WATCHED_ROLLOUT:
        yield Paragraph(silence(view.clock))
    if view.outlook.now or view.wake_at is not None:
        yield Text()
        yield from next_look(view, now)


def header(view: RolloutView, now: datetime) -> Iterator[RenderableType]:
    """Name, status, since, by, why; Target, tag, policy, devices."""
    s = view.summary
    since = f"  for {span(now - s.standing.since)}, since {clock(s.standing.since, now)}, by {s.standing.by}"
    yield Text.assemble((s.rollout, "bold"), "  ", status(s.status, loud=True), since)
    if s.standing.reason.sentence:
        yield Paragraph(s.standing.reason.sentence, indent=2)
    if view.frozen is not None:
        yield Paragraph(Text(f"! All offers are frozen: {view.frozen.sentence}", style="bold yellow"), indent=2)
    for reason, _until in view.waiting:
        if reason.sentence not in (s.standing.reason.sentence, view.frozen.sentence if view.frozen else ""):
            yield Paragraph(waiting_line(reason, _until, now), indent=2)
    for each in view.excluded:
        since = f"! Excluded {ago(each.standing.since, now)}, {plural(each.devices, 'device')}"
        said = f"{since}: {each.standing.reason.sentence}"
        yield Paragraph(Text(said, style="yellow"), indent=2, hang=2)
    for problem in view.problems:
        yield Paragraph(Text(f"! Not done yet, tried again: {problem}", style="yellow"), indent=2)
    attempt = f", attempt {view.attempt}" if view.attempt > 1 else ""
    counted = "" if s.status is RolloutStatus.DRAFT else f", {plural(s.devices, 'device')}"
    yield Paragraph(f"Target {s.target_version} to tag {s.tag} under policy {s.policy}{counted}{attempt}", indent=2)


def waiting_line(reason: Reason, at: datetime | None, now: datetime) -> str:
    """Why something waits, and until when where that is known and not said already."""
    return reason.sentence if at is None else f"{reason.sentence} Next by the clock: {clock(at, now)} ({ago(at, now)})."


def waves(view: RolloutView, now: datetime) -> Grid:
    grid = Grid(["", "~WAVE", "STATE", "", ">DEVICES", ">OFFERED", ">CONFIRMED", ">BAD", ">DELTAS"])
    for wave in view.waves:
        facts = wave.facts
        word = view.word_of(wave)
        deltas = "-" if facts.deltas is None else f"{facts.deltas.ready}/{facts.deltas.pairs}"
        bad = facts.bad_in_all
        grid.add(
            Text(MARK[word], style=STYLE.get(word, "")),
            wave.state.wave,
            status(word),
            bar(wave),
            number(size(wave)),
            number(facts.offered),
            number(facts.confirmed),
            Text(number(bad), style="red" if bad else ""),
            deltas,
            under=list(_below(wave, view.summary.standing.reason.sentence, now)),
        )
    return grid


def size(wave: WaveView) -> int | None:
    """Devices of the wave as far as they are known: with a place, waiting for one, or found at the last look; those of
    excluded segments are no part of it."""
    facts = wave.facts
    placed = facts.members - sum(piece.excluded for piece in facts.slices) + facts.waiting
    if facts.slices:
        return max(placed, facts.offered)
    return facts.eligible


def bar(wave: WaveView, width: int = BAR) -> Text:
    """Confirmed ``#``, bad ``x``, under way ``=``, not yet ``.``: readable without colour and without Unicode."""
    facts, whole = wave.facts, size(wave)
    if not whole:
        return Text("." * width, style="dim")
    bad = facts.bad_in_all
    parts = [("#", facts.confirmed, "green"), ("x", bad, "red"), ("=", max(0, facts.in_flight), "cyan")]
    made = Text()
    used = 0
    for sign, count, style in parts:
        cells = min(width - used, max(1, round(width * count / whole))) if count else 0
        made.append(sign * cells, style=style)
        used += cells
    made.append("." * (width - used), style="dim")
    return made


def _below(wave: WaveView, said: str, now: datetime) -> Iterator[str | Text]:
    state = wave.state
    if state.hold is not None:
        yield Text(f"Held for {span(now - state.hold.since)}: {state.hold.reason.sentence}", style="yellow")
    elif state.status in ENDED and state.standing.reason.sentence != said:
        yield state.standing.reason.sentence
    for reason, at in wave.waiting:
        if state.hold is None or reason.sentence != state.hold.reason.sentence:
            yield waiting_line(reason, at, now)
    deltas = wave.facts.deltas
    if deltas is not None and deltas.failed:
        yield Text(f"{plural(deltas.failed, 'delta')} could not be built: `wave delta list --failed`.", style="red")
    if deltas is not None and deltas.unknown:
        yield f"{plural(deltas.unknown, 'device')} on a commit that the repository does not have."


def counting(view: RolloutView) -> list[MonitorFacts]:
    """The monitors that still say something: those of excluded segments have said it."""
    excluded = {each.segment for each in view.excluded}
    return [each for each in view.monitors if each.segment not in excluded]


def monitors(
    found: Sequence[MonitorFacts], budgets: Sequence[BudgetFacts], steps: Mapping[str, Step]
) -> Iterator[RenderableType]:
    """Monitors and budgets that have something to say, a line each; the quiet ones together in one."""
    watching = [each for each in found if each.answer is not Answer.COUNT]
    loud = [each for each in watching if each.bad or each.amber or each.crossed_at is not None]
    spent = [each for each in budgets if each.bad]
    if loud or spent:
        grid = Grid(["", "^MONITOR", ">BAD", ">PLACES", "NEXT", ">TOLERATED"])
        for each in loud:
            _monitor(grid, each, steps.get(each.monitor))
        for budget in spent:
            _budget(grid, budget)
        yield grid
    told = {each.outcomes for each in loud}
    quiet = list(dict.fromkeys(words(each.outcomes) for each in watching if each.outcomes not in told))
    places = max((each.places for each in watching), default=0)
    if quiet and places:
        yield Paragraph(f"+  Among {plural(places, 'place')} none is {_or(quiet)}.", hang=3)


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _monitor(grid: Grid, each: MonitorFacts, step: Step | None) -> None:
    crossed = each.crossed_at is not None and not each.accepted
    amber = each.amber and not each.accepted
    style = "red" if crossed else "yellow" if amber else ""
    grid.add(
        Text("x" if crossed else "!" if amber else "+", style=style or "green"),
        each.monitor,
        Text(str(each.bad), style=style),
        number(each.places),
        Text(monitor_next(each, step), style=style),
        f"{100 * each.tolerance:g}%",
    )


def _budget(grid: Grid, each: BudgetFacts) -> None:
    left = each.limit - (each.bad - each.base)
    style = "red" if each.reached else ""
    grid.add(
        Text("x" if each.reached else "+", style=style or "green"),
        f"budget/{each.name}",
        Text(str(each.bad), style=style),
        "",
        Text(f"used up: {each.answer}s" if each.reached else more(left, each.answer), style=style),
        f"{each.limit + each.base - 1} at most",
    )


def monitor_next(each: MonitorFacts, step: Step | None) -> str:
    """What decides next, in a few words."""
    if each.accepted:
        return "accepted by a person" if each.crossed_at is not None else "closed by an order"
    if each.crossed_at is not None:
        count, place = each.crossed_at
        return f"crossed: {count} within {place}"
    more, within, there = step_of(each, step)
    return f"{there + more} within {number(within)} {'exclude it' if each.segment else each.answer}"


def silence(facts: ClockFacts) -> Text:
    """The clock test for silence in one line."""
    found = reading(facts)
    style = "" if found is None else "red" if found.crossed else "yellow" if found.amber else ""
    return Text(f"{CLOCK}: {clock_state(facts)}.", style=style)


def next_look(view: RolloutView, now: datetime) -> Iterator[RenderableType]:
    for sentence in view.outlook.now:
        yield Paragraph(f"Next: {sentence}", hang=6)
    if view.wake_at is not None and view.summary.status in (RolloutStatus.RUNNING, RolloutStatus.SCHEDULED):
        yield Paragraph(f"Looks again with the next report, or {ago(view.wake_at, now)} ({clock(view.wake_at, now)}).")


def one_line(view: RolloutView, now: datetime) -> str:
    """A status for logs: what ``--watch`` repeats when nobody sits before a terminal."""
    s = view.summary
    now_at = [
        f"{wave.state.wave}={'held' if wave.state.hold else wave.state.status.value}"
        for wave in view.waves
        if wave.state.status is not WaveStatus.PENDING
    ]
    return (
        f"{now:%Y-%m-%dT%H:%M:%SZ} {s.rollout} {s.status} offered={s.offered} confirmed={s.confirmed} bad={s.bad} "
        f"{' '.join(now_at)}".rstrip()
    )
