"""People and their tokens as whoever asks from afar may see them: without what proves who somebody is.

The hash of a password and the digest of a token have no field here, so no answer can hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.roles import Role
from orchestrator.services.people_store import PersonRow, TokenRow


@dataclass(frozen=True, slots=True)
class PersonView:
    """``has_password``: they may sign in with one. Else as ``PersonRow``."""

    name: str
    roles: tuple[Role, ...]
    created_at: datetime
    created_by: str
    has_password: bool
    subject: str | None = None
    disabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TokenView:
    """As ``TokenRow``."""

    name: str
    person: str
    roles: tuple[Role, ...]
    created_at: datetime
    created_by: str
    until: datetime
    revoked_at: datetime | None = None
    used_at: datetime | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made, and its text, which is known nowhere else."""

    made: TokenView
    token: str


def person_view(row: PersonRow) -> PersonView:
    return PersonView(
        name=row.name,
        roles=tuple(sorted(row.roles)),
        created_at=row.created_at,
        created_by=row.created_by,
        has_password=row.has_password,
        subject=row.subject,
        disabled_at=row.disabled_at,
    )


def token_view(row: TokenRow) -> TokenView:
    return TokenView(
        name=row.name,
        person=row.person,
        roles=tuple(sorted(row.roles)),
        created_at=row.created_at,
        created_by=row.created_by,
        until=row.until,
        revoked_at=row.revoked_at,
        used_at=row.used_at,
        tags=row.tags,
    )


def new_token(made: tuple[TokenRow, str]) -> NewToken:
    return NewToken(token_view(made[0]), made[1])


def person_views(rows: Sequence[PersonRow]) -> list[PersonView]:
    return [person_view(each) for each in rows]


def token_views(rows: Sequence[TokenRow]) -> list[TokenView]:
    return [token_view(each) for each in rows]
