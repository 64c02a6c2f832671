"""``wave device …``: who is in the fleet, and what the operator keeps about each."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.complete import device_ids
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

app = group("device")

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.", autocompletion=device_ids)]


@command(app, "list", "wave device list", "wave device list --tag promoted --label region=emea --json")
def list_devices(
    ctx: typer.Context,
    tag: Annotated[str | None, typer.Option("--tag", help="Only those that follow this tag.")] = None,
    group: Annotated[str | None, typer.Option("--group", help="Only this device group.")] = None,
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
    from orchestrator.services.store import DeviceFilter

    if status is not None and status not in set(DeviceStatus):
        raise InvalidInput(f"{status} is no status of a device.", remedy=f"There are {', '.join(DeviceStatus)}.")
    which = DeviceFilter(
        tag=tag,
        group=group,
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
