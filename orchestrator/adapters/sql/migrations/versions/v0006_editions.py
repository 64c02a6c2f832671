"""What aktualizr-lite devices are shown, and what devices told of themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "edition",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("timestamp_expires_at", sa.BigInteger(), nullable=False),
        sa.Column("root_version", sa.BigInteger(), nullable=False),
        sa.Column("signings", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("edition_of_content", "edition", ["digest", "number"], unique=False)
    op.create_table(
        "shown_edition",
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"]),
        sa.ForeignKeyConstraint(["number"], ["edition.number"]),
        sa.PrimaryKeyConstraint("device_key"),
    )
    op.create_table(
        "device_told",
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"]),
        sa.PrimaryKeyConstraint("device_key", "topic"),
    )
    op.create_table(
        "delta_stats",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
