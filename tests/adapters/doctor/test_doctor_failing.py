"""`wave doctor` where something is wrong: each thing that may fail is said, with what to do about it.

What is wrong with versions of the schema, certificates that end, roots and ports stands in ``test_doctor.py``.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from orchestrator.adapters.authority import FileAuthority
from orchestrator.adapters.doctor import database, machine
from orchestrator.adapters.doctor.examining import examine
from orchestrator.bootstrap import open_tuf
from orchestrator.services.doctor import Area, Finding, Level
from orchestrator.services.settings import Settings
from tests.adapters.ordinary import as_anybody
from tests.postgres import Cluster

NOW = datetime.now(UTC)

pytestmark = pytest.mark.ostree


def wrong(settings: Settings, area: Area, *, now: datetime = NOW, file: Path | None = None) -> list[Finding]:
    """What is not well in an area; each says what to do."""
    found = [each for each in examine(settings, now, file=file) if each.area is area and each.level is not Level.OK]
    assert all(each.remedy and each.sentence.endswith(".") for each in found)
    return found


def failing(settings: Settings, area: Area, words: str, *, now: datetime = NOW) -> Finding:
    (found,) = [each for each in wrong(settings, area, now=now) if words in each.sentence]
    assert found.level is Level.FAIL
    return found


def warned(settings: Settings, area: Area, words: str, *, now: datetime = NOW) -> Finding:
    (found,) = [each for each in wrong(settings, area, now=now) if words in each.sentence]
    assert found.level is Level.WARN
    return found


def with_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Path:
    """A PATH with these programs alone."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    return folder


# -------------------------------------------------------------------------------------------------------- store


def test_a_database_that_is_not_there_or_has_no_tables(house: Settings) -> None:
    file = house.root / "wave.db"
    file.unlink()
    assert "wave db upgrade" in (failing(house, Area.STORE, "There is no database").remedy or "")
    file.touch(mode=0o600)
    assert "wave db upgrade" in (failing(house, Area.STORE, "is empty").remedy or "")


def test_a_database_of_another_program(house: Settings) -> None:
    file = house.root / "wave.db"
    file.unlink()
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE theirs (a)")
    raw.close()
    failing(house, Area.STORE, "belongs to another program")


