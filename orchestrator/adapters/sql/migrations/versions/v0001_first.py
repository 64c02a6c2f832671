"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters.sql.house_tables import SEEDS, TRIGGERS

revision = "0001"
down_revision = None

TALLIES = ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "retired", "departed")
CLASSES = ("failed", "verify_failed", "rolled_back", "silent", "ignored", "download_failed")
OWN = tuple(f"own_{number}" for number in range(1, 9))


def _tallies() -> list[sa.Column[int]]:
    names = (*TALLIES, *(f"bad_{name}" for name in (*CLASSES, *OWN)))
    return [sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "build",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("from_commit", sa.Text(), nullable=False),
        sa.Column("to_commit", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("done", sa.Float(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("queued_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("build_of_pair", "build", ["from_commit", "to_commit"], unique=False)
    op.create_index(
        "build_under_way",
        "build",
        ["from_commit", "to_commit"],
        unique=True,
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_table(
        "delta",
        sa.Column("from_commit", sa.Text(), nullable=False),
        sa.Column("to_commit", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("parts", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("fallbacks", sa.BigInteger(), nullable=False),
        sa.Column("fallback_bytes", sa.BigInteger(), nullable=False),
        sa.Column("build_seconds", sa.Float(), nullable=True),
        sa.Column("cpu_seconds", sa.Float(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("from_commit", "to_commit"),
    )
    op.create_table("device_group", sa.Column("name", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("name"))
    op.create_table(
        "effect",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "event",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.Column("rollout_key", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("device_at", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("event_is", "event", ["device_key", "event_id"], unique=True)
    op.create_index(
        "event_of_rollout",
        "event",
        ["rollout_key", "seq"],
        unique=False,
        sqlite_where=sa.text("rollout_key IS NOT NULL"),
    )
    op.create_table(
        "house",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "release",
        sa.Column("hardware_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("commit_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hardware_id", "version"),
    )
    op.create_index("release_commit", "release", ["hardware_id", "commit_id"], unique=False)
    op.create_table(
        "rollout",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("spec_digest", sa.Text(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("target_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=True),
        sa.Column("clock", sa.Text(), nullable=True),
        sa.Column("devices", sa.BigInteger(), nullable=False),
        sa.Column("journal_seq", sa.BigInteger(), nullable=False),
        sa.Column("journal_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "software",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hardware_id", sa.Text(), nullable=False),
        sa.Column("commit_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("software_is", "software", ["hardware_id", "commit_id", "version"], unique=True)
    op.create_table(
        "target",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("commit_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("hardware_ids", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "budget",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("outcomes", sa.Text(), nullable=False),
        sa.Column("bad_limit", sa.BigInteger(), nullable=False),
        sa.Column("bad", sa.BigInteger(), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "outcomes"),
    )
    op.create_table(
        "device",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("software_key", sa.BigInteger(), nullable=False),
        sa.Column("hash_high", sa.BigInteger(), nullable=False),
        sa.Column("hash_low", sa.BigInteger(), nullable=False),
        sa.Column("since_at", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=True),
        sa.Column("group_name", sa.Text(), nullable=True),
        sa.Column("usual_gap", sa.BigInteger(), nullable=False),
        sa.Column("healthy", sa.Integer(), nullable=False),
        sa.Column("held_because", sa.Text(), nullable=True),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.ForeignKeyConstraint(["group_name"], ["device_group.name"]),
        sa.ForeignKeyConstraint(["software_key"], ["software.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index(
        "device_in_group", "device", ["group_name"], unique=False, sqlite_where=sa.text("group_name IS NOT NULL")
    )
    op.create_index("device_is", "device", ["id"], unique=True)
    op.create_index("device_runs", "device", ["tag", "status", "software_key"], unique=False)
    op.create_index("device_since", "device", ["tag", "since_at"], unique=False)
    op.create_table(
        "journal",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=True),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("evidence_seq", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "seq"),
    )
    op.create_table(
        "look",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("looked_at", sa.BigInteger(), nullable=False),
        sa.Column("eligible", sa.BigInteger(), nullable=False),
        sa.Column("reachable", sa.BigInteger(), nullable=False),
        sa.Column("already_there", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "wave"),
    )
    op.create_table(
        "monitor",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("from_place", sa.BigInteger(), nullable=False),
        sa.Column("bad", sa.BigInteger(), nullable=False),
        sa.Column("crossed_bad", sa.BigInteger(), nullable=True),
        sa.Column("crossed_place", sa.BigInteger(), nullable=True),
        sa.Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("monitor_is", "monitor", ["rollout_key", "name", "attempt"], unique=True)
    op.create_table(
        "need",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("from_commit", sa.Text(), nullable=False),
        sa.Column("to_commit", sa.Text(), nullable=False),
        sa.Column("devices", sa.BigInteger(), nullable=False),
        sa.Column("known", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "wave", "from_commit", "to_commit"),
    )
    op.create_table(
        "pace",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("spent_until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "wave"),
    )
    op.create_table(
        "population",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("places", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "name"),
    )
    op.create_table(
        "slice",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("members", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), nullable=False),
        sa.Column("excluded", sa.BigInteger(), server_default="0", nullable=False),
        *_tallies(),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "wave", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "slice_apart",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        *_tallies(),
        sa.ForeignKeyConstraint(
            ["rollout_key"],
            ["rollout.key"],
        ),
        sa.PrimaryKeyConstraint("rollout_key", "wave", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "own_class",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_key"],
            ["rollout.key"],
        ),
        sa.PrimaryKeyConstraint("rollout_key", "slot"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "slice_ranks",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("given", sa.Text(), nullable=False),
        sa.Column("ranks", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "wave", "number"),
    )
    op.create_table(
        "device_label",
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("by_operator", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"]),
        sa.PrimaryKeyConstraint("device_key", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("label_devices", "device_label", ["key", "value", "device_key"], unique=False)
    op.create_table(
        "slice_key",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("excluded", sa.Integer(), nullable=False),
        sa.Column("apart", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("slice_key_is", "slice_key", ["rollout_key", "wave", "number", "excluded", "apart"], unique=True)
    op.create_table(
        "device_update",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("installing_at", sa.BigInteger(), nullable=True),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("resolved", sa.Integer(), nullable=False),
        sa.Column("recovered_at", sa.BigInteger(), nullable=True),
        sa.Column("bad", sa.Integer(), nullable=False),
        sa.Column("slice_key", sa.BigInteger(), nullable=False),
        sa.Column("usual_gap", sa.BigInteger(), nullable=False),
        sa.Column("look_at", sa.BigInteger(), nullable=True),
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["slice_key"], ["slice_key.key"]),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"]),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index(
        "update_bad",
        "device_update",
        ["rollout_key", "device_key"],
        unique=False,
        sqlite_where=sa.text("bad > 0"),
        postgresql_where=sa.text("bad > 0"),
    )
    op.create_index(
        "update_deadline",
        "device_update",
        ["rollout_key", "look_at"],
        unique=False,
        sqlite_where=sa.text("look_at IS NOT NULL"),
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_table(
        "clock_mark",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["device_update.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "cohort",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("hardware_id", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("installed", sa.BigInteger(), nullable=False),
        *(sa.Column(f"heard_{number}", sa.BigInteger(), nullable=False) for number in range(1, 7)),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key", "hardware_id", "minute"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "update_offer",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("offered_at", sa.BigInteger(), nullable=False),
        sa.Column("from_key", sa.BigInteger(), nullable=False),
        sa.Column("to_key", sa.BigInteger(), nullable=False),
        sa.Column("check_ins", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("rollout_place", sa.BigInteger(), nullable=False),
        sa.Column("wave_place", sa.BigInteger(), nullable=False),
        sa.Column("unhealthy_before", sa.Integer(), nullable=False),
        sa.Column("by_delta", sa.Integer(), nullable=True),
        sa.Column("segment_places", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["device_update.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "evidence",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("wave", sa.Text(), nullable=False),
        sa.Column("slice_number", sa.BigInteger(), nullable=False),
        sa.Column("rollout_place", sa.BigInteger(), nullable=False),
        sa.Column("wave_place", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"]),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("evidence_of_rollout", "evidence", ["rollout_key", "seq"], unique=False)
    op.create_table(
        "evidence_seal",
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_key"], ["rollout.key"]),
        sa.PrimaryKeyConstraint("rollout_key"),
    )
    op.create_table(
        "monitor_node",
        sa.Column("monitor_key", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["monitor_key"], ["monitor.key"]),
        sa.PrimaryKeyConstraint("monitor_key", "level", "number"),
        sqlite_with_rowid=False,
    )

    for statement in (*TRIGGERS[op.get_bind().dialect.name], *SEEDS):
        op.get_bind().exec_driver_sql(statement)
