"""The tables, declared once: the migrations are held equal to this metadata by a test, and every query names its
columns from here.

* Times are whole microseconds since 1970 in UTC; yes and no are 1 and 0; both read alike on SQLite and PostgreSQL.
* What a device runs is a row of ``software`` (hardware id, commit, version), because a fleet has few of them: a device
  carries its key, so that a million devices do not repeat a 64-digit commit, and "what do they run" is a count over
  one narrow index. There ``''`` and ``-1`` stand for a commit and a version that are not known, so that the three are
  unique without NULLs.
* Nothing here is loaded as objects: see ``link``.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from orchestrator.adapters.sql.columns import SORTED, Base, key_field, number_field, tally_field, text_field

METADATA: Final = Base.metadata
"""Every table there is; ``house_tables`` and ``identity_tables`` add their own when they are imported."""


class SoftwareTable(Base, table=True):
    """What a device can run. Rows are only added."""

    __tablename__ = "software"
    __table_args__ = (Index("software_is", "hardware_id", "commit_id", "version", unique=True),)

    key: int | None = key_field()
    hardware_id: str = text_field()
    commit_id: str = text_field()
    version: int = number_field()


class GroupTable(Base, table=True):
    __tablename__ = "device_group"

    name: str = text_field(primary_key=True)


class DeviceTable(Base, table=True):
    """A device. What a scan of the fleet reads stands first, its id and its token last.

    ``device_runs``: the devices of one tag by what they run, which answers the fleet questions and leads to the
    eligible ones; it is written only when a device changes tag, status or software. ``device_since``: who came after a
    moment, for ``late``. A check-in that only says "still here" touches no index.
    """

    __tablename__ = "device"
    __table_args__ = (
        Index("device_runs", "tag", "status", "software_key"),
        Index("device_since", "tag", "since_at"),
        Index("device_in_group", "group_name", sqlite_where=text("group_name IS NOT NULL")),
        Index("device_is", "id", unique=True),
    )

    key: int | None = key_field()
    tag: str = text_field()
    status: str = text_field()
    software_key: int = Field(sa_type=BigInteger, foreign_key="software.key")
    hash_high: int = number_field()
    hash_low: int = number_field()
    since_at: int | None = number_field()
    last_seen_at: int | None = number_field()
    group_name: str | None = text_field(foreign_key="device_group.name")
    usual_gap: int = number_field()
    healthy: int = Field()
    held_because: str | None = text_field()
    enrolled_at: int | None = number_field()
    token_digest: bytes | None = Field()
    id: str = Field(sa_type=SORTED)


class LabelTable(Base, table=True):
    """``by_operator`` 1: a device's own word does not change it."""

    __tablename__ = "device_label"
    __table_args__ = (
        Index("label_devices", "key", "value", "device_key"),
        {"sqlite_with_rowid": False},
    )

    device_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="device.key")
    key: str = text_field(primary_key=True)
    value: str = text_field()
    by_operator: int = Field()


class TargetTable(Base, table=True):
    """Hardware ids and tags are JSON lists: there are few Targets, and they are read whole."""

    __tablename__ = "target"

    key: int | None = key_field()
    name: str = text_field(unique=True)
    version: int = number_field()
    commit_id: str = text_field()
    provider: str = text_field()
    hardware_ids: str = text_field()
    tags: str = text_field()
    added_at: int | None = number_field()


class ReleaseTable(Base, table=True):
    """One commit for each hardware id and version (RULES 6.3): the key refuses a second, whoever adds it at the same
    time."""

    __tablename__ = "release"
    __table_args__ = (Index("release_commit", "hardware_id", "commit_id"),)

    hardware_id: str = text_field(primary_key=True)
    version: int = number_field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    commit_id: str = text_field()