def test_a_file_system_without_a_write_ahead_log(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_journal_mode", lambda raw: "delete")
    assert "disk of this machine" in (warned(house, Area.STORE, "journal mode is delete").remedy or "")


def test_a_write_ahead_log_that_nobody_empties(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LARGE_LOG", 10_000)
    raw = sqlite3.connect(house.root / "wave.db")
    raw.execute("CREATE TABLE much (a)")
    raw.execute("INSERT INTO much VALUES (zeroblob(100000))")
    raw.commit()
    warned(house, Area.STORE, "write-ahead log has grown")
    raw.close()


def test_a_server_that_does_not_answer_and_its_password_is_not_said(house: Settings) -> None:
    away = house.model_copy(update={"database": "postgresql+psycopg://wave:SECRET@/wave?host=/nowhere"})
    found = examine(away, NOW)
    assert [each for each in found if each.area is Area.STORE and each.level is Level.FAIL]
    assert not any("SECRET" in f"{each.sentence}{each.remedy}" for each in found)


@pytest.mark.postgres
def test_a_postgresql_that_may_lose_what_it_took_and_one_with_another_clock(
    house: Settings, postgres: tuple[Cluster, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, name = postgres
    there = house.model_copy(update={"database": cluster.url(name)})
    assert "fsync = off" in failing(there, Area.STORE, "loss of power").sentence

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(minutes=10)

    monkeypatch.setattr(machine, "datetime", Later)
    warned(there, Area.CLOCK, "PostgreSQL are 600 seconds apart")
    monkeypatch.setattr(database, "_OLDEST_POSTGRESQL", 10**9)
    warned(there, Area.STORE, "gets no repairs")


# --------------------------------------------------------------------------------------------------------- disk


@pytest.mark.parametrize(
    ("at_least", "should"), [("FREE_AT_LEAST", "FREE_SHOULD"), ("INODES_AT_LEAST", "INODES_SHOULD")]
)
def test_a_disk_that_is_nearly_full(
    house: Settings, monkeypatch: pytest.MonkeyPatch, at_least: str, should: str
) -> None:
    room = os.statvfs(house.root)
    if not room.f_files and at_least.startswith("INODES"):
        return  # this file system makes them as it goes, and has no end of them
    monkeypatch.setattr(machine, should, 10**19)
    assert "wave delta drop" in (warned(house, Area.DISK, "are free for").remedy or "")
    monkeypatch.setattr(machine, at_least, 10**19)
    assert "Free some" in (failing(house, Area.DISK, "are free for").remedy or "")


# ------------------------------------------------------------------------------------------------------ content


def test_no_ostree_where_there_is_a_repository_and_where_there_is_none(
    house: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path / "bin", monkeypatch)
    assert "apt-get install ostree" in (failing(house, Area.CONTENT, "`ostree` is not there").remedy or "")
    shutil.rmtree(house.repository_path)
    warned(house, Area.CONTENT, "Targets can be files only")


def test_an_ostree_that_is_too_old(house: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = with_programs(tmp_path / "bin", monkeypatch) / "ostree"
    old.write_text("#!/bin/sh\necho libostree:\necho \" Version: '2019.1'\"\n")
    old.chmod(0o755)
    assert "2020.8" in (failing(house, Area.CONTENT, "too old").remedy or "")


def test_a_repository_that_may_not_be_written(house: Settings) -> None:
    (house.repository_path / "objects").chmod(0o500)

    def look() -> None:
        failing(house, Area.CONTENT, "may not write to the repository")

    as_anybody(look)


def test_a_signed_summary_and_nobody_who_signs(house: Settings) -> None:
    (house.repository_path / "summary.sig").touch()
    assert "gpg_sign" in (warned(house, Area.CONTENT, "is signed, and no key is set").remedy or "")


@pytest.fixture
def gpg_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gpg-") as folder:  # short: its sockets have at most 108 characters
        yield Path(folder)
        subprocess.run(["gpgconf", f"--homedir={folder}", "--kill", "gpg-agent"], check=False)


def test_a_signing_key_that_is_not_there_is_over_or_has_no_gpg(
    house: Settings, gpg_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing = house.model_copy(update={"gpg_sign": "wave@example.org", "gpg_homedir": gpg_home})
    assert "gpg_homedir" in (failing(signing, Area.CONTENT, "is not there").remedy or "")
    make = ["gpg", f"--homedir={gpg_home}", "--batch", "--quiet", "--passphrase", "", "--faked-system-time"]
    make += ["20200101T000000", "--quick-generate-key", "wave@example.org", "ed25519", "sign", "1d"]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    assert "--quick-set-expire" in (failing(signing, Area.CONTENT, "is over").remedy or "")
    gpg_home.chmod(0o755)
    assert "chmod 700" in (failing(signing, Area.SECRETS, "directory of GPG keys").remedy or "")
    with_programs(tmp_path / "bin", monkeypatch, "ostree")
    assert "gnupg" in (failing(signing, Area.CONTENT, "gpg is not there").remedy or "")


# -------------------------------------------------------------------------------------------------------- clock


def test_a_clock_that_nothing_keeps_right(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_synchronised", lambda: False)
    assert "chrony" in (warned(house, Area.CLOCK, "nothing keeps the clock right").remedy or "")


def test_a_machine_without_time_zones(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(key: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(key)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", none)
    assert "tzdata" in (failing(house, Area.CLOCK, "tables of time zones").remedy or "")


# ------------------------------------------------------------------------------------------------- certificates


@pytest.fixture
def served(house: Settings) -> Settings:
    """With TLS, and devices' certificates of an authority that ends soon."""
    authority = FileAuthority(house.root / "ca")
    authority.make("factory", lasts=timedelta(days=3650), now=NOW)
    made = authority.server(["gateway"], lasts=timedelta(days=397), since=NOW - timedelta(minutes=1))
    authority.save(made, house.root / "tls", "gateway")
    theirs = FileAuthority(house.root / "theirs")
    theirs.make("theirs", lasts=timedelta(days=20), now=NOW)
    keys = {
        "tls_certificate": house.root / "tls/gateway.pem",
        "tls_key": house.root / "tls/gateway.key",
        "tls_client_ca": house.root / "theirs/ca.pem",
    }
    return house.model_copy(update=keys)


def test_a_certificate_that_is_not_good_yet_and_an_authority_that_ends(served: Settings) -> None:
    warned(served, Area.CERTIFICATES, "that names devices is good until")
    yesterday = NOW - timedelta(days=2)
    assert "clock" in (failing(served, Area.CERTIFICATES, "is good from", now=yesterday).remedy or "")


def test_files_that_are_no_certificate_and_no_key(served: Settings) -> None:
    assert served.tls_key is not None and served.tls_certificate is not None
    served.tls_key.write_text("hello")
    failing(served, Area.CERTIFICATES, "is no private key in PEM")
    served.tls_certificate.write_text("hello")
    failing(served, Area.CERTIFICATES, "holds no certificate in PEM")
    served.tls_certificate.unlink()
    failing(served, Area.CERTIFICATES, "gateway.pem cannot be looked at: No such file")


def test_a_root_that_is_missing_between_others(house: Settings) -> None:
    tuf = open_tuf(house, clock=lambda: NOW)
    tuf.init()
    tuf.rotate()
    tuf.rotate()
    (house.tuf_path / "2.root.json").unlink()
    assert "backup" in (failing(house, Area.TUF, "Root 2 is missing").remedy or "")


# -------------------------------------------------------------------------------------------------------- ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something listens that says nothing that we know."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield int(somebody.getsockname()[1])


def test_the_operators_port_that_nobody_asked_for_keeps_no_device_away(
    house: Settings, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ANSWERS_WITHIN", 0.2)
    by_default = Settings.model_construct(_fields_set={"root", "port"}, root=house.root, port=0, console_port=taken)
    found = warned(by_default, Area.PORTS, f"port {taken}, for operators, is held by something else")
    assert "serves devices without them" in found.sentence and "`console_port: off`" in (found.remedy or "")
    asked_for = house.model_copy(update={"console_port": taken})
    assert "cannot start" in failing(asked_for, Area.PORTS, "for operators, is held by something else").sentence


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "is not allowed to this user"), (errno.EADDRNOTAVAIL, "cannot be had")],
    ids=["not allowed", "not of this machine"],
)
def test_a_port_that_cannot_be_had(house: Settings, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def bind(self: socket.socket, address: tuple[str, int]) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", bind, raising=False)
    failing(house.model_copy(update={"port": 443}), Area.PORTS, words)


# ------------------------------------------------------------------------------------------------------- limits


def test_few_open_files_are_warned_of(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1024))
    assert "ulimit" in (warned(house, Area.LIMITS, "334 devices can be connected").remedy or "")
