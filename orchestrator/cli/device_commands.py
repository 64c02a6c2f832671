"""``wave device …``: who is in the fleet, and what the operator keeps about each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli.complete import device_ids
from orchestrator.cli.context import AsJson, Because, DryRun, Invocation, Yes, confirm, invocation, names_of
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.core.fleet import Device

app = group("device")

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.", autocompletion=device_ids)]
Devices = Annotated[list[str], typer.Argument(metavar="DEVICE", help="Devices.", autocompletion=device_ids)]

MANY: Final = 2_000
"""Devices above which enrolling shows how far it is."""


@command(app, "list", "wave device list", "wave device list --tag promoted --label region=emea --json")
def list_devices(
    ctx: typer.Context,
    tag: Annotated[str | None, typer.Option("--tag", help="Only those that follow this tag.")] = None,
    device_group: Annotated[str | None, typer.Option("--group", help="Only this device group.")] = None,
    hardware_id: Annotated[
        str | None, typer.Option("--hardware-id", "--hw-id", metavar="ID", help="Only this hardware id.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="KEY=VALUE", help="Only with this label.")] = None,
    status: Annotated[str | None, typer.Option("--status", metavar="STATUS", help="active, held or retired.")] = None,
    version: Annotated[int | None, typer.Option("--version", help="Only those that run this version.")] = None,
    text: Annotated[str | None, typer.Option("--match", metavar="TEXT", help="Part of the id.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Only ids after this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1_000_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List devices by id."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.core.fleet import DeviceStatus
    from orchestrator.services.records import DeviceFilter

    if status is not None and status not in set(DeviceStatus):
        raise InvalidInput(f"{status} is no status of a device.", remedy=f"There are {', '.join(DeviceStatus)}.")
    which = DeviceFilter(
        tag=tag,
        group=device_group,
        hardware_id=hardware_id,
        label=None if label is None else key_value(label),
        status=None if status is None else DeviceStatus(status),
        version=version,
        text=text,
    )
    with call.application() as app:
        found = app.queries.devices(which, after=after, limit=limit)
        total = app.queries.count_devices(which)
        now = app.clock()
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("devices", {"total": total, "devices": [shapes.device(each) for each in found]})
    from orchestrator.cli.render.fleet import devices

    call.show(devices(found, now))
    if found and len(found) < total:
        call.tell(f"{len(found):,} of {total:,}; `--after {found[-1].id}` goes on, `--limit` shows more.")


@command(app, "show", "wave device show gw-7f3a", "wave device show gw-7f3a --json")
def show(ctx: typer.Context, device: DeviceId, as_json: AsJson = False) -> None:
    """Show a device, what it runs, its wave in each rollout, its updates and last events."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as app:
        found, now = app.queries.device(device), app.clock()
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("device", shapes.device_view(found))
    from orchestrator.cli.render.explain import device as page

    call.show(page(found, now))


def key_value(text: str) -> tuple[str, str]:
    """``region=emea`` as a pair. Raises InvalidInput."""
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise InvalidInput(f"{text!r} is no label.", remedy="Write it KEY=VALUE, such as region=emea.")
    return key, value


# ------------------------------------------------------------------------------------------------- enrolling


