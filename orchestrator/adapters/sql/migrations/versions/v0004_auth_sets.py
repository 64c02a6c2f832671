"""Authentication sets of Mender devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "auth_set",
        sa.Column("id", _SORTED, nullable=False),
        sa.Column("identity_digest", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("auth_set_of_identity", "auth_set", ["identity_digest"], unique=False)
    op.create_index("auth_set_of_device", "auth_set", ["device_id"], unique=False)
    op.create_index("auth_set_waits", "auth_set", ["status", "asked_at"], unique=False)
    op.create_index(
        "auth_set_accepted",
        "auth_set",
        ["identity_digest"],
        unique=True,
        sqlite_where=sa.text("status = 'accepted'"),
        postgresql_where=sa.text("status = 'accepted'"),
    )
