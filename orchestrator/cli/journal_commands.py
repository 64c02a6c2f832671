"""``wave journal [show] | verify``: what was decided and ordered, and whether that is still what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.cli.complete import rollout_names
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import command

if TYPE_CHECKING:
    from typer._click import Context

SHOW = "show"


class JournalGroup(TyperGroup):
    """``wave journal lmp-42`` is ``wave journal show lmp-42``; so is one that begins with an option."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = [SHOW, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(name="journal", cls=JournalGroup, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


@command(app, SHOW, "wave journal show lmp-42", "wave journal show lmp-42 --after 20 --json")
def show(
    ctx: typer.Context,
    rollout: Annotated[
        str, typer.Argument(metavar="ROLLOUT", help="The rollout's name.", autocompletion=rollout_names)
    ],
    after: Annotated[int, typer.Option("--after", metavar="SEQ", help="Only entries after this one.", min=0)] = 0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=100_000)] = 1000,
    facts: Annotated[bool, typer.Option("--facts", help="With what each entry was based on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was decided and ordered, by whom and why, oldest first; `wave journal lmp-42` does the same."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        entries = house.queries.journal(rollout, after=after, limit=limit)
    if as_json:
        return call.answer("journal", entries)
    from orchestrator.cli.render.house import journal as page

    call.show(page(entries, facts=facts))


@command(app, "verify", "wave journal verify", "wave journal verify lmp-42 --json")
def verify(
    ctx: typer.Context,
    rollout: Annotated[
        str | None,
        typer.Argument(
            metavar="[ROLLOUT]",
            help="The rollout's name; else all of them.",
            show_default=False,
            autocompletion=rollout_names,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find whatever was changed, removed, moved or cut off in journals, evidence logs and bound files; a line each."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.progress import Bar
    from orchestrator.cli.render.words import plural

    whole = True
    told: list[Any] = []
    with call.application() as house, Bar(call, "evidence") as bar:
        for each in house.verifier.verify(rollout, progress=bar.rows):
            whole = whole and each.holds
            told.append(each)
            if as_json:
                continue
            for finding in each.findings:
                call.lines(f"x {each.rollout}: {finding.sentence}")
            if each.holds:
                seen = f"{plural(each.entries, 'entry', 'entries')}, {plural(each.evidence, 'outcome')}"
                call.lines(f"+ {each.rollout}: {seen}, as they were written.")
    if as_json:
        call.answer("verified", {"holds": whole, "rollouts": told})
    elif not told:
        call.show("There is no rollout yet.")
    if not whole:
        raise typer.Exit(1)
