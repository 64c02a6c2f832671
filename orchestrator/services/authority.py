"""The port to the installation's own certificate authority, for those who have none: it signs devices' certificates
and the gateway's. Which of them are still good is the store's (``services.identity``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from orchestrator.services.credentials import Revoked, RevokedKind

CA_FOR: Final = timedelta(days=3650)
DEVICE_FOR: Final = timedelta(days=825)
SERVER_FOR: Final = timedelta(days=397)
"""How long certificates are good where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in PEM, and its key where that was made here. ``serial`` and ``fingerprint`` as in
    ``Certificate``."""

    subject: str
    certificate: str
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    key: str | None = field(default=None, repr=False)


class Authority(Protocol):
    """Signs. All raise NotFound where no authority was made, and InvalidInput for a key that others may read."""

    def make(self, name: str, *, lasts: timedelta, now: datetime) -> Issued:
        """The authority itself; its key stays where it is. Raises Refused when there is one."""

    def certificate(self) -> str:
        """What devices and the gateway trust, in PEM."""

    def device(self, device_id: str, *, request: str | None, lasts: timedelta, since: datetime) -> Issued:
        """A client certificate for a device: for the key of a signing request in PEM, or for a new one. Raises
        InvalidInput for a request that is none, names somebody else or has a weak key."""

    def server(self, names: Sequence[str], *, lasts: timedelta, since: datetime) -> Issued:
        """A server certificate for host names and addresses, with a new key. Raises InvalidInput."""

    def save(self, issued: Issued, directory: Path, name: str) -> Sequence[Path]:
        """New files in a directory, which is made: the certificate, its key for its owner only, and ``ca.pem`` where it
        is not there yet. Raises InvalidInput when a file is there already."""


def earliest(device_id: str, revoked: Sequence[Revoked], now: datetime) -> datetime:
    """From when a new certificate of the device may be good: later than all that was revoked of it. Certificates know
    whole seconds only."""
    second = timedelta(seconds=1)
    since = now.replace(microsecond=0)
    for each in revoked:
        if each.kind is RevokedKind.DEVICE and each.value == device_id and since <= each.at:
            since = each.at.replace(microsecond=0) + second
    return since
