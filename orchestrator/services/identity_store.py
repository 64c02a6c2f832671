"""The part of the port to the store that keeps who may speak as whom. The contract of ``services.store`` holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.services.credentials import Grant, Revoked, RevokedKind


class IdentityReading(Protocol):
    """A consistent snapshot."""

    def grants(self) -> Sequence[Grant]:
        """Enrolment and gateway tokens, the oldest first, revoked and spent ones included."""

    def revoked_certificates(self) -> Sequence[Revoked]:
        """By kind, then by value."""


class IdentityWriting(IdentityReading, Protocol):
    """One transaction."""

    def add_grant(self, grant: Grant) -> None:
        """Raises Conflict when its name is taken."""

    def revoke_grant(self, name: str, *, now: datetime) -> bool:
        """False when it was revoked before. Raises NotFound."""

    def lock_grants(self, digests: Collection[bytes]) -> dict[bytes, Grant]:
        """Those that there are, by digest; nobody else changes them until this transaction ends. They are locked before
        devices."""

    def use_grant(self, digest: bytes, count: int) -> None:
        """So many devices were made known by it. The caller has it locked and has looked that enough uses are left."""

    def revoke_certificates(self, revoked: Revoked) -> None:
        """A device's revocation made again counts from the later moment."""

    def allow_certificates(self, kind: RevokedKind, value: str) -> bool:
        """Take a revocation back; False when there is none."""
