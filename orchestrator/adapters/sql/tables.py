"""The tables, declared once: the migrations are held equal to this metadata by a test, and every query names its
columns from here.

* Times are whole microseconds since 1970 in UTC; yes and no are 1 and 0; both read alike on SQLite and PostgreSQL.
* What a device runs is a row of ``software`` (hardware id, commit, version), because a fleet has few of them: a device
  carries its key,
  so that a million devices do not repeat a 64-digit commit, and "what do they run" is a count over one narrow index.
  There ``''`` and ``-1`` stand for a commit and a version that are not known, so that the three are unique without
  NULLs.
* Nothing here is loaded as objects: see ``link``.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import DDL, BigInteger, Index, Integer, MetaData, Text, event, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA: Final = MetaData()

NO_COMMIT: Final = ""
NO_VERSION: Final = -1

_KEY: Final = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only in a column that is declared INTEGER."""

_SORTED: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Compared by code point on both databases, so that pages of a list follow each other the same way."""


def _key(**more: Any) -> Any:
    return Field(default=None, primary_key=True, sa_type=_KEY, **more)


def _time(**more: Any) -> Any:
    return Field(sa_type=BigInteger, **more)


def _text(**more: Any) -> Any:
    return Field(sa_type=Text, **more)


class _Base(SQLModel, registry=registry(metadata=METADATA)):
    pass


class SoftwareTable(_Base, table=True):
    """What a device can run. Rows are only added."""

    __tablename__ = "software"
    __table_args__ = (Index("software_is", "hardware_id", "commit_id", "version", unique=True),)

    key: int | None = _key()
    hardware_id: str = _text()
    commit_id: str = _text()
    version: int = _time()


class GroupTable(_Base, table=True):
    __tablename__ = "device_group"

    name: str = _text(primary_key=True)


class DeviceTable(_Base, table=True):
    """A device. What a scan of the fleet reads stands first, its id and its token last.

    ``device_runs``: the devices of one tag by what they run, which answers the fleet questions and leads to the
    eligible ones; it is written
    only when a device changes tag, status or software. ``device_since``: who came after a moment, for ``late``. A
    check-in that only
    says "still here" touches no index.
    """

    __tablename__ = "device"
    __table_args__ = (
        Index("device_runs", "tag", "status", "software_key"),
        Index("device_since", "tag", "since_at"),
        Index("device_in_group", "group_name", sqlite_where=text("group_name IS NOT NULL")),
        Index("device_is", "id", unique=True),
    )

    key: int | None = _key()
    tag: str = _text()
    status: str = _text()
    software_key: int = Field(sa_type=BigInteger, foreign_key="software.key")
    hash_high: int = _time()
    hash_low: int = _time()
    since_at: int | None = _time()
    last_seen_at: int | None = _time()
    group_name: str | None = _text(foreign_key="device_group.name")
    usual_gap: int = _time()
    healthy: int = Field()
    held_because: str | None = _text()
    enrolled_at: int | None = _time()
    token_digest: bytes | None = Field()
    id: str = Field(sa_type=_SORTED)


class LabelTable(_Base, table=True):
    """``by_operator`` 1: a device's own word does not change it."""

    __tablename__ = "device_label"
    __table_args__ = (
        Index("label_devices", "key", "value", "device_key"),
        {"sqlite_with_rowid": False},
    )

    device_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="device.key")
    key: str = _text(primary_key=True)
    value: str = _text()
    by_operator: int = Field()


class TargetTable(_Base, table=True):
    """Hardware ids and tags are JSON lists: there are few Targets, and they are read whole."""

    __tablename__ = "target"

    key: int | None = _key()
    name: str = _text(unique=True)
    version: int = _time()
    commit_id: str = _text()
    provider: str = _text()
    hardware_ids: str = _text()
    tags: str = _text()
    added_at: int | None = _time()


class ReleaseTable(_Base, table=True):
    """One commit for each hardware id and version (RULES 6.3): the key refuses a second, whoever adds it at the same
    time."""

    __tablename__ = "release"
    __table_args__ = (Index("release_commit", "hardware_id", "commit_id"),)

    hardware_id: str = _text(primary_key=True)
    version: int = _time(primary_key=True, sa_column_kwargs={"autoincrement": False})
    commit_id: str = _text()


