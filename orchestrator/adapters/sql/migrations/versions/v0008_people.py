"""People, their tokens and their sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_FOLDED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _key() -> sa.Column[int]:
    return sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "person",
        sa.Column("folded", _FOLDED, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("folded"),
        sa.UniqueConstraint("subject"),
    )
    op.create_table(
        "person_event",
        _key(),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by_name", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("whom", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "person_token",
        _key(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("person", _FOLDED, nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["person.folded"]),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("token_digest"),
    )
    op.create_table(
        "person_session",
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("person", _FOLDED, nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.folded"]),
        sa.PrimaryKeyConstraint("token_digest"),
    )
    op.create_index("session_of_person", "person_session", ["person"], unique=False)
