"""Policies for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.words import span
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Policy


def policies(found: Sequence[Policy]) -> RenderableType:
    grid = Grid(["~POLICY", ">FAILED", ">ROLLED BACK", ">BAKE", ">AT MOST", "PROMOTE", "WINDOW", "~DELTAS"])
    for each in found:
        tolerated = each.tolerances
        window = "always" if each.window is None else each.window.document().get("days", "hours")
        grid.add(
            each.name,
            f"{100 * tolerated[OutcomeClass.FAILED].at_most:g}%",
            f"{100 * tolerated[OutcomeClass.ROLLED_BACK].at_most:g}%",
            span(each.bake.at_least),
            span(each.bake.at_most),
            each.promote.value,
            str(window),
            f"{100 * each.deltas.cover:g}% or {each.deltas.otherwise}",
        )
    return grid


def policy(found: Policy) -> RenderableType:
    import yaml

    return Text(yaml.safe_dump(found.document(), sort_keys=False, allow_unicode=True, default_flow_style=None).rstrip())
