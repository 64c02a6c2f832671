"""``wave explain``: why a rollout stands where it stands and what would move it; why a device has an offer or not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph, heading
from orchestrator.cli.render.rollout import counting, header, next_step, silence, waiting_line
from orchestrator.cli.render.words import ago, clock, digest, plural, span, status
from orchestrator.core.evidence.clock import CLOCK
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.reasons import budget_sentence, monitor_state
from orchestrator.core.safety import FIRST_BAD
from orchestrator.core.states import ROLLOUT_MEANING, WAVE_MEANING, ReasonKind, RolloutStatus, WaveStatus
from orchestrator.services.views import DeviceView, RolloutView, WhyNot

UNFINISHED: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING, WaveStatus.OPEN, WaveStatus.BAKING})
"""Waves that a cancelled rollout leaves as they stood."""


def rollout(view: RolloutView, now: datetime) -> RenderableType:
    return Group(*_rollout(view, now))


def _rollout(view: RolloutView, now: datetime) -> Iterator[RenderableType]:
    yield from header(view, now)
    yield Paragraph(Text(ROLLOUT_MEANING[view.summary.status], style="dim"), indent=2)
    yield from _section("Waves", _waves(view, now))
    yield from _section("Evidence", _evidence(view))
    yield from _section("Pace", iter(view.pace))
    yield from _section("Goes on when", _goes_on(view, now))
    yield from _section("Stops when", _stops(view))
    # A halted or cancelled one still counts silences; what they decide is nothing.
    if view.wake_at is not None and view.summary.status not in (RolloutStatus.HALTED, RolloutStatus.CANCELLED):
        yield Text()
        at = f"{clock(view.wake_at, now)} ({ago(view.wake_at, now)})"
        yield Paragraph(
            f"Looks again with the next report that counts, at the latest at {at};"
            " until then the same facts decide nothing new."
        )


def _section(name: str, lines: Iterator[str | Text]) -> Iterator[RenderableType]:
    found = list(lines)
    if found:
        yield Text()
        yield heading(name)
        for line in found:
            yield Paragraph(line, indent=2, hang=2)


def _waves(view: RolloutView, now: datetime) -> Iterator[str | Text]:
    for wave in view.waves:
        state = wave.state
        if view.summary.status is RolloutStatus.CANCELLED and state.status in UNFINISHED:
            told = f"was {state.status} when the rollout was cancelled."
        elif state.hold is not None:
            told = f"held for {span(now - state.hold.since)}: {state.hold.reason.sentence}"
        elif wave.waiting:
            told = f"{state.status}. " + " ".join(waiting_line(each, at, now) for each, at in wave.waiting)
        else:
            why = state.standing.reason.sentence or WAVE_MEANING[state.status]
            told = f"{state.status} for {span(now - state.standing.since)}. {why}"
        yield Text.assemble((state.wave, "bold"), f": {told}")


def _evidence(view: RolloutView) -> Iterator[str | Text]:
    quiet: list[str] = []
    for monitor in counting(view):
        if not monitor.bad and not monitor.amber and monitor.crossed_at is None:
            quiet.append(monitor.monitor)
            continue
        style = "red" if monitor.crossed_at and not monitor.accepted else "yellow" if monitor.amber else ""
        yield Text(f"{monitor.monitor}: {monitor_state(monitor)}.", style=style)
    for budget in view.budgets:
        if budget.reached:
            yield Text(f"budget/{budget.name}: {budget_sentence(budget)}", style="red")
        elif budget.bad:
            left = budget.limit - (budget.bad - budget.base)
            most = budget.limit + budget.base - 1
            yield f"budget/{budget.name}: {budget.bad} of at most {most}, {left} more {_stop(budget.answer)}."
    if view.clock is not None:
        yield silence(view.clock)
    places = max((monitor.places for monitor in view.monitors), default=0)
    if quiet and places:
        yield f"{', '.join(quiet)}: nothing bad among {plural(places, 'place')}."
    elif quiet:
        yield "None yet: nobody has been offered the Target."


def _goes_on(view: RolloutView, now: datetime) -> Iterator[str | Text]:
    s = view.summary
    for sentence in view.would:
        yield f"Now: {sentence}"
    match s.status:
        case RolloutStatus.DRAFT:
            yield f"A person starts it: `wave start {s.rollout}`."
        case RolloutStatus.PAUSED:
            yield f"A person resumes it: `wave resume {s.rollout}`."
        case RolloutStatus.HELD | RolloutStatus.HALTED:
            accepts = "".join(f" --accept {name}" for name in stopped_by(view))
            because = " --reason TEXT" if accepts else ""
            yield f"A person has looked and resumes it: `wave resume {s.rollout}{accepts}{because}`,"
            yield f"or ends it: `wave cancel {s.rollout}`."
        case RolloutStatus.COMPLETED | RolloutStatus.CANCELLED:
            yield "It has ended."
        case _:
            for wave in view.waves:
                held = wave.state.hold
                if held is not None:
                    name = wave.state.wave
                    yield (
                        f"{name} is held; a person lets it go on, `wave resume {s.rollout} --wave {name}`, or pass, "
                        f"`wave complete {s.rollout} {name}`."
                    )
                elif wave.state.status not in (WaveStatus.PENDING, WaveStatus.PASSED, WaveStatus.SKIPPED):
                    for reason, at in wave.waiting:
                        yield f"{wave.state.wave}: {waiting_line(reason, at, now)}"


def stopped_by(view: RolloutView) -> list[str]:
    """What a resume has to accept, by name."""
    first = [FIRST_BAD] if view.summary.standing.reason.kind is ReasonKind.FIRST_BAD else []
    if view.summary.standing.reason.kind is ReasonKind.SILENCE:
        first = [CLOCK]
    crossed = [m.monitor for m in counting(view) if m.crossed_at and not m.accepted and m.answer is not Answer.COUNT]
    return first + crossed + [f"budget/{b.name}" for b in view.budgets if b.reached]


def _stops(view: RolloutView) -> Iterator[str | Text]:
    if view.summary.status not in (
        RolloutStatus.RUNNING,
        RolloutStatus.PAUSED,
        RolloutStatus.COMPLETED,
        RolloutStatus.HELD,
    ):
        return
    for monitor in sorted(counting(view), key=lambda each: (each.segment is not None, each.answer is not Answer.HALT)):
        if monitor.wave is not None and not monitor.places:
            continue  # its wave has not opened
        if monitor.crossed_at is None and not monitor.accepted and monitor.answer is not Answer.COUNT:
            where = f" of wave {monitor.wave}" if monitor.wave else f" of {monitor.segment}" if monitor.segment else ""
            count, place = next_step(monitor)
            stops = "stops that segment" if monitor.segment else f"{_stop(monitor.answer)}s"
            yield (
                f"{stops}: {plural(count, 'device')} {_do(monitor.outcomes, count)} within the first "
                f"{place:,} places{where} ({monitor.bad} so far)"
            )
    for budget in sorted(view.budgets, key=lambda each: each.answer is not Answer.HALT):
        if not budget.reached:
            left = budget.limit - (budget.bad - budget.base)
            yield f"{_stop(budget.answer)}s: {plural(left, 'more device')} {_do(budget.outcomes, left)}, wherever"
    yield f"halts: a person says so, `wave halt {view.summary.rollout}`"


def _stop(answer: Answer) -> str:
    return "count" if answer is Answer.COUNT else answer.value


def _do(outcomes: tuple[OutcomeClass, ...], count: int) -> str:
    """What so many devices do: ``fails``, ``fail or roll back``."""
    said = [DOES[outcome][0 if count == 1 else 1] for outcome in outcomes]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


DOES: Final = {
    OutcomeClass.FAILED: ("fails", "fail"),
    OutcomeClass.ROLLED_BACK: ("rolls back", "roll back"),
    OutcomeClass.SILENT: ("stays silent", "stay silent"),
    OutcomeClass.IGNORED: ("ignores its offer", "ignore their offer"),
    OutcomeClass.DOWNLOAD_FAILED: ("cannot download", "cannot download"),
}


def device(view: DeviceView, now: datetime) -> RenderableType:
    return Group(*_device(view, now))


def _device(view: DeviceView, now: datetime) -> Iterator[RenderableType]:
    d = view.device
    yield Text.assemble((d.id, "bold"), "  ", status(d.status, loud=True), f"  seen {ago(d.last_seen_at, now)}")
    if d.held_because:
        yield Paragraph(f"Held: {d.held_because}", indent=2)
    runs = f"version {d.version}" if d.version is not None else "a version nobody knows"
    group = f", group {d.group}" if d.group else ""
    labels = "".join(f", {key}={value}" for key, value in sorted(d.labels.items()))
    yield Paragraph(f"{d.hardware_id} following {d.tag}{group}{labels}", indent=2)
    yield Paragraph(
        f"Runs {runs} (commit {digest(d.commit)}){'' if d.healthy else '; it says it is not healthy'}", indent=2
    )
    if not view.rollouts:
        yield Text()
        yield Paragraph("No rollout that could still offer anything is for this device.")
    for why in view.rollouts:
        yield Text()
        yield from _why(why)
    if view.updates:
        yield Text()
        grid = Grid(["~ROLLOUT", "STATUS", "WAVE", ">PLACE", "OFFERED", "CONFIRMED"])
        for name, row in view.updates:
            made = row.update
            grid.add(
                name,
                status(made.status),
                row.wave,
                row.places[0],
                clock(made.offered_at, now),
                clock(made.confirmed_at, now),
            )
        yield grid
    if view.events:
        yield Text()
        yield heading("Last events")
        for event in view.events:
            said = f": {event.message}" if event.message else ""
            code = f" [{event.code}]" if event.code else ""
            yield Paragraph(f"{clock(event.received_at, now)}  {event.kind}{code}{said}", indent=2, hang=4)


def _why(why: WhyNot) -> Iterator[RenderableType]:
    yield Text.assemble((f"Rollout {why.rollout}", "bold"), "  ", status(why.status))
    yield Paragraph(why.sentence, indent=2)
    parts = []
    if why.wave is not None:
        parts.append(f"wave {why.wave}" + (f" ({why.wave_status})" if why.wave_status is not None else ""))
    if why.slice is not None:
        parts.append(f"slice {why.slice}")
    if why.place is not None:
        parts.append(f"place {why.place:,}")
    if why.position is not None:
        parts.append(f"position {why.position:.4f}")
    if why.update is not None:
        parts.append(f"update {why.update.update.status.replace('_', ' ')}")
    if parts:
        yield Paragraph(", ".join(parts), indent=2)
