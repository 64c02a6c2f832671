"""``wave plan``: what a rollout would do, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph, heading
from orchestrator.cli.render.words import building, digest, megabytes, minutes, number, percent, plural, short_clock
from orchestrator.core.gates import AtTheEnd
from orchestrator.core.outcomes import Outcome, in_order, word
from orchestrator.core.reasons import words
from orchestrator.services.views import PlannedDelta, PlannedGate, PlannedMonitor, PlannedWave, RolloutPlan


def plan(made: RolloutPlan) -> RenderableType:
    return Group(*_page(made))


def _page(made: RolloutPlan) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("Plan of ", ""),
        (made.rollout, "bold"),
        f": version {made.target_version} to {plural(made.devices, 'device')} of tag {made.tag}",
    )
    yield Paragraph(f"Policy {made.policy}; hardware {', '.join(made.hardware_ids) or 'none'}.", indent=2)
    if made.in_no_wave:
        yield Paragraph(f"{plural(made.in_no_wave, 'device')} of the tag in no wave.", indent=2)
    for warning in made.warnings:
        yield Paragraph(Text(f"! {warning}", style="yellow"), indent=2, hang=2)
    yield from _section("Waves", _waves(made.waves))
    yield from _section("Deltas", *_deltas(made))
    yield from _section("What each wave can tell: rates that it finds alone, nine times in ten", *_tells(made.waves))
    if made.monitors:
        yield from _section("What halts: so many bad, from a wave's first slice to its end", *_halts(made.waves))
        yield from _section("Monitors: so many bad in the first places, by mistake at most RISK", _monitors(made))
    if made.budgets:
        yield from _section("Budgets: hard stops, and how often a tolerable release hits one", _budgets(made))
    if made.pace:
        yield from _section("Pace", *[Paragraph(f"- {said}", indent=2, hang=2) for said in made.pace])
    yield from _section("Calendar (UTC)", *_calendar(made))
    notes = [Paragraph(f"- {note}", indent=2, hang=2) for note in made.notes]
    risk = f"- At a stop at most {plural(made.in_flight_risk, 'device')} may still be under way."
    yield from _section("Good to know", *notes, Paragraph(risk, indent=2, hang=2))


SHOWN: Final = 7
"""Steps of a staircase in a line."""
COLUMNS: Final = 4
"""Classes side by side in 80 columns."""
TELLS_LITTLE: Final = 0.2
"""A wave that finds nothing below this rate is told in words, too."""

T = TypeVar("T")


def _section(name: str, *parts: RenderableType) -> Iterator[RenderableType]:
    if parts:
        yield Text()
        yield heading(name)
        yield from parts


def _waves(waves: Sequence[PlannedWave]) -> Grid:
    grid = Grid(["~WAVE", ">DEVICES", ">SHARE", ">TOTAL", ">SEEN", "~SLICES", "~AFTER"], indent=2)
    for wave in waves:
        after = ", ".join(wave.after) or "the start"
        grid.add(
            wave.wave,
            number(wave.eligible),
            percent(wave.share),
            percent(wave.cumulative),
            number(wave.reachable),
            slices(wave.slices),
            after,
            under=list(_below(wave)),
        )
    return grid


def _below(wave: PlannedWave) -> Iterator[str]:
    if wave.promotion:
        yield "A person lets it open: `wave promote`."
    if wave.approvals:
        who = "Another person" if wave.approvals == 1 else f"{wave.approvals} other people"
        yield f"{who} than who wrote or starts it must approve it: `wave approve`."
    yield from map(_gate, wave.gates)
    if wave.already_there:
        runs = "runs" if wave.already_there == 1 else "run"
        yield f"{plural(wave.already_there, 'device')} of it {runs} it, or a newer version, already."


def _gate(gate: PlannedGate) -> str:
    good = f" for values {gate.bounds}" if gate.bounds else ""
    ends = "opens without it" if gate.otherwise == AtTheEnd.OPEN else "holds"
    return (
        f"Gate {gate.gate} asks {gate.asks} ({gate.kind}){good}, {gate.timeout} for an answer; after "
        f"{gate.at_most} without a yes the wave {ends}."
    )


def slices(sizes: Sequence[int]) -> str:
    """``20, 20, 40, …, 1,240``: the first three and the last."""
    if len(sizes) <= 5:
        return ", ".join(map(number, sizes)) or "-"
    return f"{', '.join(map(number, sizes[:3]))}, … {number(sizes[-1])}"


STYLES: Final = {"ready": "green", "whole": "green", "failed": "red", "no target": "red"}


def _deltas(made: RolloutPlan) -> Iterator[RenderableType]:
    merged: dict[tuple[str | None, str], PlannedDelta] = {}
    count: dict[tuple[str | None, str], int] = {}
    first: dict[tuple[str | None, str], str] = {}
    for wave in made.waves:
        for delta in wave.deltas:
            key = delta.from_commit, delta.to_commit
            merged.setdefault(key, delta)
            first.setdefault(key, wave.wave)
            count[key] = count.get(key, 0) + delta.devices
    if not merged:
        unseen = any(wave.reachable < wave.eligible for wave in made.waves)
        who = "no device that has been seen lately" if unseen else "no device"
        yield Paragraph(f"None: {who} needs one.", indent=2)
        return
    grid = Grid(["FROM -> TO", "~HARDWARE", ">DEVICES", ">MB", ">WITHOUT", ">MIN", "STATE", "~FIRST IN"], indent=2)
    for key, delta in merged.items():
        source = str(delta.from_version) if delta.from_version is not None else digest(delta.from_commit)[:8]
        lacking = delta.state in ("unknown", "no target")
        whole = "-" if delta.state == "no target" else megabytes(delta.loose_bytes)
        grid.add(
            f"{source} -> {made.target_version}",
            ", ".join(delta.hardware_ids),
            number(count[key]),
            "-" if lacking else megabytes(delta.bytes),
            whole,
            "-" if lacking or delta.state in ("ready", "whole") else minutes(delta.build_seconds),
            Text(delta.state, style=STYLES.get(delta.state, "")),
            first[key],
        )
    yield grid
    if any(delta.state == "whole" for delta in merged.values()):
        yield Paragraph(
            "whole: no delta is made, because none is smaller than the content, or nothing here makes one for it "
            "(`delta_program` in the settings). Their devices fetch everything, and no wave waits for them.",
            indent=2,
        )
    if not made.bytes_without:
        return
    saved = 1 - made.bytes_with / made.bytes_without
    yield Paragraph(
        f"In all {megabytes(made.bytes_with)} MB instead of {megabytes(made.bytes_without)} MB "
        f"({percent(max(0.0, saved))} less), {building(60 * made.build_minutes)} of building.",
        indent=2,
    )


def _tells(waves: Sequence[PlannedWave]) -> Iterator[RenderableType]:
    """Rates by class, and in words what a wave of few devices cannot tell."""
    outcomes = in_order(outcome for wave in waves for outcome in wave.detectable)
    for some in _in_columns(outcomes):
        grid = Grid(["~WAVE", ">DEVICES", *(f">{words((outcome,)).upper()}" for outcome in some)], indent=2)
        for wave in waves:
            rates = (wave.detectable.get(outcome) for outcome in some)
            grid.add(wave.wave, number(wave.eligible), *("not" if rate is None else percent(rate) for rate in rates))
        yield grid
    if not outcomes:
        yield Paragraph("Nothing: no monitor halts.", indent=2)
    for wave in waves:
        best = min((rate for rate in wave.detectable.values() if rate is not None), default=1.0)
        little = f"{wave.word}." if wave.word and best > TELLS_LITTLE else ""
        if said := " ".join(part for part in (little, wave.early) if part):
            yield Paragraph(Text.assemble((wave.wave, "bold"), f": {said}"), indent=2, hang=2)


def _in_columns(all_of: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many as stand side by side."""
    for first in range(0, len(all_of), COLUMNS):
        yield all_of[first : first + COLUMNS]


