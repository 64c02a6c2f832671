"""``wave db …``: the database of the installation."""

from __future__ import annotations

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
