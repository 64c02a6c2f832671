"""A builder as a process of its own: ``python -m tests.services.builder_process DATABASE FOLDER OWNER LEASE COMMIT…``.

It builds with the fake provider until SIGTERM; ``LEASE`` in seconds.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.adapters.processes import stop_event
from orchestrator.adapters.sql.store import open_store
from orchestrator.services.builder import Builder, Pace
from tests.services.fake_provider import FakeProvider


def main(database: str, folder: str, owner: str, lease: str, *commits: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    store = open_store(database)
    pace = Pace(lease=timedelta(seconds=float(lease)), idle=timedelta(seconds=0.05), retry_after=timedelta(seconds=0.2))
    provider = FakeProvider(Path(folder), commits)
    name = f"{owner}:{os.getpid()}"
    with stop_event(with_parent=True) as stop:
        Builder(store, provider, lambda: datetime.now(UTC), owner=name, pace=pace).run(stop)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