def _halts(waves: Sequence[PlannedWave]) -> Iterator[Grid]:
    """How many bad devices halt while each wave grows."""
    classes = list(dict.fromkeys(halt.outcomes for wave in waves for halt in wave.halts))
    for some in _in_columns(classes):
        grid = Grid(["~WAVE", ">PLACES", *(f">{words(outcomes).upper()}" for outcomes in some)], indent=2)
        before = 0
        for wave in waves:
            places = f"{number(before + 1)}-{number(before + wave.eligible)}" if wave.eligible else "none"
            before += wave.eligible
            grid.add(wave.wave, places, *(_counts(wave, outcomes, own=False) for outcomes in some))
            if any(halt.own for halt in wave.halts):
                grid.add("", "of its own", *(_counts(wave, outcomes, own=True) for outcomes in some))
        yield grid


def _counts(wave: PlannedWave, outcomes: tuple[Outcome, ...], *, own: bool) -> str:
    """``4-9``: from its first slice to its end."""
    for halt in wave.halts:
        if (halt.outcomes, halt.own) == (outcomes, own) and halt.last:
            first, last = halt.first, halt.last
            return number(last) if first == last else f"{number(first) if first else 'none'}-{number(last)}"
    return "none"


def _monitors(made: RolloutPlan) -> Grid:
    """A row for each staircase: monitors of one class that start anew at several waves have the same."""
    grid = Grid(["~CLASS", "~OVER", ">TOLERATED", ">RISK", "THEN"], indent=2)
    alike: dict[tuple[object, ...], list[PlannedMonitor]] = {}
    for monitor in made.monitors:
        kind = monitor.scope.partition(":")[0]
        alike.setdefault((monitor.outcomes, kind, monitor.tolerance, monitor.alpha, monitor.answer), []).append(monitor)
    for group in alike.values():
        first = group[0]
        longest = max(group, key=lambda each: len(each.limits))
        grid.add(
            words(first.outcomes),
            _over(group),
            f"{100 * first.tolerance:g}%",
            f"{100 * first.alpha:.2g}%",
            first.answer,
            under=[_steps(longest.limits)],
        )
    return grid


