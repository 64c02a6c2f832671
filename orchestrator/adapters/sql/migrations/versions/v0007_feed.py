"""The entries of all journals, numbered in the order of their commits; those there are, in the order of their times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "journal_feed",
        sa.Column("number", _KEY, nullable=False),
        sa.Column("rollout_key", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    # A journal's own order holds, though a clock may have been turned back.
    op.execute(
        "INSERT INTO journal_feed (rollout_key, seq) SELECT rollout_key, seq FROM (SELECT rollout_key, seq, "
        "max(at) OVER (PARTITION BY rollout_key ORDER BY seq) AS latest FROM journal) j "
        "ORDER BY latest, rollout_key, seq"
    )
