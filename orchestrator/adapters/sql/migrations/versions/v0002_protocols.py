"""Which protocol a device speaks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "device_protocol",
        sa.Column("device_key", sa.BigInteger(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("highest_version", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"]),
        sa.PrimaryKeyConstraint("device_key"),
    )