class RolloutTable(Base, table=True):
    """``state``, ``scope`` and ``clock`` are JSON of ``RolloutState``, ``Scope`` and ``Clock``; ``status`` and
    ``epoch`` repeat two values of the first for conditions.

    ``version`` grows with each write; a writer names the one it read. ``rollout_made`` and ``rollout_stands``: lists of
    them, newest first, of which no more is read than a page has."""

    __tablename__ = "rollout"
    __table_args__ = (
        Index("rollout_made", "created_at", "key"),
        Index("rollout_stands", "status", "created_at", "key"),
    )

    key: int | None = key_field()
    name: str = text_field(unique=True)
    version: int = Field(sa_type=BigInteger)
    status: str = text_field()
    epoch: int = Field(sa_type=BigInteger)
    state: str = text_field()
    spec: str = text_field()
    policy: str = text_field()
    spec_digest: str = text_field()
    policy_digest: str = text_field()
    salt: str = text_field()
    tag: str = text_field()
    target_version: int = number_field()
    created_at: int = number_field()
    scope: str | None = text_field()
    clock: str | None = text_field()
    devices: int = Field(sa_type=BigInteger)
    journal_seq: int = Field(sa_type=BigInteger)
    journal_hash: str = text_field()


class Tallies(Base):
    """What the updates of a slice add up to. ``departed`` is what the core calls ``left``; ``bad_own_1`` to
    ``bad_own_8`` are the operator's own classes, by their slots."""

    offered: int = tally_field()
    withdrawn: int = tally_field()
    started: int = tally_field()
    applied: int = tally_field()
    resolved: int = tally_field()
    confirmed: int = tally_field()
    retired: int = tally_field()
    departed: int = tally_field()
    bad_failed: int = tally_field()
    bad_verify_failed: int = tally_field()
    bad_rolled_back: int = tally_field()
    bad_silent: int = tally_field()
    bad_ignored: int = tally_field()
    bad_download_failed: int = tally_field()
    bad_own_1: int = tally_field()
    bad_own_2: int = tally_field()
    bad_own_3: int = tally_field()
    bad_own_4: int = tally_field()
    bad_own_5: int = tally_field()
    bad_own_6: int = tally_field()
    bad_own_7: int = tally_field()
    bad_own_8: int = tally_field()


class SliceTable(Tallies, table=True):
    """A slice with its tallies. ``ordinal`` counts the slices of a rollout in the order of their opening; ``excluded``
    its members of excluded segments, whose updates are in no tally."""

    __tablename__ = "slice"
    __table_args__ = ({"sqlite_with_rowid": False},)

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    ordinal: int = Field(sa_type=BigInteger)
    upto: int = Field(sa_type=BigInteger)
    opened_at: int = number_field()
    members: int = Field(sa_type=BigInteger)
    waiting: int = Field(sa_type=BigInteger)
    excluded: int = tally_field()


class SliceApartTable(Tallies, table=True):
    """The tallies of a slice's devices that were unhealthy before and are left out of the slice's own; no row where
    there is none."""

    __tablename__ = "slice_apart"
    __table_args__ = ({"sqlite_with_rowid": False},)

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


class OwnClassTable(Base, table=True):
    """The operator's own classes of a rollout: ``slot`` 0 counts in ``bad_own_1``. Rows are only added."""

    __tablename__ = "own_class"
    __table_args__ = ({"sqlite_with_rowid": False},)

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = text_field()


class SliceRanksTable(Base, table=True):
    """What gives a slice's members their places, apart from the tallies because no decision reads it. Written once."""

    __tablename__ = "slice_ranks"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    given: str = text_field()
    ranks: str = text_field()


class PopulationTable(Base, table=True):
    """Places given so far in each population of a rollout: the running totals from which a new slice takes its
    ``before``."""

    __tablename__ = "population"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    name: str = text_field(primary_key=True)
    places: int = Field(sa_type=BigInteger)


class PaceTable(Base, table=True):
    """Until when the rate of a rollout (``wave`` '') or of one of its waves is spent: one moment, however many offers
    there were. Written with the offers that spend it."""

    __tablename__ = "pace"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    spent_until: int = number_field()


