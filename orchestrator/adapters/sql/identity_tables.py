"""Tables of who may speak as whom, beside the digest of its token that each device carries itself."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, key_field, number_field, text_field


class GrantTable(Base, table=True):
    """Enrolment and gateway tokens, by their digests. ``uses_left`` NULL: as many as you like. ``hardware_ids`` is a
    JSON list, empty for any, and ``labels`` a JSON object."""

    __tablename__ = "device_grant"

    key: int | None = key_field()
    name: str = text_field(unique=True)
    kind: str = text_field()
    token_digest: bytes = Field(unique=True)
    tag: str | None = text_field()
    group_name: str | None = text_field()
    hardware_ids: str = text_field()
    labels: str = text_field()
    uses_left: int | None = Field(sa_type=BigInteger)
    used: int = Field(sa_type=BigInteger)
    until_at: int | None = number_field()
    may_replace: int = Field()
    may_register: int = Field()
    created_at: int = number_field()
    created_by: str = text_field()
    revoked_at: int | None = number_field()


class RevokedCertificateTable(Base, table=True):
    """Certificates that are not good any more. ``kind`` device: all of that name from before ``revoked_at``; serial and
    fingerprint: that one, whenever it was made."""

    __tablename__ = "revoked_certificate"

    kind: str = text_field(primary_key=True)
    value: str = text_field(primary_key=True)
    revoked_at: int = number_field()
    revoked_by: str = text_field()
