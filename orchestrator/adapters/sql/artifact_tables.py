"""Tables of artifacts: what is known of the files, and by which words of a device each is recognised."""

from __future__ import annotations

from sqlalchemy import Index

from orchestrator.adapters.sql.columns import Base, number_field, text_field


class ArtifactTable(Base, table=True):
    """Hardware ids and what the file calls compatible are JSON lists: there are few artifacts."""

    __tablename__ = "artifact"

    sha256: str = text_field(primary_key=True)
    sha1: str = text_field()
    md5: str = text_field()
    bytes: int = number_field()
    format: str = text_field()
    filename: str = text_field()
    name: str = text_field()
    version: str = text_field()
    hardware_ids: str = text_field()
    compatible: str = text_field()
    added_at: int | None = number_field()


class ArtifactSaidTable(Base, table=True):
    """What a device of a hardware id says when it runs an artifact that is for this hardware. One artifact of a
    hardware id is called so: the key refuses a second, whoever adds it at the same time."""

    __tablename__ = "artifact_said"
    __table_args__ = (Index("artifact_said_of", "sha256"), {"sqlite_with_rowid": False})

    hardware_id: str = text_field(primary_key=True)
    said: str = text_field(primary_key=True)
    sha256: str = text_field(foreign_key="artifact.sha256")
