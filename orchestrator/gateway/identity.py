"""What a request shows to say who it is, in the words of ``services.credentials``.

::

    Authorization: Bearer ...          the device's own token
    Authorization: TargetToken ...     the same, in hawkBit's protocol
    Authorization: GatewayToken ...    a token that speaks for the devices of its scope
    a client certificate               where the connection has one and no header says otherwise

Answers for: finding the credential, and letting a device in by it. Not for: whether it is good
(``services.identity``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

from orchestrator.errors import Unauthorized
from orchestrator.gateway.http import Request, known_name
from orchestrator.gateway.tls import CERTIFICATE
from orchestrator.services.credentials import Bearer, Certificate, Credential, GatewayToken, TargetToken
from orchestrator.services.devices import Devices, Kept

_SCHEMES: Final[Mapping[bytes, Callable[[str], Credential]]] = {
    b"bearer": Bearer,
    b"targettoken": TargetToken,
    b"gatewaytoken": GatewayToken,
}


def shown(request: Request) -> Credential:
    """What the request shows. Raises Unauthorized when that is nothing."""
    value = request.header(b"authorization")
    if value is None:
        certificate = certificate_of(request)
        if certificate is not None:
            return certificate
    else:
        scheme, _, token = value.partition(b" ")
        kind, token = _SCHEMES.get(scheme.lower()), token.strip()
        if kind is not None and token:
            return kind(str(token, "latin-1"))
    raise Unauthorized("A device shows its token as `Authorization: Bearer TOKEN`, or a client certificate.")


def certificate_of(request: Request) -> Certificate | None:
    """The client certificate that the handshake of this connection has verified."""
    extensions = request.scope.get("extensions")
    found = extensions.get(CERTIFICATE) if extensions else None
    return found if isinstance(found, Certificate) else None


async def let_in(
    devices: Devices, device_id: str, credential: Credential, request: Request, *, content: bool = False
) -> Kept:
    """The device that asks, before a byte of the body is read: strangers cost a short look at most. Hand it on as
    ``known``, with the same credential. ``content``: it only fetches, many things one after another, and that is not
    counted as asking. Raises Unauthorized for an unknown device and a wrong credential alike, TooMany, Busy."""
    name = known_name(device_id)
    if request.suspect:
        kept = devices.remembered(name, credential)
        if kept is None:
            request.check_suspect()
    else:
        kept = None
    if kept is None:
        found = devices.let_in(name, credential)
        kept = await request.committed(found) if isinstance(found, Future) else found
    if not content:
        request.asked_by(name)
    return kept
