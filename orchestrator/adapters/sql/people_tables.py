"""Tables of people, their tokens and their sessions. ``folded`` is the name by which people are compared."""

from __future__ import annotations

from sqlalchemy import Index
from sqlmodel import Field

from orchestrator.adapters.sql.columns import SORTED, Base, key_field, number_field, text_field


class PersonTable(Base, table=True):
    """Who may sign in. ``roles`` is a JSON list; ``password`` an argon2id hash in its own notation."""

    __tablename__ = "person"

    folded: str = Field(primary_key=True, sa_type=SORTED)
    name: str = text_field()
    roles: str = text_field()
    password: str | None = text_field()
    subject: str | None = text_field(unique=True)
    created_at: int = number_field()
    created_by: str = text_field()
    disabled_at: int | None = number_field()


class PersonTokenTable(Base, table=True):
    """Tokens of people, by their digests. ``tags`` is a JSON list, NULL for none."""

    __tablename__ = "person_token"

    key: int | None = key_field()
    name: str = text_field(unique=True)
    person: str = Field(sa_type=SORTED, foreign_key="person.folded")
    roles: str = text_field()
    token_digest: bytes = Field(unique=True)
    created_at: int = number_field()
    created_by: str = text_field()
    until_at: int = number_field()
    revoked_at: int | None = number_field()
    used_at: int | None = number_field()
    tags: str | None = text_field()


class PersonSessionTable(Base, table=True):
    """Sessions of the console, by the digests of their cookies."""

    __tablename__ = "person_session"
    __table_args__ = (Index("session_of_person", "person"),)

    token_digest: bytes = Field(primary_key=True)
    person: str = Field(sa_type=SORTED, foreign_key="person.folded")
    began_at: int = number_field()
    until_at: int = number_field()
    seen_at: int = number_field()


class PersonEventTable(Base, table=True):
    """What happened around people. Only added to."""

    __tablename__ = "person_event"

    key: int | None = key_field()
    at: int = number_field()
    by_name: str = text_field()
    event: str = text_field()
    whom: str = text_field()
    sentence: str = text_field()
