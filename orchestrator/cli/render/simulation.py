"""What a simulation came to, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph, heading
from orchestrator.cli.render.words import number, plural
from orchestrator.core.outcomes import Outcome
from orchestrator.core.reasons import names
from orchestrator.core.states import ReasonKind
from orchestrator.services.simulation.scenarios import scenario
from orchestrator.services.simulation.study import Asked
from orchestrator.services.simulation.summary import Chance, Quantiles, Summary, figure, share_words

MOST_CAUSES: Final = 4


def page(asked: Asked, found: Sequence[Summary]) -> RenderableType:
    """A table with a column for each policy."""
    first = found[0]
    about = f"{plural(first.runs, 'rollout')} to {plural(first.fleet, 'device')}, scenario {first.scenario}"
    parts: list[RenderableType] = [heading(about), Paragraph(scenario(asked.scenario).sentence)]
    parts.append(Paragraph(f"Waves: {asked.waves}." if asked.spec is None else f"The waves of {asked.spec.name}."))
    if asked.fail is not None:
        parts.append(Paragraph(f"Where trouble strikes, {100 * asked.fail:g} % fail."))
    grid = Grid(["WHAT", *(f">{each.policy.upper()}" for each in found)])
    halt = "chance of a false halt" if first.false_halts else "chance of a halt"
    _chances(grid, halt, found, lambda each: each.halted)
    _chances(grid, "chance of a hold", found, lambda each: each.held)
    _chances(grid, "chance to complete", found, lambda each: each.completed)
    _quantiles(grid, "devices failed before the halt", found, lambda each: each.failed)
    _quantiles(grid, "failing, still under way then", found, lambda each: each.doomed)
    _quantiles(grid, "devices exposed at the halt", found, lambda each: each.exposed)
    _quantiles(grid, "hours to the halt", found, lambda each: each.hours_to_halt)
    _quantiles(grid, "hours to the end", found, lambda each: each.hours)
    parts += [Text(), grid, Text()]
    for each in found:
        if each.causes:
            said = ", ".join(f"{why(cause)} in {number(many)}" for cause, many in each.causes[:MOST_CAUSES])
            parts.append(Paragraph(f"{each.policy}: {said} of {plural(each.runs, 'run')}.", hang=2))
        if each.excluded:
            said = ", ".join(f"{segment} in {number(many)}" for segment, many in each.excluded[:MOST_CAUSES])
            parts.append(Paragraph(f"{each.policy}: excluded {said} of {plural(each.runs, 'run')}.", hang=2))
        if each.not_drawn:
            parts.append(Paragraph(f"{each.policy}: {not_drawn_sentence(each.not_drawn)}", hang=2))
        if each.taken_for_granted:
            parts.append(Paragraph(f"{each.policy}: {granted_sentence(each.taken_for_granted)}", hang=2))
    remarks = "Intervals are exact at 95 %. Three figures are the 10 %, 50 % and 90 % quantiles."
    parts.append(Paragraph(remarks if asked.budgets else f"Without budgets. {remarks}"))
    return Group(*parts)


_STOPS: Final[Mapping[ReasonKind, str]] = {
    ReasonKind.SEGMENT: "by a segment that failed",
    ReasonKind.EMPTY: "at a wave without devices",
    ReasonKind.SLICE_INCONCLUSIVE: "at a slice without enough outcomes in its time",
    ReasonKind.AMBER: "before a wave, by a monitor that stayed amber",
    ReasonKind.BAKE_INCONCLUSIVE: "at a bake that was over and could not pass",
    ReasonKind.FIRST_BAD: "by the first bad device of a small wave",
    ReasonKind.SILENCE: "by the clock of silence",
    ReasonKind.ENVIRONMENT: "by the clock of silence, with untouched devices dark too",
}


def why(cause: str) -> str:
    """How runs came to a stop: ``held bake_inconclusive`` in words."""
    ending, _, what = cause.partition(" ")
    if what in _STOPS:
        return f"{ending} {_STOPS[ReasonKind(what)]}"
    name = what.removeprefix("budget:")
    if name != what:
        return f"{ending} by the budget for {name}"
    return f"{ending} by {what}" if "/" in what else f"{ending} {what.replace('_', ' ')}".rstrip()


def not_drawn_sentence(classes: Sequence[Outcome]) -> str:
    return (
        f"no device came to {names(classes)}: simulated devices say no error codes and verify nothing. Of the "
        "tolerances for that this says nothing."
    )


def granted_sentence(what: Sequence[str]) -> str:
    return (
        f"taken for given at once: {', '.join(what)}. Nobody is asked here; every hour that a person or a gate takes "
        "comes on top."
    )


def as_object(asked: Asked, found: Sequence[Summary]) -> dict[str, Any]:
    """The same for programs: shares as numbers from 0 to 1, times in hours."""
    return {
        "scenario": asked.scenario,
        "fleet": asked.fleet,
        "fail": asked.fail,
        "offline": asked.offline,
        "history": asked.history,
        "seeds": asked.runs,
        "seed": asked.seed,
        "budgets": asked.budgets,
        "policies": [_policy(each) for each in found],
    }


def _policy(found: Summary) -> dict[str, Any]:
    return {
        "policy": found.policy,
        "a_halt_is_false": found.false_halts,
        "halted": _chance(found.halted),
        "held": _chance(found.held),
        "completed": _chance(found.completed),
        "unfinished": _chance(found.unfinished),
        "failed_before_halt": _spread(found.failed),
        "failing_under_way_at_halt": _spread(found.doomed),
        "exposed_at_halt": _spread(found.exposed),
        "hours_to_halt": _spread(found.hours_to_halt),
        "hours_to_end": _spread(found.hours),
        "excluded": dict(found.excluded),
        "causes": dict(found.causes),
        "not_drawn": list(found.not_drawn),
        "taken_for_granted": list(found.taken_for_granted),
    }


def _chance(found: Chance) -> dict[str, Any]:
    return {"runs": found.hits, "share": found.share, "low": found.low, "high": found.high}


def _spread(found: Quantiles | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"runs": found.runs, "q10": found.low, "q50": found.median, "q90": found.high}


def _chances(grid: Grid, what: str, found: Sequence[Summary], of: Callable[[Summary], Chance]) -> None:
    grid.add(what, *(_share(of(each)) for each in found))


def _share(found: Chance) -> str:
    return f"{share_words(found.share)} ({figure(100 * found.low)} to {figure(100 * found.high)})"


def _quantiles(grid: Grid, what: str, found: Sequence[Summary], of: Callable[[Summary], Quantiles | None]) -> None:
    if any(of(each) is not None for each in found):
        grid.add(what, *(_three(of(each)) for each in found))


def _three(found: Quantiles | None) -> str:
    if found is None:
        return "-"
    return " / ".join(map(figure, found[1:]))