class MonitorTable(Base, table=True):
    """``spec`` is JSON of ``MonitorSpec``; ``name`` its key."""

    __tablename__ = "monitor"
    __table_args__ = (Index("monitor_is", "rollout_key", "name", "attempt", unique=True),)

    key: int | None = key_field()
    rollout_key: int = Field(sa_type=BigInteger, foreign_key="rollout.key")
    name: str = text_field()
    attempt: int = Field()
    spec: str = text_field()
    from_place: int = Field(sa_type=BigInteger)
    bad: int = Field(sa_type=BigInteger)
    crossed_bad: int | None = Field(sa_type=BigInteger)
    crossed_place: int | None = Field(sa_type=BigInteger)
    accepted_at: int | None = number_field()


class MonitorNodeTable(Base, table=True):
    """The nodes of ``core.evidence.crossing``'s tree, as it packs them."""

    __tablename__ = "monitor_node"
    __table_args__ = ({"sqlite_with_rowid": False},)

    monitor_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="monitor.key")
    level: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    content: bytes = Field()


class BudgetTable(Base, table=True):
    """``outcomes``: class names joined by ``+``."""

    __tablename__ = "budget"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    outcomes: str = text_field(primary_key=True)
    bad_limit: int = Field(sa_type=BigInteger)
    bad: int = Field(sa_type=BigInteger)
    base: int = Field(sa_type=BigInteger)
    answer: str = text_field()


class LookTable(Base, table=True):
    """What the last look at a wave's devices found."""

    __tablename__ = "look"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    looked_at: int = number_field()
    eligible: int = Field(sa_type=BigInteger)
    reachable: int = Field(sa_type=BigInteger)
    already_there: int = Field(sa_type=BigInteger)


class NeedTable(Base, table=True):
    """The required deltas of a wave as of its last look; ``from_commit`` '' is from scratch."""

    __tablename__ = "need"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field(primary_key=True)
    from_commit: str = text_field(primary_key=True)
    to_commit: str = text_field(primary_key=True)
    devices: int = Field(sa_type=BigInteger)
    known: int = Field()


class JournalTable(Base, table=True):
    """Append only: triggers refuse to change or remove an entry."""

    __tablename__ = "journal"

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    seq: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    at: int = number_field()
    event: str = text_field()
    by: str = text_field()
    sentence: str = text_field()
    wave: str | None = text_field()
    facts: str = text_field()
    policy_digest: str = text_field()
    evidence_seq: int = Field(sa_type=BigInteger)
    before: str = text_field()
    hash: str = text_field()


class SliceKeyTable(Base, table=True):
    """A short key for a slice, so that a million updates do not repeat the name of a wave. Rows are only added.
    ``excluded`` 1: the part of it that is left out, with its segment, of the slice's tallies; ``apart`` 1: the part
    that was unhealthy before, whose tallies are in ``slice_apart``."""

    __tablename__ = "slice_key"
    __table_args__ = (Index("slice_key_is", "rollout_key", "wave", "number", "excluded", "apart", unique=True),)

    key: int | None = key_field()
    rollout_key: int = Field(sa_type=BigInteger, foreign_key="rollout.key")
    wave: str = text_field()
    number: int = Field(sa_type=BigInteger)
    excluded: int = Field()
    apart: int = Field()


