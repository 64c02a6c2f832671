"""Tables of Mender devices."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlmodel import Field

from orchestrator.adapters.sql.columns import SORTED, Base, number_field, text_field


class AuthSetTable(Base, table=True):
    """``identity_digest`` stands for the identity in indexes, which may be long. ``auth_set_accepted`` lets an identity
    have one accepted set, whoever accepts a second at the same time."""

    __tablename__ = "auth_set"
    __table_args__ = (
        Index("auth_set_of_identity", "identity_digest"),
        Index("auth_set_of_device", "device_id"),
        Index("auth_set_waits", "status", "asked_at"),
        Index(
            "auth_set_accepted",
            "identity_digest",
            unique=True,
            sqlite_where=text("status = 'accepted'"),
            postgresql_where=text("status = 'accepted'"),
        ),
    )

    id: str = Field(primary_key=True, sa_type=SORTED)
    identity_digest: str = text_field()
    identity: str = text_field()
    public_key: str = text_field()
    status: str = text_field()
    device_id: str | None = text_field()
    asked_at: int = number_field()
    seen_at: int = number_field()
    decided_at: int | None = number_field()
    decided_by: str | None = text_field()
