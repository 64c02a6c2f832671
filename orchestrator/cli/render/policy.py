"""Policies for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.words import span
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.window import WEEKDAYS


def policies(found: Sequence[Policy]) -> RenderableType:
    grid = Grid(["~POLICY", ">FAILED", ">ROLLED", ">BAKE", ">AT MOST", "PROMOTE", "WINDOW", "~DELTAS"])
    for each in found:
        tolerated = each.tolerances
        window = "always" if each.window is None else days(each.window.document().get("days", []))
        grid.add(
            each.name,
            f"{100 * tolerated[OutcomeClass.FAILED].at_most:g}%",
            f"{100 * tolerated[OutcomeClass.ROLLED_BACK].at_most:g}%",
            span(each.bake.at_least),
            span(each.bake.at_most),
            each.promote.value,
            window,
            f"{100 * each.deltas.cover:g}% or {each.deltas.otherwise}",
        )
    return grid


def days(names: Sequence[str]) -> str:
    """``mon-thu`` for four days in a row, ``mon,wed`` for others, ``by hours`` for all."""
    places = [WEEKDAYS.index(name) for name in names]
    if len(places) in (0, 7):
        return "by hours"
    in_a_row = len(places) > 2 and places == list(range(places[0], places[0] + len(places)))
    return f"{names[0]}-{names[-1]}" if in_a_row else ",".join(names)


def policy(found: Policy) -> RenderableType:
    import yaml

    return Text(yaml.safe_dump(found.document(), sort_keys=False, allow_unicode=True, default_flow_style=None).rstrip())