class UpdateTable(Base, table=True):
    """One device's update in one rollout: its course. Every report reads a row and writes it, so it holds no more;
    what only the offer said is in ``update_offer``.

    ``key`` is both keys in one number (``codec.update_key``): SQLite finds and writes a row by one integer in three
    quarters of the time that two columns take. ``status`` counts the statuses in the order of ``UpdateStatus``; ``bad``
    is a set of bits (``codec.BAD_BITS``): the classes, built-in and own, and whether it came to a bad end.

    ``look_at``: when to look whether the deadline has passed; never after it, and there exactly when it is. Nearly
    every report moves the deadline later and leaves ``look_at`` alone, and with it ``update_deadline``, which finds who
    is due without a scan. ``update_bad`` finds the few with a bad outcome.
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
    )

    key: int = key_field(sa_column_kwargs={"autoincrement": False})
    status: int = Field()
    deadline_at: int | None = number_field()
    started_at: int | None = number_field()
    installing_at: int | None = number_field()
    confirmed_at: int | None = number_field()
    resolved: int = Field()
    recovered_at: int | None = number_field()
    bad: int = Field()
    slice_key: int = Field(sa_type=BigInteger, foreign_key="slice_key.key")
    usual_gap: int = number_field()
    look_at: int | None = number_field()
    rollout_key: int = Field(sa_type=BigInteger, foreign_key="rollout.key")
    device_key: int = Field(sa_type=BigInteger, foreign_key="device.key")


class OfferTable(Base, table=True):
    """What the offer of an update said and froze, by the update's key: read when something counts, or somebody asks."""

    __tablename__ = "update_offer"

    key: int = key_field(foreign_key="device_update.key", sa_column_kwargs={"autoincrement": False})
    offered_at: int = number_field()
    from_key: int = Field(sa_type=BigInteger)
    to_key: int = Field(sa_type=BigInteger)
    check_ins: int = Field()
    tries: int = Field()
    rollout_place: int = Field(sa_type=BigInteger)
    wave_place: int = Field(sa_type=BigInteger)
    unhealthy_before: int = Field()
    by_delta: int | None = Field()
    segment_places: str = text_field()


class ClockMarkTable(Base, table=True):
    """When a device of a rollout with a clock began to install, and in which interval it was first heard of: a
    ``core.evidence.clock.Mark``, packed, by the update's key."""

    __tablename__ = "clock_mark"

    key: int = key_field(foreign_key="device_update.key", sa_column_kwargs={"autoincrement": False})
    mark: int = number_field()


class CohortTable(Base, table=True):
    """The clock's counters: of the devices of a hardware id that began to install in one minute how many there are, and
    of how many the first outcome came in each interval. ``minute`` counts from 1970."""

    __tablename__ = "cohort"
    __table_args__ = ({"sqlite_with_rowid": False},)

    rollout_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="rollout.key")
    hardware_id: str = text_field(primary_key=True)
    minute: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    installed: int = Field(sa_type=BigInteger)
    heard_1: int = Field(sa_type=BigInteger)
    heard_2: int = Field(sa_type=BigInteger)
    heard_3: int = Field(sa_type=BigInteger)
    heard_4: int = Field(sa_type=BigInteger)
    heard_5: int = Field(sa_type=BigInteger)
    heard_6: int = Field(sa_type=BigInteger)


class EventTable(Base, table=True):
    """What devices reported, in the order of receipt. Ids are stored packed (a UUID as 16 bytes), unique for their
    device: devices that report in turn then touch few pages of the index, and a device's events are found by its first
    column."""

    __tablename__ = "event"
    __table_args__ = (
        Index("event_is", "device_key", "event_id", unique=True),
        Index("event_of_rollout", "rollout_key", "seq", sqlite_where=text("rollout_key IS NOT NULL")),
        {"sqlite_autoincrement": True},
    )

    seq: int | None = key_field()
    device_key: int = Field(sa_type=BigInteger)
    rollout_key: int | None = Field(sa_type=BigInteger)
    received_at: int = number_field()
    event_id: bytes = Field()
    kind: str = text_field()
    device_at: str | None = text_field()
    code: str | None = text_field()
    message: str | None = text_field()


class EvidenceTable(Base, table=True):
    """The evidence log: every outcome that counted, in the order in which it did, with the places it counted at.
    Whatever told of it: a report, a check-in or the clock."""

    __tablename__ = "evidence"
    __table_args__ = (Index("evidence_of_rollout", "rollout_key", "seq"), {"sqlite_autoincrement": True})

    seq: int | None = key_field()
    rollout_key: int = Field(sa_type=BigInteger, foreign_key="rollout.key")
    device_key: int = Field(sa_type=BigInteger, foreign_key="device.key")
    received_at: int = number_field()
    outcome: str = text_field()
    wave: str = text_field()
    slice_number: int = Field(sa_type=BigInteger)
    rollout_place: int = Field(sa_type=BigInteger)
    wave_place: int = Field(sa_type=BigInteger)
