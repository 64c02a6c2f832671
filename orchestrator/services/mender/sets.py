"""Authentication sets: an identity with a key, as a Mender device shows both, and what the operator decided.

::

    (asks) ─► pending ─► accepted ─► rejected
                 └─────► rejected ─► accepted        by a person, always
    preauthorized ─► accepted                        by itself, when the device asks for the first time

At most one set of an identity is accepted: a new key is a new set, and never takes over by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class SetStatus(StrEnum):
    """How far an authentication set is."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PREAUTHORIZED = "preauthorized"


def set_id(identity: str, public_key: str) -> str:
    """The name of a set: 64 hex digits that identity and key give."""
    return hashlib.sha256(f"{identity}\n{public_key}".encode()).hexdigest()


def identity_digest(identity: str) -> str:
    """What an identity is looked up by, however long it is."""
    return hashlib.sha256(identity.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSet:
    """``identity`` is canonical JSON, ``public_key`` PEM. ``device_id``: as which device it was accepted; it stays with
    a set that is rejected later. ``asked_at``: when it asked first, or was preauthorised; ``seen_at``: when it asked
    last, to five minutes."""

    id: str
    identity: str
    public_key: str
    status: SetStatus
    device_id: str | None = None
    asked_at: datetime
    seen_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None


class ReadsAuthSets(Protocol):
    """Part of a snapshot."""

    def auth_set(self, set_id: str) -> AuthSet | None: ...

    def auth_sets(
        self, statuses: Collection[SetStatus] | None = None, *, after: str | None = None, limit: int = 1000
    ) -> Sequence[AuthSet]:
        """By id, those after ``after``."""

    def auth_sets_waiting(self, *, asked_since: datetime | None = None, limit: int) -> Sequence[AuthSet]:
        """The pending ones that asked first since then, who asked last coming first."""

    def auth_sets_like(self, prefix: str, *, limit: int) -> Sequence[AuthSet]:
        """Those whose id begins so."""

    def auth_sets_of(self, *, identity: str | None = None, device_id: str | None = None) -> Sequence[AuthSet]:
        """Those of an identity, or of a device, who asked first coming first."""


class WritesAuthSets(ReadsAuthSets, Protocol):
    """Part of a transaction. Sets are locked before devices."""

    def lock_auth_sets(self, identities: Collection[str]) -> Sequence[AuthSet]:
        """Every set of these identities; nobody else changes them until this transaction ends."""

    def save_auth_set(self, one: AuthSet) -> None:
        """Add it, or change all but identity and key. Raises Conflict when another of its identity is accepted."""

    def remove_auth_sets(self, set_ids: Collection[str]) -> int: ...

    def drop_pending(self, *, keep: int, unseen_since: datetime) -> int:
        """Remove pending sets that asked last before that, until ``keep`` are left, those unseen longest going first;
        how many are pending then."""
