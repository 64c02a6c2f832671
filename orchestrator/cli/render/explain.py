"""``wave explain``: why a rollout stands where it stands and what would move it; why a device has an offer or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph, heading
from orchestrator.cli.render.rollout import counting, header, silence
from orchestrator.cli.render.words import ago, clock, digest, more, plural, span, status
from orchestrator.core.facts import MonitorFacts
from orchestrator.core.offers import NoOfferKind
from orchestrator.core.outcomes import Answer
from orchestrator.core.protocols import NOTHING_SPOKEN
from orchestrator.core.reasons import apart_sentence, budget_sentence, monitor_state
from orchestrator.core.states import ROLLOUT_MEANING, UNFINISHED, WAVE_MEANING, RolloutStatus, WaveStatus
from orchestrator.services.views import DeviceView, RolloutView, WhyNot

SHOWN_OF_TOLD: Final = 300
"""Characters of what a device told of itself that people are shown; JSON has all that is kept."""


def rollout(view: RolloutView, now: datetime) -> RenderableType:
    return Group(*_rollout(view, now))


def _rollout(view: RolloutView, now: datetime) -> Iterator[RenderableType]:
    yield from header(view, now)
    yield Paragraph(Text(ROLLOUT_MEANING[view.summary.status], style="dim"), indent=2)
    yield from _section("Waves", _waves(view, now))
    yield from _section("Evidence", _evidence(view))
    yield from _section("Pace", iter(view.pace))
    yield from _section("Advances when", _now_and(view.outlook.now, view.outlook.advances))
    yield from _section("Halts when", iter(view.outlook.halts))
    yield from _section("Excludes a segment when", iter(view.outlook.excludes))
    yield from _section("Holds when", iter(view.outlook.holds))
    if view.outlook.looks_again:
        yield Text()
        yield Paragraph(view.outlook.looks_again)


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
        else:
            why = state.standing.reason
            pending = state.status is WaveStatus.PENDING  # nothing has been decided of it yet
            sentence = WAVE_MEANING[state.status] if pending else why.sentence or WAVE_MEANING[state.status]
            told = f"{state.status} for {span(now - state.standing.since)}. {sentence}"
        yield Text.assemble((state.wave, "bold"), f": {told}")


def _now_and(now: Sequence[str], advances: Sequence[str]) -> Iterator[str]:
    for sentence in now:
        yield f"Now: {sentence}"
    yield from advances


def _evidence(view: RolloutView) -> Iterator[str | Text]:
    quiet: list[str] = []
    for monitor in counting(view):
        if not monitor.bad and not monitor.amber and monitor.crossed_at is None:
            if not monitor.accepted:  # one that began anew goes by the same name
                quiet.append(monitor.monitor)
            continue
        said = monitor_state(monitor, view.steps.get(monitor.monitor))
        yield Text(f"{monitor.monitor}: {said}.", style=_style(monitor))
    for budget in view.budgets:
        if budget.reached:
            yield Text(f"budget/{budget.name}: {budget_sentence(budget)}", style="red")
        elif budget.bad:
            left = budget.limit - (budget.bad - budget.base)
            most = budget.limit + budget.base - 1
            yield f"budget/{budget.name}: {budget.bad} of at most {most}, {more(left, _stop(budget.answer))}."
    if view.clock is not None:
        yield silence(view.clock)
    places = max((monitor.places for monitor in view.monitors), default=0)
    if quiet and places:
        yield f"{', '.join(quiet)}: nothing bad among {plural(places, 'place')}."
    elif quiet:
        yield "None yet: nobody has been offered the Target."
    if said := apart_sentence(view.apart):
        yield said


def _style(monitor: MonitorFacts) -> str:
    if monitor.accepted:
        return "dim"
    return "red" if monitor.crossed_at else "yellow" if monitor.amber else ""


def _stop(answer: Answer) -> str:
    return "count" if answer is Answer.COUNT else answer.value


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
    if view.spoken != NOTHING_SPOKEN:
        highest = view.spoken.highest_version
        ran = "" if highest is None else f"; the highest version it has run is {highest}"
        yield Paragraph(f"Speaks {view.spoken.protocol}{ran}", indent=2)
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
    if view.told:
        yield Text()
        yield heading("What it told of itself")
        for told in view.told:
            text = " ".join(told.text.split())
            shown = text if len(text) <= SHOWN_OF_TOLD else f"{text[:SHOWN_OF_TOLD]}… ({told.size:,} bytes)"
            yield Paragraph(f"{clock(told.received_at, now)}  {told.topic}: {shown}", indent=2, hang=4)
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
    if why.kind == NoOfferKind.WAVE:
        for sentence in why.waits:
            yield Paragraph(sentence, indent=2)
    for sentence in why.why_wave:
        yield Paragraph(f"Wave {sentence}" if why.wave is not None else sentence, indent=2, hang=2)
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
