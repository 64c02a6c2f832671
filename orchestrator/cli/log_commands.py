"""``wave log``: what people ordered outside rollouts, and who."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import top


@top("log", "wave log", "wave log --limit 500 --json", panel="Watch")
def log(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="So many.", min=1, max=1_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what people ordered about devices, content and credentials, and who; the newest first."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import people

    with call.application() as house:
        found = house.house_log.events(limit=limit)
    if as_json:
        return call.answer("house_log", [people.house_shape(each) for each in found])
    call.show(people.house(found))
