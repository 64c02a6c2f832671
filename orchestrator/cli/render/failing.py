"""``wave top``: what the bad devices of a rollout have in common, as bars."""

from __future__ import annotations

from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, heading
from orchestrator.cli.render.words import number, percent, plural
from orchestrator.services.failing import Failing

_BAR = 20


def page(found: Failing) -> RenderableType:
    if not found.looked_at:
        return Text(f"Nothing bad in rollout {found.rollout}.")
    some = f"; of {number(found.looked_at)} that were looked at" if found.looked_at < found.bad else ""
    parts: list[RenderableType] = [
        Text.assemble((found.rollout, "bold"), f"  {plural(found.bad, 'device')} with a bad outcome{some}")
    ]
    for kind, commons in groupby(found.commons, key=lambda each: each.kind):
        parts += [Text(), heading(f"By {kind}")]
        grid = Grid(["~", ">", "", ">"], indent=2)
        for each in commons:
            share = each.devices / found.looked_at
            grid.add(
                each.value,
                number(each.devices),
                Text("x" * max(1, round(_BAR * share)), style="red"),
                percent(share),
            )
        parts.append(grid)
    return Group(*parts)
