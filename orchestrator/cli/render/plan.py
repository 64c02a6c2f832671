"""``wave plan``: what a rollout would do, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph, heading
from orchestrator.cli.render.words import building, digest, megabytes, minutes, number, percent, plural, short_clock
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.reasons import words
from orchestrator.services.views import PlannedDelta, PlannedWave, RolloutPlan


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
    yield from _section("What each wave can tell", *_detects(made.waves))
    if made.monitors:
        yield from _section(
            "Monitors: so many bad among the first places, and by mistake at most RISK", _monitors(made)
        )
    if made.budgets:
        yield from _section("Budgets: hard stops, and how often a tolerable release hits one", _budgets(made))
    yield from _section("Calendar (UTC)", _calendar(made))
    notes = [Paragraph(f"- {note}", indent=2, hang=2) for note in made.notes]
    risk = f"- At a stop at most {plural(made.in_flight_risk, 'device')} may still be under way."
    yield from _section("Good to know", *notes, Paragraph(risk, indent=2, hang=2))


SHOWN: Final = 3
"""Steps of a staircase in a line."""


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
    if wave.already_there:
        runs = "runs" if wave.already_there == 1 else "run"
        yield f"{plural(wave.already_there, 'device')} of it {runs} it, or a newer version, already."


def slices(sizes: Sequence[int]) -> str:
    """``20, 20, 40, …, 1,240``: the first three and the last."""
    if len(sizes) <= 5:
        return ", ".join(map(number, sizes)) or "-"
    return f"{', '.join(map(number, sizes[:3]))}, … {number(sizes[-1])}"


STYLES: Final = {"ready": "green", "failed": "red", "no target": "red"}


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
        yield Paragraph("None: no device needs one.", indent=2)
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
            "-" if lacking or delta.state == "ready" else minutes(delta.build_seconds),
            Text(delta.state, style=STYLES.get(delta.state, "")),
            first[key],
        )
    yield grid
    if not made.bytes_without:
        return
    saved = 1 - made.bytes_with / made.bytes_without
    yield Paragraph(
        f"In all {megabytes(made.bytes_with)} MB instead of {megabytes(made.bytes_without)} MB "
        f"({percent(max(0.0, saved))} less), {building(60 * made.build_minutes)} of building.",
        indent=2,
    )


def _detects(waves: Sequence[PlannedWave]) -> Iterator[RenderableType]:
    for wave in waves:
        yield Paragraph(Text.assemble((wave.wave, "bold"), f": {detects(wave)}"), indent=2, hang=2)


def detects(wave: PlannedWave) -> str:
    """In plain words, what this wave's devices alone can tell."""
    if not wave.eligible:
        return "has no device, so it tells nothing."
    parts: list[str] = []
    if wave.word:
        parts.append(f"{wave.word.strip().rstrip('.')}.")
    halts = [f"{count} {name}" for name, count in wave.first_halt.items() if count]
    if halts:
        parts.append(f"In its first slice {' or '.join(halts)} halt.")
    found = [f"{_noun(c)} from {percent(rate)}" for c, rate in wave.detectable.items() if rate is not None]
    if found:
        parts.append(f"Nine times in ten it finds {' and '.join(found)} on.")
    blind = tuple(c for c, rate in wave.detectable.items() if rate is None)
    if blind:
        parts.append(f"It cannot tell devices that are {words(blind)}, not even if all are.")
    return " ".join(parts) or "no monitor halts by it."


def _noun(outcome: OutcomeClass) -> str:
    return {
        OutcomeClass.FAILED: "failures",
        OutcomeClass.ROLLED_BACK: "rollbacks",
        OutcomeClass.SILENT: "silence",
        OutcomeClass.IGNORED: "ignored offers",
        OutcomeClass.DOWNLOAD_FAILED: "failed downloads",
    }[outcome]


def _monitors(made: RolloutPlan) -> Grid:
    grid = Grid(["~MONITOR", ">TOLERATED", ">RISK", "AT", "THEN"], indent=2)
    for monitor in made.monitors:
        steps = ", ".join(f"{bad} in {place:,}" for bad, place in monitor.limits[:SHOWN]) + " …"
        grid.add(monitor.monitor, f"{100 * monitor.tolerance:g}%", f"{100 * monitor.alpha:.2g}%", steps, monitor.answer)
    return grid


def _budgets(made: RolloutPlan) -> Grid:
    grid = Grid(["~BUDGET", ">AT", "THEN", ">AT TOLERANCE", ">AT HALF"], indent=2)
    for budget in made.budgets:
        grid.add(
            budget.budget.replace("_", " "),
            number(budget.limit),
            budget.answer,
            chance(budget.chance_at_tolerance),
            chance(budget.chance_at_half),
        )
    return grid


def chance(value: float) -> str:
    """``0.1%``; what is smaller than one in ten thousand is said so."""
    return "<0.01%" if 0 < value < 0.0001 else f"{100 * value:.2g}%"


def _calendar(made: RolloutPlan) -> Grid:
    grid = Grid(["~WAVE", "OPENS", "PASSES", "AT THE LATEST"], indent=2)
    for wave in made.waves:
        promoted = " + a person" if wave.promotion else ""
        grid.add(
            wave.wave, short_clock(wave.opens) + promoted, short_clock(wave.passes), short_clock(wave.at_the_latest)
        )
    grid.add(Text("all", style="bold"), "", short_clock(made.earliest_end), short_clock(made.latest_end))
    return grid
