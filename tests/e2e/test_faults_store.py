"""The database is full, read-only, locked, newer, older, damaged or gone: one sentence, and nothing is lost.

=======================================================  ==========================================================
what happens                                              where it is shown
=======================================================  ==========================================================
what SQLite and PostgreSQL say becomes a sentence         tests/contract/test_schema.py
newer, older, somebody else's, empty, no database         tests/contract/test_schema.py; test_what_is_no_database...
no installation, a file that is none, a locked one        tests/cli/test_errors.py; test_a_locked_database
a full disk, under ``wave`` and under a running server    test_a_full_disk_and_then_room_again
a read-only disk, likewise                                test_a_read_only_disk
a damaged file under a running server                     test_what_is_no_database_of_ours
a clock that is set back                                  test_a_clock_that_is_set_back
PostgreSQL goes away and comes back                       test_faults_two_servers.py
=======================================================  ==========================================================
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Final

import pytest

from tests.adapters.ordinary import without_privileges
from tests.disks import fill, mounted, remount
from tests.e2e.faults import FIELD, LAB, POLICY, House, copied, events_logged, no_traceback
from tests.e2e.faulty_fleet import Fleet, ask
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.slow]


class Disk:
    """The small disk that the database of a house lies on, alone."""

    full: ClassVar[str] = "is full; nothing of this was written"
    """What is said of it when it is full, after its name."""
    read_only: ClassVar[str] = "cannot be opened: its directory is read-only. Mount it writable, "
    """What is said of the database when nothing there may be written."""

    def __init__(self, house: House, at: Path) -> None:
        self.house = house
        self.at = at

    def fill(self) -> None:
        fill(self.at)

    def empty(self) -> None:
        (self.at / "filler").unlink()

    def writable(self, yes: bool) -> None:
        remount(self.at, writable=yes)


class Folder(Disk):
    """What stands for it where none can be mounted: files that may not grow, and permissions.

    The kernel refuses a write beyond a limit that is put on each process, as long as a reader keeps the log from
    being begun anew below that limit. SQLite hears "too large" and not "no space", and says that the disk fails."""

    full = "fails"
    read_only = "cannot be written: the file or its directory is read-only. "
    most: Final = 256 * 1024
    """Bytes. The server's own log stays far below it."""

    def fill(self) -> None:
        self.holder = sqlite3.connect(self.house.database, isolation_level=None, timeout=60, check_same_thread=False)
        log = self.house.database.with_name(f"{self.house.database.name}-wal")
        with closing(sqlite3.connect(self.house.database, timeout=60)) as writer:
            writer.execute("PRAGMA wal_autocheckpoint = 0")
            while log.stat().st_size <= self.most + (64 << 10):
                writer.execute("UPDATE alembic_version SET version_num = version_num")
                writer.commit()
                if not self.holder.in_transaction:
                    self.holder.execute("BEGIN")
                    self.holder.execute("SELECT * FROM alembic_version").fetchall()
        self.house.before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.most))
        self._limit(self.most)

    def empty(self) -> None:
        self.house.before = None
        self._limit(resource.RLIM_INFINITY)
        self.holder.close()

    def _limit(self, most: int) -> None:
        for server in self.house.servers:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def writable(self, yes: bool) -> None:
        self.at.chmod(0o755 if yes else 0o555)
        self.house.before = None if yes else without_privileges


@pytest.fixture
def on_disk(template: House, tmp_path: Path) -> Iterator[tuple[House, Disk]]:
    """A house whose database alone lies on a small disk."""
    at = tmp_path / "disk"
    with mounted(at, 8) as real, copied(template, tmp_path / "house") as house:
        shutil.move(house.database, at / "wave.db")
        house.settings(more=f"database: sqlite:///{at / 'wave.db'}")
        house.elsewhere = at / "wave.db"
        try:
            yield house, (Disk if real else Folder)(house, at)
        finally:
            house.close()


def test_a_full_disk_and_then_room_again(on_disk: tuple[House, Disk]) -> None:
    """The disk fills up in the middle of a rollout. Devices are told to come later and keep what they have to tell;
    orders are refused in a sentence; reading goes on. With room again the rollout goes on by itself."""
    house, disk = on_disk
    house.begin(policy=POLICY.replace("at_least: 1s", "at_least: 3s"))
    server = house.serve()
    fleet = Fleet(house)
    with fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB, alive=server)
    disk.fill()
    fleet.round_whatever()
    lab = fleet.devices[-1]
    status, answer = ask(
        house.port,
        f"/v1/devices/{lab.id}/reports",
        {"events": [{"id": "full", "rollout": "r3", "target": 3, "event": "downloading"}]},
        lab.token,
    )
    assert (status, answer["error"]["kind"]) == (503, "store_unavailable"), answer
    assert answer["error"]["message"] == "The server cannot do this now; ask again later."
    sentence = house.fails(6, "pause", "r3", "--reason", "the disk is full")
    assert sentence.startswith(f"The disk that holds the database {disk.at / 'wave.db'} {disk.full}. ")
    assert house.status()["status"] == "running"
    assert disk.full in server.said()
    disk.empty()
    with fleet:
        until("it is completed", lambda: house.rollout_status() == "completed", alive=server)
        until("all is told", lambda: not any(device.waiting for device in fleet.devices))
    fleet.assert_told_once(events_logged(house))
    assert len(events_logged(house)) == 3 * (LAB + FIELD)
    house.counts_up()
    server.stop()


