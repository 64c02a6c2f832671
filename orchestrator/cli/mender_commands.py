"""``wave mender …``: which devices with the Mender client are let in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.context import AsJson, DryRun, Invocation, Yes, confirm, duration_of, invocation, names_of
from orchestrator.cli.device_commands import key_value
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.services.mender.operating import Decided, Placing

app = group("mender")

Sets = Annotated[
    list[str],
    typer.Argument(metavar="SET", help="Authentication sets: the beginning of an id, a device, or its identity."),
]
HardwareId = Annotated[
    str | None, typer.Option("--hardware-id", "--hw-id", metavar="ID", help="What Targets it can run: its device type.")
]
Tag = Annotated[str | None, typer.Option("--tag", help="The line it follows.")]
Group = Annotated[str | None, typer.Option("--group", help="Its device group.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; repeatable.")]
Device = Annotated[str | None, typer.Option("--device", metavar="ID", help="As which device; else by its identity.")]


@command(app, "list", "wave mender list", "wave mender list --status pending --json")
def list_sets(
    ctx: typer.Context,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="pending, accepted, rejected or preauthorized.")
    ] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Only ids after this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1_000_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List authentication sets: who asked with which key, and what was decided. Of those that wait the newest first."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.services.mender.sets import SetStatus

    if status is not None and status not in set(SetStatus):
        raise InvalidInput(f"{status} is no status of a set.", remedy=f"There are {', '.join(SetStatus)}.")
    with call.application() as house:
        if status == SetStatus.PENDING and after is None:
            found = house.mender.waiting(limit=limit)
        else:
            found = house.mender.sets(None if status is None else [SetStatus(status)], after=after, limit=limit)
        now = house.clock()
    if as_json:
        from orchestrator.cli.render.mender import shape

        return call.answer("auth_sets", {"sets": [shape(one) for one in found]})
    from orchestrator.cli.render.mender import auth_sets

    call.show(auth_sets(found, now))


@command(
    app,
    "accept",
    "wave mender accept 3f9a2c71 --hardware-id raspberrypi4 --tag promoted",
    "wave mender accept 3f9a2c71 --device gw-7f3a --hw-id rpi4 --tag promoted",
)
def accept(
    ctx: typer.Context,
    sets: Sets,
    device: Device = None,
    hardware_id: HardwareId = None,
    tag: Tag = None,
    in_group: Group = None,
    labels: Labels = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let devices in and enrol them; a key that an identity had until now is worth nothing then."""
    call = invocation(ctx, as_json=as_json)
    named = names_of(sets)
    if device is not None and len(named) > 1:
        raise InvalidInput("--device names one device.", remedy="Accept the sets one by one.")
    placing = _placing(device, hardware_id, tag, in_group, labels)
    with call.application() as house:
        done = [house.mender.accept(each, placing, by=call.by, dry_run=dry_run) for each in named]
    _tell(call, "accepted", done, dry_run=dry_run)


@command(app, "reject", "wave mender reject 3f9a2c71", "wave mender reject --waiting --asked-within 2h --yes")
def reject(
    ctx: typer.Context,
    sets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SET]", help="Authentication sets: the beginning of an id, a device, or its identity."),
    ] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="All that wait for a person.")] = False,
    asked_within: Annotated[
        str | None,
        typer.Option("--asked-within", metavar="DURATION", help="With --waiting: only who asked first within that."),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let sets in no more, at once; their devices stay enrolled."""
    call = invocation(ctx, as_json=as_json)
    if bool(sets) is waiting or (asked_within is not None and not waiting):
        raise InvalidInput("Name the sets, or say --waiting.", remedy="--asked-within belongs to --waiting.")
    within = duration_of("--asked-within", asked_within)
    if waiting:
        of_when = "" if within is None else f" and asked first within {asked_within}"
        confirm(call, f"Reject all that wait{of_when}?", yes=yes, dry_run=dry_run)
    with call.application() as house:
        if waiting:
            done = list(house.mender.reject_waiting(asked_within=within, by=call.by, dry_run=dry_run))
        else:
            done = [house.mender.reject(each, by=call.by, dry_run=dry_run) for each in names_of(sets)]
    _tell(call, "rejected", done, dry_run=dry_run)


@command(
    app,
    "preauthorize",
    'wave mender preauthorize --identity \'{"mac": "52:54:00:12"}\' --key new.pem',
)
def preauthorize(
    ctx: typer.Context,
    identity: Annotated[str, typer.Option("--identity", metavar="JSON", help="What its identity script says.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Its public key, in PEM.")],
    device: Device = None,
    hardware_id: HardwareId = None,
    tag: Tag = None,
    in_group: Group = None,
    labels: Labels = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enrol a device before it asks; it is let in by itself when it does, with this key alone."""
    call = invocation(ctx, as_json=as_json)
    try:
        pem = key.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(f"{key} cannot be read as a public key.", remedy="It is a text file in PEM.") from None
    placing = _placing(device, hardware_id, tag, in_group, labels)
    with call.application() as house:
        done = house.mender.preauthorize(identity, pem, placing, by=call.by, dry_run=dry_run)
    _tell(call, "preauthorized", [done], dry_run=dry_run)


@command(app, "decommission", "wave mender decommission gw-7f3a --yes")
def decommission(
    ctx: typer.Context, sets: Sets, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Forget devices' identities and keys, lock them out and retire them; who asks again is a stranger."""
    call = invocation(ctx, as_json=as_json)
    named = names_of(sets)
    confirm(call, f"Decommission {', '.join(named)}?", yes=yes, dry_run=dry_run)
    with call.application() as house:
        done = [house.mender.decommission(each, by=call.by, dry_run=dry_run) for each in named]
    _tell(call, "decommissioned", done, dry_run=dry_run)


def _placing(
    device: str | None, hardware_id: str | None, tag: str | None, in_group: str | None, labels: list[str] | None
) -> Placing:
    from orchestrator.services.mender.operating import Placing

    return Placing(device, hardware_id, tag, in_group, dict(key_value(each) for each in labels or ()))


def _tell(call: Invocation, what: str, done: list[Decided], *, dry_run: bool) -> None:
    if call.as_json:
        from orchestrator.cli.render.mender import shape

        decided: list[dict[str, Any]] = [
            {
                "set": shape(each.one),
                "device": each.device_id,
                "enrolled": each.enrolled,
                "instead_of": None if each.instead_of is None else each.instead_of.id,
            }
            for each in done
        ]
        return call.answer("auth_sets_decided", {"dry_run": dry_run, "decision": what, "sets": decided})
    if not done:
        call.show("Nobody waits.")
    for each in done:
        device = f" as device {each.device_id}" if each.device_id else ""
        new = ", new in the fleet" if each.enrolled else ""
        instead = f"; key {each.instead_of.id[:12]} is worth nothing now" if each.instead_of else ""
        would = "would be" if dry_run else "is"
        call.show(f"{each.one.id[:12]} {would} {what}{device}{new}{instead}.")
