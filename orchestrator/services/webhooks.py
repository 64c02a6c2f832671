"""How a webhook is signed, so that its receiver knows who sent it, when, and that nothing was changed.

As https://www.standardwebhooks.com has it, so that its libraries check it: HMAC-SHA256 under a shared secret over id,
time and body, joined by full stops. The id is the same when a message is sent again, the time is the sending's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from orchestrator.errors import InvalidInput

PREFIX: Final = "whsec_"
SHORTEST: Final = 24
"""Bytes of a secret."""
LONGEST: Final = 64


def secret_of(text: str) -> bytes:
    """``whsec_`` and base64, or base64 alone. Raises InvalidInput, without the secret."""
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not SHORTEST <= len(secret) <= LONGEST:
        raise InvalidInput(
            f"A webhook's secret is {PREFIX} and {SHORTEST} to {LONGEST} bytes in base64.",
            remedy=f"`echo {PREFIX}$(openssl rand -base64 32)` makes one.",
        )
    return secret


def headers(secret: bytes, message_id: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """What a request carries beside its body."""
    time = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), time.encode(), body))
    mac = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": time, "webhook-signature": f"v1,{mac}"}
