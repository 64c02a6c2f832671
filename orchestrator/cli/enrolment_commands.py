"""``wave enrolment …``: tokens with which devices make themselves known, and those that speak for many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli.context import AsJson, Yes, confirm, invocation
from orchestrator.cli.device_commands import key_value
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.services.credentials import Grant

app = group("enrolment")

UNTIL: Final = "7d"
"""An enrolment token that nobody gave an end."""


@command(
    app,
    "add",
    "wave enrolment add --tag promoted --hardware-id rpi4 --uses 500 --until 30d",
    "wave enrolment add --gateway --tag promoted --hardware-id rpi4 --register",
)
def add(
    ctx: typer.Context,
    tag: Annotated[str | None, typer.Option("--tag", help="The line that its devices follow.")] = None,
    in_group: Annotated[str | None, typer.Option("--group", help="Their device group.")] = None,
    hardware_ids: Annotated[
        list[str] | None,
        typer.Option("--hardware-id", "--hw-id", metavar="ID", help="What they may be; repeatable, else anything."),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label they get; repeatable.")
    ] = None,
    uses: Annotated[
        int | None,
        typer.Option(
            "--uses", metavar="N", help="Devices it makes known; else 1, and 1,000 for --register.", min=1, max=10**9
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="END", help="7d, 2027-01-31 or never; else 7d, and never for a gateway token."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="A device in its scope that is known already gets a new token too.")
    ] = False,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Make a gateway token: it speaks for every device in its scope.")
    ] = False,
    register: Annotated[
        bool, typer.Option("--register", help="A gateway token that also makes unknown devices known.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an enrolment token, or a gateway token, and show it, this once."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.core.ends import NEVER, parse_end
    from orchestrator.services.credentials import GrantKind

    if register and not gateway:
        raise InvalidInput("--register is for a gateway token.", remedy="Give --gateway too.")
    if uses is not None and gateway and not register:
        raise InvalidInput("--uses counts devices that are made known.", remedy="Give --register too.")
    if uses is None:
        uses = None if gateway else 1
    with call.application() as house:
        grant, token = house.devices.identity.add(
            GrantKind.GATEWAY if gateway else GrantKind.ENROLMENT,
            by=call.by,
            tag=tag,
            group=in_group,
            hardware_ids=hardware_ids or (),
            labels=dict(key_value(each) for each in labels or ()),
            uses=uses,
            until=parse_end(until or (NEVER if gateway else UNTIL), house.clock()),
            may_replace=replace,
            may_register=register,
        )
    if as_json:
        from orchestrator.cli.render import identity

        return call.answer("enrolment", {**identity.grant_shape(grant), "token": token})
    call.lines(f"{grant.name} {token}")
    call.tell(_said(grant))


def _said(grant: Grant) -> str:
    from orchestrator.cli.render.identity import scope

    end = "for ever" if grant.until is None else f"until {grant.until:%Y-%m-%d %H:%M} UTC"
    what = "A gateway token" if grant.kind == "gateway" else "An enrolment token"
    return (
        f"{what} for {scope(grant)}, good {end}. It is shown this once; `wave enrolment revoke {grant.name}` ends it."
    )


@command(app, "list", "wave enrolment list", "wave enrolment list --all --json")
def list_grants(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, spent or revoked too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List enrolment and gateway tokens by name; what they are is kept nowhere."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import identity

    with call.application() as house:
        now = house.clock()
        found = [each for each in house.devices.identity.grants() if everything or identity.state(each, now) == "good"]
    if as_json:
        return call.answer("enrolments", [identity.grant_shape(each, now) for each in found])
    call.show(identity.grants(found, now))


@command(app, "revoke", "wave enrolment revoke enr-3f9a1c20 --yes")
def revoke(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, as `wave enrolment list` shows it.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a token at once; devices that it made known keep their own tokens."""
    call = invocation(ctx, as_json=as_json)
    confirm(call, f"Revoke {name}? Devices that use a gateway token are locked out.", yes=yes)
    with call.application() as house:
        fresh = house.devices.identity.revoke(name, by=call.by)
    if as_json:
        return call.answer("enrolment_revoked", {"name": name, "changed": fresh})
    call.show(f"{name} is revoked." if fresh else f"{name} was revoked before.")
