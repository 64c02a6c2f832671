"""Alembic's way in: it runs on the connection it is handed, inside the transaction of whoever hands it."""

from __future__ import annotations

from alembic import context

from orchestrator.adapters.sql.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=False)
context.run_migrations()
