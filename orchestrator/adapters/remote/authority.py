"""The certificate authority of an orchestrator elsewhere: it signs there, and private keys stay here.

A device's key is made where the command runs; what travels is a signing request and the certificate for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.adapters.authority import new_request, save
from orchestrator.adapters.remote.client import Client, not_here
from orchestrator.services.authority import DEVICE_FOR, Issued


class RemoteAuthority:
    """See ``services.authority``. The authority itself, and the gateway's certificate, are made there."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def make(self, name: str, *, lasts: timedelta, now: datetime) -> Issued:
        not_here()

    def server(self, names: Sequence[str], *, lasts: timedelta, since: datetime) -> Issued:
        not_here()

    def certificate(self) -> str:
        return str(self._client.call("authority_certificate"))

    def device(self, device_id: str, *, request: str | None, lasts: timedelta, since: datetime) -> Issued:
        """``since`` is worked out there."""
        key, asked = (None, request) if request is not None else new_request(device_id)
        days = None if lasts == DEVICE_FOR else lasts.days
        made: Issued = self._client.call("issue_certificate", device_id=device_id, request=asked, by="", days=days)
        return replace(made, key=key)

    def save(self, issued: Issued, directory: Path, name: str) -> Sequence[Path]:
        return save(issued, directory, name, trusted=self.certificate)
