"""``wave db …``: the database of the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.context import AsJson, invocation, openers
from orchestrator.cli.late import command, group

app = group("db")


@command(app, "upgrade", "wave db upgrade")
def upgrade(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Bring the database to this program's schema; rollouts and journals stay."""
    call = invocation(ctx, as_json=as_json)
    now_at = openers().upgrade_database(call.load_settings())
    if as_json:
        return call.answer("database", {"schema": now_at})
    call.show(f"The database has schema {now_at}.")


@command(app, "check", "wave db check", "wave db check --json")
def check(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Recount tallies, budgets and open monitors from the updates, and follow every journal's chain."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house, house.store.reading() as r:
        found = r.check()
    if as_json:
        call.answer("check", {"holds": not found, "differences": found})
    else:
        for each in found:
            call.show(f"x {each.what}: stored {each.stored}, counted {each.counted}")
        call.show("Everything counts up." if not found else f"{len(found)} differences.")
    if found:
        raise typer.Exit(1)


@command(app, "copy", "wave db copy postgresql.yaml")
def copy(
    ctx: typer.Context,
    settings: Annotated[Path, typer.Argument(metavar="FILE", help="Settings whose `database` is the new, empty one.")],
    as_json: AsJson = False,
) -> None:
    """Copy everything from SQLite into an empty PostgreSQL database, and recount it there; stop `wave serve` first."""
    call = invocation(ctx, as_json=as_json)
    call.require_here()
    to = openers().load_settings(settings, {})
    counts = openers().copy_database(call.load_settings(), to, call.by)
    if as_json:
        return call.answer("copied", counts)
    from orchestrator.cli.render.words import plural

    call.show(f"{plural(sum(counts.values()), 'row')} in {plural(len(counts), 'table')} are there, and count up.")
    call.show("The old database is as it was. Put the new one into the settings, then start `wave serve`.")