def _over(group: Sequence[PlannedMonitor]) -> str:
    kind, _, name = group[0].scope.partition(":")
    if len(group) == 1:
        return f"{kind} {name}".strip()
    return f"each of {len(group)} {kind}s"


def _steps(limits: Sequence[tuple[int, int]]) -> str:
    """``2 in 5, 3 in 16, 4 in 33 …``."""
    shown = ", ".join(f"{number(bad)} in {number(place)}" for bad, place in limits[:SHOWN])
    return f"{shown} …" if len(limits) > SHOWN else shown


def _budgets(made: RolloutPlan) -> Grid:
    grid = Grid(["~BUDGET", ">AT", "THEN", ">AT TOLERANCE", ">AT HALF"], indent=2)
    for budget in made.budgets:
        grid.add(
            " or ".join(word(outcome) for outcome in budget.budget.split("+")),
            number(budget.limit),
            budget.answer,
            chance(budget.chance_at_tolerance),
            chance(budget.chance_at_half),
        )
    return grid


def chance(value: float) -> str:
    """``0.1%``; what is smaller than one in ten thousand is said so."""
    return "<0.01%" if 0 < value < 0.0001 else f"{100 * value:.2g}%"


def _calendar(made: RolloutPlan) -> Iterator[RenderableType]:
    grid = Grid(["~WAVE", "OPENS", "ENDS AT ONCE", "LIKELY", "AT THE LATEST"], indent=2)
    for wave in made.waves:
        ends = (short_clock(at) for at in wave.ends)
        by_hand = ["and not before a person promotes it"] if wave.promotion else []
        grid.add(wave.wave, short_clock(wave.opens.earliest), *ends, under=by_hand)
    whole = (made.earliest_end, made.likely_end, made.latest_end)
    grid.add(Text("all", style="bold"), "", *(short_clock(at) for at in whole))
    yield grid
    yield Paragraph(made.assumes, indent=2)
    yield Paragraph("At the latest a wave has passed, or it holds for a person.", indent=2)
