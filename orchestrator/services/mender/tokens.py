"""Tokens of Mender devices: they name their device, because nothing else in a request does, and they end.

``IDENTITY.END.SECRET``: the id in base64, the end in hex, 256 random bits. What is kept is a digest of the whole, so
neither of the first two can be changed.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from orchestrator.core.fleet import check_name
from orchestrator.errors import InvalidInput, Unauthorized
from orchestrator.services.credentials import digest_of, new_secret

_LONGEST = 512


def new_token(device_id: str, until: datetime) -> tuple[str, bytes]:
    """A fresh token, and its digest."""
    name = base64.urlsafe_b64encode(device_id.encode()).decode().rstrip("=")
    token = f"{name}.{int(until.timestamp()):x}.{new_secret()[0]}"
    return token, digest_of(token)


def holder(token: str, now: datetime) -> str:
    """The device that the token names, nothing of which is proven yet. Raises Unauthorized for what is none or is
    over."""
    read = _read(token)
    if read is None:
        raise Unauthorized("The device is not known here, or its token is wrong.")
    if read[1] <= now.timestamp():
        raise Unauthorized("The token has ended; ask for another.")
    return read[0]


def has_ended(token: str, device_id: str, now: datetime) -> bool:
    """Whether it is such a token of this device, and over: by whatever protocol it is shown."""
    read = _read(token) if "." in token else None
    return read is not None and read[0] == device_id and read[1] <= now.timestamp()


def _read(token: str) -> tuple[str, int] | None:
    """Device and end; None for what is no such token."""
    name, _, rest = token[:_LONGEST].partition(".")
    end = rest.partition(".")[0]
    try:
        device_id = check_name(base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode(), "device id")
        return device_id, int(end[:16], 16)
    except (binascii.Error, ValueError, InvalidInput):
        return None
