"""``wave replay``: what was decided, decided again."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.complete import policy_names, rollout_names
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import top


@top("replay", "wave replay lmp-42", "wave replay lmp-42 --policy emergency --json", panel="Watch")
def replay(
    ctx: typer.Context,
    rollout: Annotated[
        str, typer.Argument(metavar="ROLLOUT", help="The rollout's name.", autocompletion=rollout_names)
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="What this policy (a name, or a path) would have decided, and when.",
            autocompletion=policy_names,
        ),
    ] = None,
    most: Annotated[int, typer.Option("--limit", help="Show at most so many differences.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Make every recorded decision again and look again at every counted outcome; nothing may differ."""
    call = invocation(ctx, as_json=as_json)
    from dataclasses import replace

    from orchestrator.cli.progress import Bar

    with call.application() as app, Bar(call, "evidence") as bar:
        other = None if policy is None else app.files.policy(policy)
        found = app.replayer.replay(rollout, policy=other, progress=bar.rows)
    if as_json:
        call.answer("replay", replace(found, divergences=found.divergences[:most]))
    else:
        from orchestrator.cli.render.replay import replayed as page

        call.show(page(found, most=most))
    if other is None and not found.same:
        raise typer.Exit(1)