class RolloutTable(_Base, table=True):
    """``state`` and ``scope`` are JSON of ``RolloutState`` and ``Scope``; ``status`` and ``epoch`` repeat two of its
    values for conditions.

    ``version`` grows with each write; a writer names the one it read."""

    __tablename__ = "rollout"

    key: int | None = _key()
    name: str = _text(unique=True)
    version: int = Field(sa_type=BigInteger)
    status: str = _text()
    epoch: int = Field(sa_type=BigInteger)
    state: str = _text()
    spec: str = _text()
    policy: str = _text()
    spec_digest: str = _text()
    policy_digest: str = _text()
    salt: str = _text()
    tag: str = _text()
    target_version: int = _time()
    created_at: int = _time()
    scope: str | None = _text()
    devices: int = Field(sa_type=BigInteger)
    journal_seq: int = Field(sa_type=BigInteger)
    journal_hash: str = _text()


class SliceTable(_Base, table=True):
    """A slice with its tallies. ``ordinal`` counts the slices of a rollout in the order of their opening."""

    __tablename__ = "slice"
    __table_args__ = ({"sqlite_with_rowid": False},)

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = _text(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    ordinal: int = Field(sa_type=BigInteger)
    upto: int = Field(sa_type=BigInteger)
    opened_at: int = _time()
    members: int = Field(sa_type=BigInteger)
    waiting: int = Field(sa_type=BigInteger)
    offered: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    withdrawn: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    started: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    applied: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    resolved: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    confirmed: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    retired: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    departed: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    bad_failed: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    bad_rolled_back: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    bad_silent: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    bad_ignored: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})
    bad_download_failed: int = Field(sa_type=BigInteger, default=0, sa_column_kwargs={"server_default": "0"})


class SliceRanksTable(_Base, table=True):
    """What gives a slice's members their places, apart from the tallies because no decision reads it. Written once."""

    __tablename__ = "slice_ranks"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = _text(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    given: str = _text()
    ranks: str = _text()


class PopulationTable(_Base, table=True):
    """Places given so far in each population of a rollout: the running totals from which a new slice takes its
    ``before``."""

    __tablename__ = "population"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    name: str = _text(primary_key=True)
    places: int = Field(sa_type=BigInteger)


class MonitorTable(_Base, table=True):
    """``spec`` is JSON of ``MonitorSpec``; ``name`` its key."""

    __tablename__ = "monitor"
    __table_args__ = (Index("monitor_is", "rollout_key", "name", "attempt", unique=True),)

    key: int | None = _key()
    rollout_key: int = Field(sa_type=BigInteger, foreign_key="rollout.key")
    name: str = _text()
    attempt: int = Field()
    spec: str = _text()
    from_place: int = Field(sa_type=BigInteger)
    bad: int = Field(sa_type=BigInteger)
    crossed_bad: int | None = Field(sa_type=BigInteger)
    crossed_place: int | None = Field(sa_type=BigInteger)
    accepted_at: int | None = _time()


class MonitorNodeTable(_Base, table=True):
    """The nodes of ``core.evidence.crossing``'s tree, as it packs them."""

    __tablename__ = "monitor_node"
    __table_args__ = ({"sqlite_with_rowid": False},)

    monitor_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="monitor.key")
    level: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    content: bytes = Field()


class BudgetTable(_Base, table=True):
    """``outcomes``: class names joined by ``+``."""

    __tablename__ = "budget"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    outcomes: str = _text(primary_key=True)
    bad_limit: int = Field(sa_type=BigInteger)
    bad: int = Field(sa_type=BigInteger)
    base: int = Field(sa_type=BigInteger)
    answer: str = _text()


class LookTable(_Base, table=True):
    """What the last look at a wave's devices found."""

    __tablename__ = "look"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = _text(primary_key=True)
    looked_at: int = _time()
    eligible: int = Field(sa_type=BigInteger)
    reachable: int = Field(sa_type=BigInteger)
    already_there: int = Field(sa_type=BigInteger)


class NeedTable(_Base, table=True):
    """The required deltas of a wave as of its last look; ``from_commit`` '' is from scratch."""

    __tablename__ = "need"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = _text(primary_key=True)
    from_commit: str = _text(primary_key=True)
    to_commit: str = _text(primary_key=True)
    devices: int = Field(sa_type=BigInteger)
    known: int = Field()


class JournalTable(_Base, table=True):
    """Append only: triggers refuse to change or remove an entry."""

    __tablename__ = "journal"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    seq: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    at: int = _time()
    event: str = _text()
    by: str = _text()
    sentence: str = _text()
    wave: str | None = _text()
    facts: str = _text()
    policy_digest: str = _text()
    evidence_seq: int = Field(sa_type=BigInteger)
    before: str = _text()
    hash: str = _text()


