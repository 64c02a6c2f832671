"""``wave user …``: who may sign in to the operators' side, and what they may do there."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from orchestrator.cli.context import AsJson, Invocation, Yes, confirm, invocation, names_of
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

app = group("user")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Their name, as the journal says it.")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help="viewer, releaser, approver or admin; repeatable."),
]

MOST_READ: Final = 4096
"""Characters read of a password, at most."""


@command(
    app,
    "add",
    "wave user add ann --role admin",
    "wave user add ben --role releaser --role approver",
    "wave user add cem@example.com --role viewer --no-password",
)
def add(
    ctx: typer.Context,
    name: Name,
    roles: Roles = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="They use tokens only, until they are given one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let somebody in; the password is asked for, or read as one line from standard input."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.core.roles import check_person, parse_roles

    known = check_person(name)
    given = parse_roles(names_of(roles))
    password = None if no_password else _password(known)
    with call.application() as house:
        row = house.people.add(known, given, by=call.by, password=password)
    _tell(call, "user", row.name, f"{row.name} is {' and '.join(sorted(row.roles))}.")


@command(app, "list", "wave user list", "wave user list --json")
def list_people(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List everybody by name, with their roles."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import people

    with call.application() as house:
        found = house.people.all()
    if as_json:
        return call.answer("users", [people.person_shape(each) for each in found])
    call.show(people.everybody(found))


@command(app, "show", "wave user show ann", "wave user show ann --json")
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one person, with their tokens."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import people

    with call.application() as house:
        found = house.people.get(name)
        tokens = [each for each in house.people.tokens() if each.person == found.name]
        now = house.clock()
    if as_json:
        shapes = [people.token_shape(each, now) for each in tokens]
        return call.answer("user", {**people.person_shape(found), "tokens": shapes})
    call.show(people.everybody([found]), people.tokens(tokens, now))


@command(app, "roles", "wave user roles ben --role viewer")
def set_roles(ctx: typer.Context, name: Name, roles: Roles = None, as_json: AsJson = False) -> None:
    """Say what somebody may do from now on; it replaces what they could before, by their tokens too."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.core.roles import parse_roles

    given = parse_roles(names_of(roles))
    with call.application() as house:
        row = house.people.set_roles(name, given, by=call.by)
    _tell(call, "user", row.name, f"{row.name} is {' and '.join(sorted(row.roles))}.")


@command(app, "disable", "wave user disable ben --yes")
def disable(ctx: typer.Context, name: Name, yes: Yes = False, as_json: AsJson = False) -> None:
    """Shut somebody out at once; sessions end, and tokens are worth nothing while it lasts."""
    call = invocation(ctx, as_json=as_json)
    confirm(call, f"Disable {name}? What uses their tokens is shut out too.", yes=yes)
    with call.application() as house:
        row = house.people.disable(name, by=call.by)
    _tell(call, "user", row.name, f"{row.name} is disabled.")


@command(app, "enable", "wave user enable ben")
def enable(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Let somebody in again; their tokens are good again too."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        row = house.people.enable(name, by=call.by)
    _tell(call, "user", row.name, f"{row.name} is enabled.")


@command(app, "password", "wave user password ben")
def password(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Give somebody a new password; it is asked for, or read as one line from standard input, and ends their
    sessions."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        known = house.people.get(name).name
        row = house.people.set_password(known, _password(known), by=call.by)
    _tell(call, "user", row.name, f"{row.name} has a new password, and is signed out everywhere.")


@command(app, "log", "wave user log", "wave user log --limit 500 --json")
def log(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="So many.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what happened around people, the newest first; who signed in, and who changed what."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import people

    with call.application() as house:
        found = house.people.events(limit=limit)
    if as_json:
        return call.answer("user_log", [people.event_shape(each) for each in found])
    call.show(people.events(found))


def _password(name: str) -> str:
    """Never an argument: those are seen by everybody on the machine. Raises InvalidInput."""
    if sys.stdin.isatty():
        asked = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True)
        return str(asked)
    line = sys.stdin.readline(MOST_READ).rstrip("\r\n")
    if not line:
        raise InvalidInput(
            "No password was given on standard input.", remedy="Write it there as one line, or give --no-password."
        )
    return line


def _tell(call: Invocation, kind: str, name: str, sentence: str) -> None:
    if call.as_json:
        return call.answer(kind, {"name": name, "message": sentence})
    call.show(sentence)
