"""``wave token …``: with which programs of people speak to the operators' side."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from orchestrator.cli.context import AsJson, Yes, confirm, invocation, names_of
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

app = group("token")

UNTIL: Final = "90d"
"""A token that nobody gave an end."""


@command(app, "add", "wave token add ann --role viewer", "wave token add ci --role releaser --tag promoted --until 30d")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")],
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="What it may do, as far as NAME may; repeatable. Else viewer."),
    ] = None,
    until: Annotated[
        str, typer.Option("--until", metavar="END", help="30d or 2027-01-31; 400d from now at most.")
    ] = UNTIL,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="It orders about rollouts of that tag alone; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token for a person and show it, this once; programs send it as `Authorization: Bearer`."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.core.ends import parse_end
    from orchestrator.core.roles import Role, parse_roles

    given = parse_roles(names_of(roles) or (Role.VIEWER.value,))
    with call.application() as house:
        end = parse_end(until, house.clock())
        if end is None:
            raise InvalidInput("Every token has an end.", remedy="Give --until 400d at most.")
        row, token = house.people.add_token(name, given, until=end, by=call.by, tags=names_of(tags))
        now = house.clock()
    from orchestrator.cli.render import people

    if as_json:
        return call.answer("token", {**people.token_shape(row, now), "token": token})
    call.lines(f"{row.name} {token}")
    call.tell(
        f"A token of {row.person} as {' and '.join(sorted(row.roles))}{people.only(row)}, "
        f"good until {row.until:%Y-%m-%d %H:%M} UTC. "
        f"It is shown this once; `wave token revoke {row.name}` ends it."
    )


@command(app, "list", "wave token list", "wave token list --all --json")
def list_tokens(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over or revoked too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List tokens by name, with whose they are and when they were used last; what they are is kept nowhere."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import people

    with call.application() as house:
        now = house.clock()
        found = [each for each in house.people.tokens() if everything or people.state(each, now) == "good"]
    if as_json:
        return call.answer("tokens", [people.token_shape(each, now) for each in found])
    call.show(people.tokens(found, now))


@command(app, "revoke", "wave token revoke tok-3f9a1c20 --yes")
def revoke(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="TOKEN", help="Its name, as `wave token list` shows it.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a token at once."""
    call = invocation(ctx, as_json=as_json)
    confirm(call, f"Revoke {name}? What uses it is shut out.", yes=yes)
    with call.application() as house:
        fresh = house.people.revoke_token(name, by=call.by)
    if as_json:
        return call.answer("token_revoked", {"name": name, "changed": fresh})
    call.show(f"{name} is revoked." if fresh else f"{name} was revoked before.")
