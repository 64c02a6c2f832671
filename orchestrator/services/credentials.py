"""What a device can show to say who it is, and what the operator hands out for that. Values only; ``services.identity``
judges them.

::

    Bearer, TargetToken, Secret     the device's own token, as three protocols carry it
    GatewayToken                    one token that speaks for every device in its scope
    Certificate                     a client certificate that the TLS handshake has verified; its common name is the id
    (enrolment token)               makes a device known; it can read and report nothing
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from orchestrator.core.fleet import Device

TOKEN_BYTES: Final = 32
"""256 random bits: nothing that could be guessed or looked up, so a plain digest is kept."""


def digest_of(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> tuple[str, bytes]:
    """A fresh token, and its digest."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, digest_of(token)


# A repr ends in logs and tracebacks, so none of these shows its secret.
@dataclass(frozen=True, slots=True)
class Bearer:
    """``Authorization: Bearer``: the device's own token."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TargetToken:
    """``Authorization: TargetToken`` of hawkBit's protocol: the same."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Secret:
    """A part of the path, for clients that can set nothing but a URL: the same."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class GatewayToken:
    """``Authorization: GatewayToken`` of hawkBit's protocol: it speaks for every device in its scope."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Verified against the trusted authorities when the connection began, and judged again with each request.
    ``serial`` in lower-case hex; ``fingerprint``: SHA-256 of the whole, in hex."""

    device_id: str
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime


OwnToken = Bearer | TargetToken | Secret
Credential = OwnToken | GatewayToken | Certificate
Shown = str | Credential
"""A bare text is the device's own token."""


def is_own_token(shown: Shown) -> bool:
    """Whether it is judged by what the device's row holds."""
    return not isinstance(shown, GatewayToken | Certificate)


REGISTERED: Final = 1_000
"""Devices that a gateway token makes known where nobody gave a bound."""


class GrantKind(StrEnum):
    ENROLMENT = "enrolment"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An enrolment or gateway token, as it is kept; ``name`` is what people call it by.

    Of an enrolment token ``tag``, ``group`` and ``labels`` are what its devices get, and ``hardware_ids`` (empty: any)
    is what they may be. Of a gateway token tag, group and hardware ids are the scope: it speaks for devices that fit
    all that are given. With ``may_register`` it makes unknown ids known, as its first hardware id. ``uses_left`` counts
    devices made known; None is no bound, but for a gateway token. ``may_replace``: devices known already get a new
    token as well.
    """

    name: str
    kind: GrantKind
    digest: bytes = field(repr=False)
    tag: str | None = None
    group: str | None = None
    hardware_ids: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    uses_left: int | None = None
    used: int = 0
    until: datetime | None = None
    may_replace: bool = False
    may_register: bool = False
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None

    def stands(self, now: datetime) -> bool:
        """Neither revoked nor over."""
        return self.revoked_at is None and (self.until is None or now < self.until)

    @property
    def left(self) -> int | None:
        """Devices that it still makes known; None: any number."""
        if self.uses_left is None and self.may_register:
            return max(0, REGISTERED - self.used)
        return self.uses_left

    def covers(self, device: Device) -> bool:
        """Whether the device is in its scope."""
        return (
            (self.tag is None or device.tag == self.tag)
            and (self.group is None or device.group == self.group)
            and (not self.hardware_ids or device.hardware_id in self.hardware_ids)
        )


class RevokedKind(StrEnum):
    """How certificates are named that are revoked: all that a device had until then, or one."""

    DEVICE = "device"
    SERIAL = "serial"
    FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True)
class Revoked:
    """One revocation of certificates."""

    kind: RevokedKind
    value: str
    at: datetime
    by: str
