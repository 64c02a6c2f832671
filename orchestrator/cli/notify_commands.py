"""``wave notify …``: messages to people, and where they go."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.complete import destination_names, rollout_names
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import command, group

app = group("notify")


@command(app, "list", "wave notify list", "wave notify list --dead", "wave notify list --rollout lmp-42 --json")
def list_(
    ctx: typer.Context,
    rollout: Annotated[
        str | None,
        typer.Option("--rollout", metavar="ROLLOUT", help="Of this one only.", autocompletion=rollout_names),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were given up.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait, also for their next try.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="At most so many, the newest.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List messages and what became of them; the newest first."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import notices as page
    from orchestrator.services.notice_store import Post

    statuses = {post for post, wanted in ((Post.DEAD, dead), (Post.WAITING, waiting)) if wanted}
    with call.application() as house:
        found = house.notices.list(statuses=statuses or None, rollout=rollout, limit=limit)
        counts = house.notices.counts()
        now = house.clock()
    if as_json:
        shown = [page.shape(each) for each in found]
        return call.answer("notices", {"counts": {post.value: count for post, count in counts.items()}, "list": shown})
    call.show(page.listed(found, counts, now))


@command(app, "destinations", "wave notify destinations")
def destinations(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the names that a policy may send messages to; addresses are not shown."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        found = house.notices.destinations()
        file = house.settings.destinations_path
    if as_json:
        return call.answer("destinations", {"file": str(file), "destinations": list(found)})
    if not found:
        return call.show(f"There are none: {file} would name them.")
    call.lines(*found)


@command(app, "retry", "wave notify retry", "wave notify retry 17 18")
def retry(
    ctx: typer.Context,
    keys: Annotated[
        list[int] | None, typer.Argument(metavar="[NUMBER]", help="As listed; else all that are dead or wait.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try messages once more, and for a day again; `wave serve` sends them."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render.words import plural

    with call.application() as house:
        many = house.notices.retry(keys or (), by=call.by)
    if as_json:
        return call.answer("retried", {"notices": many})
    call.show(f"{plural(many, 'message')} will be tried again.")


@command(app, "test", "wave notify test oncall")
def probe(
    ctx: typer.Context,
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Its name.", autocompletion=destination_names)
    ],
    as_json: AsJson = False,
) -> None:
    """Send a message that says it is a test, now, and tell whether it was taken."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        house.notices.test(destination, by=call.by)
    if as_json:
        return call.answer("tested", {"destination": destination})
    call.show(f"{destination} took it.")


@command(app, "send", "wave notify send")
def send(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Send what is due, once, in this process; `wave serve` does it all the time."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render.words import plural

    with call.application() as house:
        done = house.notices.deliver()
    if as_json:
        call.answer("delivered", done)
    else:
        call.show(f"{plural(done.sent, 'message')} sent, {done.failed} failed.")
    if done.failed:
        raise typer.Exit(1)