@command(
    app,
    "enroll",
    "wave device enroll gw-7f3a --hardware-id intel-corei7-64 --tag promoted",
    "wave device enroll --from examples/fleet.yaml --tokens-to tokens.txt",
)
def enroll(
    ctx: typer.Context,
    device: Annotated[
        str | None, typer.Argument(metavar="[DEVICE]", help="The device's id; or --from.", show_default=False)
    ] = None,
    hardware_id: Annotated[
        str | None, typer.Option("--hardware-id", "--hw-id", metavar="ID", help="What Targets it can run.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="The line it follows.")] = None,
    in_group: Annotated[str | None, typer.Option("--group", help="Its device group.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; repeatable.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="A fleet file with many devices.")] = None,
    tokens_to: Annotated[
        Path | None,
        typer.Option("--tokens-to", metavar="FILE", help="Write the tokens into this new file, readable by you alone."),
    ] = None,
    new_tokens: Annotated[
        bool, typer.Option("--new-tokens", help="Known devices get a new token too; theirs is worth nothing then.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enrol one device or a fleet file and show the token of each new one, this once; known devices keep theirs."""
    call = invocation(ctx, as_json=as_json)
    if (device is None) == (file is None):
        raise InvalidInput("Say which device to enrol, or --from FILE: one of both.")
    from orchestrator.core.fleet import Device

    if file is not None:
        if hardware_id or tag or in_group or labels:
            raise InvalidInput("With --from everything about the devices stands in the file.")
        fleet = call.files().fleet(file).devices
        wanted = [Device(d.id, d.hardware_id, d.tag, group=d.group, labels=dict(d.labels)) for d in fleet]
    else:
        if device is None or hardware_id is None or tag is None:
            raise InvalidInput("A device needs --hardware-id and --tag.")
        known = dict(key_value(each) for each in labels or ())
        wanted = [Device(device, hardware_id, tag, group=in_group, labels=known)]
    with call.application() as house:
        if dry_run:
            from orchestrator.services.register import check_device

            for each in wanted:
                check_device(each)
            return _enrolled(call, wanted, {}, None, dry_run=True)
        if new_tokens:
            devices = f"{len(wanted):,} devices" if len(wanted) > 1 else f"device {wanted[0].id}"
            confirm(call, f"Lock out {devices} until the new token is on it?", yes=yes)
        with _tokens(tokens_to) as keep:
            made: dict[str, str] = {}
            kept = 0
            each_with_token = house.devices.register.enroll(wanted, tokens=True, renew=new_tokens, by=call.by)
            for device_id, token in _counted(call, each_with_token, len(wanted)):
                if token is None:
                    kept += 1
                else:
                    keep(device_id, token) if keep is not None else made.update({device_id: token})
    _enrolled(call, wanted, made, tokens_to, dry_run=False, kept=kept)


def _enrolled(
    call: Invocation,
    devices: Sequence[Device],
    tokens: dict[str, str],
    file: Path | None,
    *,
    dry_run: bool,
    kept: int = 0,
) -> None:
    if call.as_json:
        return call.answer(
            "enrolled",
            {
                "dry_run": dry_run,
                "devices": [{"device": each.id, "token": tokens.get(each.id)} for each in devices],
                "tokens_to": None if file is None else str(file),
            },
        )
    count = f"{len(devices):,} device{'' if len(devices) == 1 else 's'}"
    if dry_run:
        return call.show(f"Dry run: would enrol {count}.")
    for device_id, token in tokens.items():
        call.lines(f"{device_id} {token}")
    new = f"New tokens are in {file}." if file else "A token is shown this once."
    said = [new] if kept < len(devices) else []
    said += [f"{kept:,} known before keep{'s' if kept == 1 else ''} the token."] if kept else []
    call.tell(" ".join([f"Enrolled {count}.", *said]))


@contextmanager
def _tokens(file: Path | None) -> Iterator[Callable[[str, str], None] | None]:
    """What keeps a token: a new file that only its owner can read; None without a file. Raises InvalidInput."""
    if file is None:
        yield None
        return
    try:
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInput(f"{file} is there already.", remedy="Tokens go into a new file only.") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}.") from None
    with os.fdopen(opened, "w", encoding="utf-8") as stream:

        def keep(device_id: str, token: str) -> None:
            stream.write(f"{device_id} {token}\n")

        yield keep


def _counted(call: Invocation, each: Iterator[tuple[str, str | None]], total: int) -> Iterator[tuple[str, str | None]]:
    """The same, with a bar when there are many and somebody looks."""
    if total < MANY or call.as_json or not call.err.is_terminal:
        yield from each
        return
    from rich.progress import track

    yield from track(each, description="Enrolling", total=total, console=call.err)


# ------------------------------------------------------------------------------------------------- keeping


@command(app, "group", "wave device group lab lab-01 lab-02", "wave device group --none lab-02")
def set_group(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="GROUP DEVICE", help="The group, then devices; only devices with --none.")
    ],
    none: Annotated[bool, typer.Option("--none", help="Take the devices out of their group.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put devices into a device group; a group alone is made and stays empty."""
    call = invocation(ctx, as_json=as_json)
    group_name, devices = (None, names_of(words)) if none else (words[0], names_of(words[1:]))
    with call.application() as house:
        if not devices and group_name is not None:
            house.devices.register.add_group(group_name, by=call.by)
            return _done(call, f"Group {group_name} is there.", 0, group=group_name)
        count = house.devices.register.set_group(devices, group_name, by=call.by)
    where = f"are in group {group_name}" if group_name is not None else "are in no group"
    _done(call, f"{len(devices)} devices {where}.", count, group=group_name)


@command(app, "label", "wave device label region=emea gw-7f3a gw-7f3b", "wave device label --remove region gw-7f3a")
def label(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="KEY=VALUE", help="The label; only its key with --remove.")],
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE", help="Devices.", autocompletion=device_ids)],
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Label devices; a device's own word cannot change that."""
    call = invocation(ctx, as_json=as_json)
    key, value = (what, None) if remove else key_value(what)
    if remove and "=" in what:
        raise InvalidInput("--remove takes the key alone.", remedy=f"Write `{what.partition('=')[0]}`.")
    named = names_of(devices)
    with call.application() as house:
        count = house.devices.register.set_label(named, key, value, by=call.by)
    said = f"have no label {key}" if value is None else f"have {key}={value}"
    _done(call, f"{len(named)} devices {said}.", count, key=key, value=value)


@command(app, "hold", 'wave device hold gw-7f3a --reason "on the test bench"')
def hold(ctx: typer.Context, devices: Devices, reason: Because = None, as_json: AsJson = False) -> None:
    """Give devices no offer until they are released, and say why."""
    _status(ctx, devices, "held", reason, as_json, "are held: they get no offer")


@command(app, "release", "wave device release gw-7f3a")
def release(ctx: typer.Context, devices: Devices, as_json: AsJson = False) -> None:
    """Take held or retired devices back into the fleet."""
    _status(ctx, devices, "active", None, as_json, "are active again")


@command(app, "retire", "wave device retire gw-7f3a --yes")
def retire(
    ctx: typer.Context, devices: Devices, reason: Because = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Leave devices out of every count from now on; `release` takes them back."""
    confirm(invocation(ctx, as_json=as_json), f"Retire {', '.join(names_of(devices))}?", yes=yes)
    _status(ctx, devices, "retired", reason, as_json, "are retired: they count nowhere any more")


@command(app, "replace", "wave device replace gw-7f3a gw-81c0")
def replace(
    ctx: typer.Context,
    old: DeviceId,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The id of the device that takes its place.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Retire a device and enrol another with its hardware id, tag, group and labels; show the new one's token."""
    call = invocation(ctx, as_json=as_json)
    confirm(call, f"Retire {old} and enrol {new} in its place?", yes=yes)
    with call.application() as house:
        made = house.devices.register.replace(old, new, by=call.by)
    if as_json:
        return call.answer("replaced", {"retired": old, "device": new, "token": made})
    call.lines(f"{new} {made}")
    call.tell(f"{old} is retired, {new} is in its place. The token is shown this once.")


@command(app, "token", "wave device token gw-7f3a", "wave device token gw-7f3a --revoke")
def token(
    ctx: typer.Context,
    device: DeviceId,
    revoke: Annotated[bool, typer.Option("--revoke", help="Make no new one: the device is locked out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new token for a device and show it, this once; the one before is worth nothing then."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        made = None if revoke else house.devices.register.new_token(device, by=call.by)
        if revoke:
            house.devices.register.revoke(device, by=call.by)
    if as_json:
        return call.answer("token", {"device": device, "token": made})
    if made is None:
        return call.show(f"Device {device} has no token any more.")
    call.lines(f"{device} {made}")
    call.tell("The token is shown this once.")


def _status(ctx: typer.Context, devices: list[str], status: str, reason: str | None, as_json: bool, said: str) -> None:
    from orchestrator.core.fleet import DeviceStatus

    call = invocation(ctx, as_json=as_json)
    named = names_of(devices)
    with call.application() as house:
        count = house.devices.register.set_status(named, DeviceStatus(status), reason, by=call.by)
    _done(call, f"{len(named)} devices {said}.", count, status=status)


def _done(call: Invocation, sentence: str, changed: int, **more: object) -> None:
    if sentence.startswith("1 devices"):
        sentence = "1 device" + sentence.removeprefix("1 devices").replace(" are ", " is ", 1).replace(
            " have ", " has ", 1
        ).replace("they get", "it gets").replace("they count", "it counts")
    if call.as_json:
        return call.answer("devices_changed", {"changed": changed, "sentence": sentence, **more})
    call.show(sentence)
