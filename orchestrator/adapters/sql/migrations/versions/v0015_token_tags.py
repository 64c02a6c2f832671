"""Tokens that order only about rollouts of some tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("person_token", sa.Column("tags", sa.Text(), nullable=True))
