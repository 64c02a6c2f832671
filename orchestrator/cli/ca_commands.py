"""``wave ca …``: certificates of devices and of the gateway, signed here, and which of them are good no more."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.cli.complete import device_ids
from orchestrator.cli.context import AsJson, Invocation, Yes, confirm, invocation
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.services.authority import Issued
    from orchestrator.services.credentials import RevokedKind

app = group("ca")

LARGEST_REQUEST: Final = 64 * 1024
"""Bytes of a signing request."""

Days = Annotated[int | None, typer.Option("--days", metavar="N", help="How long it is good.", min=1, max=36_500)]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write it there; the key for you alone.")]
Device = Annotated[
    str | None,
    typer.Argument(metavar="[DEVICE]", help="The device's id.", autocompletion=device_ids, show_default=False),
]


@command(app, "init", "wave ca init", 'wave ca init --name "Acme devices" --days 3650')
def init(
    ctx: typer.Context,
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is called.")] = "wave devices",
    days: Days = None,
    as_json: AsJson = False,
) -> None:
    """Make an authority of this installation's own; who has its key can speak for every device."""
    call = invocation(ctx, as_json=as_json)
    call.require_here()
    from orchestrator.services.authority import CA_FOR

    with call.application() as house:
        with house.house_log.during("authority_made", name, f"made the authority {name}", by=call.by):
            made = house.authority().make(name, lasts=_lasts(days, CA_FOR), now=house.clock())
        place = (house.settings.root / "ca").absolute()
    if as_json:
        return call.answer("authority", {**_shape(made), "directory": str(place)})
    call.show(f"The authority {made.subject} is in {place}, good until {made.not_after:%Y-%m-%d}.")
    call.show(f"Next: `wave ca server HOST --out DIR`, and the settings `tls_client_ca: {place / 'ca.pem'}`,")
    call.show("`tls_certificate` and `tls_key`.")


@command(
    app,
    "issue",
    "wave ca issue gw-7f3a --csr gw-7f3a.csr > gw-7f3a.pem",
    "wave ca issue gw-7f3a --out certificates",
)
def issue(
    ctx: typer.Context,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.", autocompletion=device_ids)],
    csr: Annotated[
        Path | None, typer.Option("--csr", metavar="FILE", help="Its signing request: the key stays on the device.")
    ] = None,
    out: Out = None,
    days: Days = None,
    as_json: AsJson = False,
) -> None:
    """Sign a device's certificate, for the key in its request or with a new key."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.services.authority import DEVICE_FOR, earliest

    if csr is None and out is None:
        raise InvalidInput("A new key must go somewhere.", remedy="Give --out DIR, or --csr FILE to need none.")
    request = None if csr is None else _request(csr)
    with call.application() as house:
        authority = house.authority()
        since = earliest(device, house.devices.identity.revoked_certificates(), house.clock())
        house.house_log.note("certificate_signed", device, f"had a certificate signed for device {device}", by=call.by)
        made = authority.device(device, request=request, lasts=_lasts(days, DEVICE_FOR), since=since)
        files = authority.save(made, out, device) if out is not None else ()
    _told(call, made, files)


@command(app, "server", "wave ca server updates.example.com 10.0.0.5 --out certificates")
def server(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Host names and addresses of the gateway.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Write it there; the key for you alone.")],
    days: Days = None,
    as_json: AsJson = False,
) -> None:
    """Sign a certificate for the gateway itself, with a new key."""
    call = invocation(ctx, as_json=as_json)
    call.require_here()
    from orchestrator.services.authority import SERVER_FOR
    from orchestrator.services.house_log import several

    with call.application() as house:
        authority = house.authority()
        now = house.clock().replace(microsecond=0)
        named = several(names)
        house.house_log.note("certificate_signed", named, f"had a certificate signed for {named}", by=call.by)
        made = authority.server(names, lasts=_lasts(days, SERVER_FOR), since=now)
        files = authority.save(made, out, "server")
    _told(call, made, files)


@command(
    app,
    "revoke",
    "wave ca revoke gw-7f3a --yes",
    "wave ca revoke --serial 6f1c09ab44 --yes",
    "wave ca revoke --undo --serial 6f1c09ab44",
)
def revoke(
    ctx: typer.Context,
    device: Device = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="HEX", help="One certificate, by its serial number.")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", metavar="HEX", help="One certificate, by its SHA-256.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take such an order back.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End all certificates that a device has had until now, or one, at once; its token is another matter."""
    call = invocation(ctx, as_json=as_json)
    kind, value = _which(device, serial, fingerprint)
    if not undo:
        confirm(call, f"Revoke what has the {kind} {value}? It is locked out at once.", yes=yes)
    with call.application() as house:
        identity = house.devices.identity
        if undo:
            identity.allow_certificates(kind, value, by=call.by)
        else:
            identity.revoke_certificates(kind, value, by=call.by)
    if as_json:
        return call.answer("certificates_revoked", {"kind": kind.value, "value": value, "revoked": not undo})
    call.show(f"What has the {kind} {value} is {'good again' if undo else 'revoked'}.")
    if not undo and device is not None:
        call.tell(f"`wave device token {device} --revoke` ends its token too.")


@command(app, "list", "wave ca list", "wave ca list --json")
def list_revoked(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List what was revoked."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import identity

    with call.application() as house:
        found = house.devices.identity.revoked_certificates()
    if as_json:
        return call.answer("revoked_certificates", [identity.revoked_shape(each) for each in found])
    call.show(identity.revoked(found))


def _which(device: str | None, serial: str | None, fingerprint: str | None) -> tuple[RevokedKind, str]:
    from orchestrator.services.credentials import RevokedKind

    said = {RevokedKind.DEVICE: device, RevokedKind.SERIAL: serial, RevokedKind.FINGERPRINT: fingerprint}
    given = [(kind, value) for kind, value in said.items() if value is not None]
    if len(given) != 1:
        raise InvalidInput("Say which: a device, --serial or --fingerprint, one of the three.")
    return given[0]


def _lasts(days: int | None, otherwise: timedelta) -> timedelta:
    return otherwise if days is None else timedelta(days=days)


def _request(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_REQUEST + 1)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
    if len(content) > LARGEST_REQUEST:
        raise InvalidInput(f"{file} is too large for a signing request.")
    return content.decode("utf-8", "replace")


def _shape(made: Issued) -> dict[str, Any]:
    from orchestrator.cli.render.json import iso

    return {
        "subject": made.subject,
        "serial": made.serial,
        "fingerprint": made.fingerprint,
        "not_before": iso(made.not_before),
        "not_after": iso(made.not_after),
        "certificate": made.certificate,
    }


def _told(call: Invocation, made: Issued, files: Any) -> None:
    """The certificate, or where it is. A key is never printed."""
    if call.as_json:
        return call.answer("certificate", {**_shape(made), "files": [str(each) for each in files]})
    if files:
        for each in files:
            call.show(f"+ {each}")
    else:
        call.lines(made.certificate.rstrip())
    call.tell(f"{made.subject}: serial {made.serial}, good until {made.not_after:%Y-%m-%d}.")
