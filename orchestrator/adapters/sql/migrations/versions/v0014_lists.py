"""What pages list is found in its order, and what they ask each second without reading the logs of builds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_index("rollout_made", "rollout", ["created_at", "key"], unique=False)
    op.create_index("rollout_stands", "rollout", ["status", "created_at", "key"], unique=False)
    op.create_index("delta_recorded", "delta", ["recorded_at", "to_commit", "from_commit"], unique=False)
    op.create_index("build_ended", "build", ["ended_at"], unique=False)
    op.create_index(
        "build_unsettled",
        "build",
        ["key"],
        unique=False,
        sqlite_where=sa.text("status <> 'done'"),
        postgresql_where=sa.text("status <> 'done'"),
    )