class UpdateTable(_Base, table=True):
    """One device's update in one rollout. ``bad`` is a set of bits, one a class in the order of ``OutcomeClass``.

    ``look_at``: when to look whether the deadline has passed; never after it, and there exactly when it is. Nearly
    every report
    moves the deadline later and leaves ``look_at`` alone, and with it ``update_deadline``, which finds who is due
    without a scan. ``update_bad`` finds the few with a bad outcome.
    """

    __tablename__ = "device_update"
    __table_args__ = (
        Index(
            "update_deadline",
            "rollout_key",
            "look_at",
            sqlite_where=text("look_at IS NOT NULL"),
            postgresql_where=text("look_at IS NOT NULL"),
        ),
        Index(
            "update_bad", "rollout_key", "device_key", sqlite_where=text("bad > 0"), postgresql_where=text("bad > 0")
        ),
        {"sqlite_with_rowid": False},
    )

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    device_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="device.key")
    status: str = _text()
    offered_at: int = _time()
    deadline_at: int | None = _time()
    look_at: int | None = _time()
    started_at: int | None = _time()
    installing_at: int | None = _time()
    confirmed_at: int | None = _time()
    recovered_at: int | None = _time()
    resolved: int = Field()
    bad: int = Field()
    check_ins: int = Field()
    tries: int = Field()
    from_key: int = Field(sa_type=BigInteger)
    to_key: int = Field(sa_type=BigInteger)
    wave: str = _text()
    slice_number: int = Field(sa_type=BigInteger)
    rollout_place: int = Field(sa_type=BigInteger)
    wave_place: int = Field(sa_type=BigInteger)
    segment_places: str = _text()
    unhealthy_before: int = Field()
    by_delta: int | None = Field()
    usual_gap: int = _time()


class EventTable(_Base, table=True):
    """The evidence log, in the order of receipt. Ids are stored packed (a UUID as 16 bytes), unique for their device:
    devices that
    report in turn then touch few pages of the index, and a device's events are found by its first column."""

    __tablename__ = "event"
    __table_args__ = (
        Index("event_is", "device_key", "event_id", unique=True),
        Index("event_of_rollout", "rollout_key", "seq", sqlite_where=text("rollout_key IS NOT NULL")),
        {"sqlite_autoincrement": True},
    )

    seq: int | None = _key()
    device_key: int = Field(sa_type=BigInteger)
    rollout_key: int | None = Field(sa_type=BigInteger)
    received_at: int = _time()
    event_id: bytes = Field()
    kind: str = _text()
    device_at: str | None = _text()
    code: str | None = _text()
    message: str | None = _text()


class DeltaTable(_Base, table=True):
    """Deltas that are verified and published."""

    __tablename__ = "delta"

    from_commit: str = _text(primary_key=True)
    to_commit: str = _text(primary_key=True)
    path: str = _text()
    parts: int = Field(sa_type=BigInteger)
    bytes: int = Field(sa_type=BigInteger)
    fallbacks: int = Field(sa_type=BigInteger)
    fallback_bytes: int = Field(sa_type=BigInteger)
    build_seconds: float | None = Field()
    cpu_seconds: float | None = Field()
    recorded_at: int = _time()


class BuildTable(_Base, table=True):
    """Jobs. ``build_under_way`` lets a pair have only one at a time, whoever queues it."""

    __tablename__ = "build"
    __table_args__ = (
        Index("build_of_pair", "from_commit", "to_commit"),
        Index(
            "build_under_way",
            "from_commit",
            "to_commit",
            unique=True,
            sqlite_where=text("status IN ('queued', 'running')"),
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
    )

    key: int | None = _key()
    from_commit: str = _text()
    to_commit: str = _text()
    status: str = _text()
    weight: float = Field()
    fence: int = Field(sa_type=BigInteger)
    owner: str | None = _text()
    lease_until: int | None = _time()
    attempts: int = Field()
    stage: str = _text()
    done: float = Field()
    log: str = _text()
    error: str | None = _text()
    queued_at: int | None = _time()
    started_at: int | None = _time()
    ended_at: int | None = _time()


class EffectTable(_Base, table=True):
    """The outbox; a row is removed when it is done."""

    __tablename__ = "effect"

    key: int | None = _key()
    kind: str = _text()
    rollout: str = _text()
    wave: str | None = _text()
    error: str | None = _text()


class LeaseTable(_Base, table=True):
    __tablename__ = "lease"

    name: str = _text(primary_key=True)
    owner: str = _text()
    until_at: int = _time()


class HouseTable(_Base, table=True):
    """What there is one of: ``frozen`` (its row is always there, so that it can be locked), ``tick``,
    ``alive:NAME``."""

    __tablename__ = "house"

    name: str = _text(primary_key=True)
    at: int | None = _time()
    note: str | None = _text()


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
        _ddl = DDL(_statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
        event.listen(METADATA, "after_create", _ddl.execute_if(dialect=_dialect))
