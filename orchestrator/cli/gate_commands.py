"""``wave gate …``: what is asked outside before a wave opens, asked for a try."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.complete import policy_names, rollout_names, wave_names
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import command, group

app = group("gate")


@app.callback()
def gates() -> None:
    """A group, although it has one command so far."""


@command(
    app,
    "ask",
    "wave gate ask ./gated.yaml",
    "wave gate ask ./gated.yaml --gate errors --rollout lmp-42 --wave canary",
    "wave gate ask --rollout lmp-42 --json",
)
def ask(
    ctx: typer.Context,
    policy: Annotated[
        str | None,
        typer.Argument(
            metavar="[POLICY]",
            help="A name, or a path; else the rollout's own.",
            autocompletion=policy_names,
            show_default=False,
        ),
    ] = None,
    gate: Annotated[list[str] | None, typer.Option("--gate", metavar="GATE", help="Only this one; repeatable.")] = None,
    rollout: Annotated[
        str | None,
        typer.Option("--rollout", metavar="ROLLOUT", help="Ask as of this one.", autocompletion=rollout_names),
    ] = None,
    wave: Annotated[
        str | None, typer.Option("--wave", metavar="WAVE", help="And of this wave of it.", autocompletion=wave_names)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask gates now, once, and show what would follow; nothing is decided by it, and the house's log says who asked."""
    call = invocation(ctx, as_json=as_json)
    found = None if policy is None else call.files().policy(policy)
    with call.application() as house:
        trial = house.gates.ask(found, by=call.by, rollout=rollout, wave=wave, only=gate or [])
    if as_json:
        return call.answer("gates", trial)
    from orchestrator.cli.render.gates import trial as page

    call.show(page(trial))
