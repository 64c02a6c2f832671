"""Tables of builds and of the house; what each database adds to the schema beside tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import DDL, BigInteger, Index, event, text
from sqlmodel import Field

from orchestrator.adapters.sql.columns import METADATA, Base, key_field, number_field, text_field


class DeltaTable(Base, table=True):
    """Deltas that are verified and published."""

    __tablename__ = "delta"
    __table_args__ = (Index("delta_recorded", "recorded_at", "to_commit", "from_commit"),)

    from_commit: str = text_field(primary_key=True)
    to_commit: str = text_field(primary_key=True)
    path: str = text_field()
    parts: int = Field(sa_type=BigInteger)
    bytes: int = Field(sa_type=BigInteger)
    fallbacks: int = Field(sa_type=BigInteger)
    fallback_bytes: int = Field(sa_type=BigInteger)
    build_seconds: float | None = Field()
    cpu_seconds: float | None = Field()
    recorded_at: int = number_field()


class BuildTable(Base, table=True):
    """Jobs. ``build_under_way`` lets a pair have only one at a time, whoever queues it. Rows are long, for their logs:
    ``build_ended`` says whether one ended since, and ``build_unsettled`` what is not done, without reading them."""

    __tablename__ = "build"
    __table_args__ = (
        Index("build_of_pair", "from_commit", "to_commit"),
        Index("build_ended", "ended_at"),
        Index(
            "build_unsettled",
            "key",
            sqlite_where=text("status <> 'done'"),
            postgresql_where=text("status <> 'done'"),
        ),
        Index(
            "build_under_way",
            "from_commit",
            "to_commit",
            unique=True,
            sqlite_where=text("status IN ('queued', 'running')"),
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
    )

    key: int | None = key_field()
    from_commit: str = text_field()
    to_commit: str = text_field()
    status: str = text_field()
    weight: float = Field()
    fence: int = Field(sa_type=BigInteger)
    owner: str | None = text_field()
    lease_until: int | None = number_field()
    attempts: int = Field()
    stage: str = text_field()
    done: float = Field()
    log: str = text_field()
    error: str | None = text_field()
    queued_at: int | None = number_field()
    started_at: int | None = number_field()
    ended_at: int | None = number_field()


class EffectTable(Base, table=True):
    """The outbox; a row is removed when it is done."""

    __tablename__ = "effect"

    key: int | None = key_field()
    kind: str = text_field()
    rollout: str = text_field()
    wave: str | None = text_field()
    error: str | None = text_field()


class LeaseTable(Base, table=True):
    __tablename__ = "lease"

    name: str = text_field(primary_key=True)
    owner: str = text_field()
    until_at: int = number_field()


class HouseTable(Base, table=True):
    """What there is one of: ``frozen`` (its row is always there, so that it can be locked), ``tick``,
    ``alive:NAME``."""

    __tablename__ = "house"

    name: str = text_field(primary_key=True)
    at: int | None = number_field()
    note: str | None = text_field()


class EvidenceSealTable(Base, table=True):
    """How far the digest of a rollout's evidence log is worked out: to the end of a whole block of
    ``core.evidence.log``."""

    __tablename__ = "evidence_seal"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    seq: int = Field(sa_type=BigInteger)
    counted: int = Field(sa_type=BigInteger)
    chain: str = text_field()


FROZEN: Final = "frozen"
"""The row of ``house`` with the reason why all offers are stopped; NULL: they are not."""

SEEDS: Final = (f"INSERT INTO house (name, at, note) VALUES ('{FROZEN}', NULL, NULL)",)
"""What a new database holds."""

_REFUSE: Final = "The journal is append only: an entry is never changed or removed."

TRIGGERS: Final = {
    "sqlite": (
        f"CREATE TRIGGER journal_keeps BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, '{_REFUSE}'); END",
        f"CREATE TRIGGER journal_stays BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, '{_REFUSE}'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION journal_refuses() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSE}'; END $$",
        "CREATE TRIGGER journal_keeps BEFORE UPDATE OR DELETE OR TRUNCATE ON journal "
        "FOR EACH STATEMENT EXECUTE FUNCTION journal_refuses()",
    ),
}

for _dialect, _statements in TRIGGERS.items():
    for _statement in _statements:
        _ddl = DDL(_statement.replace("%", "%%"))  # type: ignore[no-untyped-call]  # SQLAlchemy gives it none
        event.listen(METADATA, "after_create", _ddl.execute_if(dialect=_dialect))