def test_a_read_only_disk(on_disk: tuple[House, Disk]) -> None:
    """Whatever needs the database says so in a sentence (SQLite cannot even read it without files beside it); mounted
    writable again, everything is as it was."""
    house, disk = on_disk
    house.begin()
    disk.writable(False)
    said = f"The database {disk.at / 'wave.db'} {disk.read_only}"
    for words in (["pause", "r3", "--reason", "x"], ["status", "r3"]):
        assert house.fails(6, *words).startswith(said)
    server = house.serve(listens=False)
    assert server.process.wait(60) == 6
    assert server.said().startswith(f"wave: {said}") and server.said().count("\n") == 1
    disk.writable(True)
    assert house.status()["status"] == "running"
    house.counts_up()


def test_a_file_that_cannot_grow(house: House) -> None:
    """The way to a write that fails which needs no mount: a limit on the size of files."""
    large = house.database.stat().st_size + 32 * 1024
    lines = "".join(f"  - {{id: more-{n:05}, hardware_id: board, tag: main}}\n" for n in range(5000))
    house.file("more.yaml", "devices:\n" + lines)
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", "device", "enroll", "--from", "more.yaml", "--tokens-to", "more"],
        cwd=house.root,
        env=house.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (large, large)),
    )
    assert ended.returncode == 6, ended.stderr
    assert ended.stderr.startswith("wave: The disk that holds the database wave.db ") and ended.stderr.count("\n") == 1
    assert "refused" not in house.ok("list").said
    house.counts_up()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("newer", "has schema 9999, which is newer than this program"),
        ("noise", "is not a database of this program"),
        ("empty", "is empty. Make it with `wave db upgrade`, or bring one that was lost back with `wave restore`."),
        ("foreign", "belongs to another program. Give this one a database of its own."),
        ("gone", "`wave init` makes one; `--root DIR` or a settings file names another."),
        ("folder", "is a directory, not a database. Name a file in it."),
    ],
)
def test_what_is_no_database_of_ours(house: House, damage: str, said: str) -> None:
    """A server says so and ends with 6; the file stays as it is."""
    path = house.database
    match damage:
        case "newer" | "foreign":
            connection = sqlite3.connect(path)
            sql = (
                "UPDATE alembic_version SET version_num = '9999'" if damage == "newer" else "DROP TABLE alembic_version"
            )
            connection.execute(sql)
            connection.commit()
            connection.close()
        case "noise":
            path.write_bytes(b"what is this?" * 1000)
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    server = house.serve(listens=False)
    assert server.process.wait(60) == 6, server.said()
    assert server.said().startswith("wave: ") and server.said().count("\n") == 1
    assert said in server.said()
    if damage != "empty":  # looking makes an empty file a database without tables; there is nothing in it to lose
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_locked_database(house: House) -> None:
    """A backup tool holds the write lock for a while: devices are told to come again and lose nothing, an order is
    refused in a sentence after ten seconds, and afterwards everything goes on."""
    house.begin()
    server = house.serve()
    with Fleet(house) as fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB, alive=server)
        holder = sqlite3.connect(house.database, isolation_level=None, timeout=60)
        holder.execute("BEGIN IMMEDIATE")
        sentence = house.fails(5, "pause", "r3", "--reason", "x")
        holder.execute("ROLLBACK")
        holder.close()
        until("all is told", lambda: not any(device.waiting for device in fleet.devices))
    assert sentence == (
        "The database wave.db was busy for 10 s; nothing of this was written. Another program is writing it; try again."
    )
    no_traceback(server.said())
    fleet.assert_told_once(events_logged(house))
    house.counts_up()


SHIFTED = """
import sys
from datetime import datetime, timedelta
import orchestrator.bootstrap as bootstrap

class Shifted(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds={seconds})

bootstrap.datetime = Shifted
from orchestrator.__main__ import main
sys.exit(main())
"""


def test_a_clock_that_is_set_back(house: House) -> None:
    """An hour back after a rollout has begun: a tick takes the last one's time, decides nothing backwards, and the
    server goes on taking reports."""
    house.begin()
    ticks = []
    for seconds in (0, -3600, 2):
        ended = subprocess.run(
            [sys.executable, "-c", SHIFTED.format(seconds=seconds), "tick", "--once", "--json"],
            cwd=house.root,
            env=house.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        ticks.append(json.loads(ended.stdout)["result"]["at"])
    assert ticks[0] == ticks[1] < ticks[2]
    server = house.serve(code=SHIFTED.format(seconds=-3600))
    fleet = Fleet(house)
    fleet.round()
    until("the lab has it", lambda: fleet.round_whatever() == 0 and fleet.running(3) >= LAB, alive=server, every=0.5)
    times = [at for (at,) in house.rows("SELECT at FROM journal ORDER BY seq")]
    assert times == sorted(times)
    fleet.assert_told_once(events_logged(house))
    server.stop()
    house.counts_up()
