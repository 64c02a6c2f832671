"""From SQLite to PostgreSQL: all of it is there, counts up, and goes on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.lock import Lock, lock_file
from tests.cli.house import House
from tests.postgres import Cluster

pytestmark = pytest.mark.postgres


def test_all_of_a_sqlite_database_is_copied_and_goes_on(
    fleet: House, postgres: tuple[Cluster, str], tmp_path: Path
) -> None:
    """A rollout under way, its devices with their tokens, its journal: all of it is there, and new keys are free."""
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    fleet.build()
    fleet.tick()
    assert fleet.devices_do("confirmed") > 0
    before = {command: fleet.json(*command.split()) for command in ("list", "device list", "journal lmp-42")}
    file = tmp_path / "postgresql.yaml"
    url = postgres[0].url(postgres[0].database())
    file.write_text(f"database: {url}\n")

    lock = Lock(lock_file(fleet.settings.database_url, fleet.root))
    with lock.held():
        assert lock.take()
        assert fleet.run("db", "copy", str(file)).exit_code == 4, "a server runs"
    assert "count up" in fleet.ok("db", "copy", str(file))
    assert fleet.run("db", "copy", str(file)).exit_code == 4, "it is not empty any more"

    (fleet.root / "wave.yaml").write_text(f"root: .\ndatabase: {url}\n")
    fleet.database = url
    assert {command: fleet.json(*command.split()) for command in before} == before
    newest = fleet.json("log", "--limit", "1")[0]
    assert (newest["by"], newest["event"]) == ("mika", "database_copied")
    assert fleet.run("journal", "verify").exit_code == 0
    fleet.tick(timedelta(hours=1))
    fleet.ok("device", "enroll", "new-1", "--hardware-id", "rpi4", "--tag", "promoted")
    fleet.devices_do("confirmed")
    assert "counts up" in fleet.ok("db", "check")
