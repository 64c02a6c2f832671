"""The part of the port to the store that keeps people, their tokens and their sessions. The contract of
``services.store`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from orchestrator.core.roles import Role


@dataclass(frozen=True, slots=True)
class PersonRow:
    """Somebody who may sign in. ``password``: its argon2id hash, None for who signs in elsewhere; ``subject``: who that
    is there, as ``ISSUER SUBJECT``."""

    name: str
    roles: frozenset[Role]
    created_at: datetime
    created_by: str
    password: str | None = field(default=None, repr=False)
    subject: str | None = None
    disabled_at: datetime | None = None

    @property
    def has_password(self) -> bool:
        """Whether they may sign in with one."""
        return self.password is not None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token of a person's. It may what its roles and its person's roles both say, and orders only about rollouts of
    its ``tags``; without any about everything. The digest is all that is kept."""

    name: str
    person: str
    roles: frozenset[Role]
    digest: bytes = field(repr=False)
    created_at: datetime
    created_by: str
    until: datetime
    revoked_at: datetime | None = None
    used_at: datetime | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A person at a browser, by the digest of the cookie. It ends at ``until``, whatever happens."""

    digest: bytes = field(repr=False)
    person: str
    began_at: datetime
    until: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class PersonEvent:
    """One thing that happened around people: what ``by`` did to ``whom``, in a sentence. ``number``: its place among
    all, given when it is written down."""

    at: datetime
    by: str
    event: str
    whom: str
    sentence: str
    number: int = field(default=0, compare=False)


class ReadsPeople(Protocol):
    """Part of a snapshot. Names are compared folded (``core.roles.folded``)."""

    def people(self) -> Sequence[PersonRow]:
        """By name."""

    def person(self, name: str) -> PersonRow | None: ...

    def person_by_subject(self, subject: str) -> PersonRow | None: ...

    def person_tokens(self) -> Sequence[TokenRow]:
        """All that were ever made, the oldest first."""

    def person_token(self, digest: bytes) -> TokenRow | None: ...

    def session(self, digest: bytes) -> SessionRow | None: ...

    def person_events(self, *, after: int | None = None, limit: int = 100) -> Sequence[PersonEvent]:
        """The newest first; those that follow the one with the number ``after``."""


class WritesPeople(ReadsPeople, Protocol):
    """Part of a transaction."""

    def lock_person(self, name: str) -> PersonRow | None:
        """Nobody else changes this person until the transaction ends."""

    def add_person(self, row: PersonRow) -> None:
        """Raises Conflict when the name or the subject is taken."""

    def save_person(self, row: PersonRow) -> None:
        """Raises NotFound."""

    def add_person_token(self, row: TokenRow) -> None:
        """Raises Conflict when its name is taken."""

    def revoke_person_token(self, name: str, *, now: datetime) -> bool:
        """False when it was revoked before. Raises NotFound."""

    def use_person_token(self, digest: bytes, *, now: datetime) -> None:
        """It was shown."""

    def add_session(self, row: SessionRow) -> None: ...

    def see_session(self, digest: bytes, *, now: datetime) -> None: ...

    def end_session(self, digest: bytes) -> bool:
        """False when there was none."""

    def end_sessions(self, person: str) -> int:
        """All of a person's; how many there were."""

    def drop_sessions(self, *, now: datetime, unseen_since: datetime) -> int:
        """Those that are over."""

    def log_person_event(self, event: PersonEvent) -> None: ...
