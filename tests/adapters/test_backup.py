"""Backups and the way back: while others write, over what is there, damaged, forged, and from behind the devices."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import sqlite3
import stat
import subprocess
import tarfile
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import bootstrap
from orchestrator.adapters.authority import FileAuthority
from orchestrator.adapters.backup.archive import MANIFEST, unpacked
from orchestrator.adapters.backup.making import make
from orchestrator.adapters.lock import Lock, lock_file
from orchestrator.adapters.sql.store import open_store
from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.core.editions import Lifetimes, first_of
from orchestrator.core.fleet import Device
from orchestrator.core.roles import Role
from orchestrator.errors import InvalidInput, Refused, StoreUnavailable, Unavailable
from orchestrator.services.backups import numbers_passed_over
from orchestrator.services.people_store import PersonRow, SessionRow
from orchestrator.services.settings import Settings

NOW = datetime.now(UTC)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation without content: settings, database, roots, an authority, a key of addresses, own policies."""
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "house"
    monkeypatch.setattr("orchestrator.adapters.ostree.making.make_repository", lambda path: False)
    bootstrap.initialise(root)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/mine.yaml").write_text("policy: mine\n")
    (root / "wave.yaml").write_text("root: .\npolicies: [../policies]\nport: 8777\n")
    settings = bootstrap.load_settings(None, {"root": str(root)})
    bootstrap.open_tuf(settings).init()
    FileAuthority(root / "ca").make("factory", lasts=timedelta(days=3650), now=NOW)
    (root / "artifacts").mkdir()
    (root / "artifacts/urls.key").touch(mode=0o600)
    (root / "artifacts/urls.key").write_bytes(b"k" * 32)
    return settings


def backed(settings: Settings, to: Path, **more: Any) -> Path:
    make(settings, settings.root / "wave.yaml", to, now=NOW, **{"content": False, **more})
    return to


def restored(archive: Path, root: Path, *, yes: bool = False, dry_run: bool = False) -> list[str]:
    done = bootstrap.restore(archive, None, {"root": str(root)}, by="mika", yes=yes, dry_run=dry_run)
    return list(done.warnings)


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its mode and content; locks and SQLite's own are nobody's."""
    return {
        str(each.relative_to(root)): (stat.S_IMODE(each.stat().st_mode), each.read_bytes())
        for each in sorted(root.rglob("*"))
        if each.is_file() and each.suffix != ".lock" and not each.name.startswith("wave.db-")
    }


def enrol(settings: Settings, *names: str) -> None:
    app = bootstrap.open_application(settings)
    try:
        list(app.devices.enroll([Device(name, "rpi4", "main") for name in names], tokens=False))
    finally:
        app.close()


def devices(settings: Settings) -> list[str]:
    raw = sqlite3.connect(settings.database_url.removeprefix("sqlite:///"))
    found = [name for (name,) in raw.execute("SELECT id FROM device ORDER BY id")]
    raw.close()
    return found


# ------------------------------------------------------------------------------------------------------ the way back


def test_everything_comes_back_elsewhere_with_its_modes_and_is_frozen(house: Settings, tmp_path: Path) -> None:
    enrol(house, "lab-1", "lab-2")
    archive = backed(house, tmp_path / "b.tar.gz")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    warnings = restored(archive, tmp_path / "new")
    before, after = tree(house.root), tree(tmp_path / "new")
    assert {name: held for name, held in after.items() if name != "wave.db"} == {
        name: held for name, held in before.items() if name != "wave.db"
    }
    there = bootstrap.load_settings(None, {"root": str(tmp_path / "new")})
    assert there.port == 8777
    assert devices(there) == ["lab-1", "lab-2"]
    with closing(open_store(there.database_url)) as store, store.reading() as r:
        frozen = r.frozen()
        assert r.check() == []
    assert frozen is not None and "restored from the backup" in frozen.sentence
    assert "frozen" in warnings[0]
    assert not list((tmp_path / "new").glob(".restore-*"))


def test_what_is_there_is_written_over_only_on_a_word_and_set_aside(house: Settings, tmp_path: Path) -> None:
    enrol(house, "old")
    archive = backed(house, tmp_path / "b.tar.gz")
    enrol(house, "young")
    (house.root / "wave.yaml").write_text("root: .\nport: 8778\n")
    before = tree(house.root)
    with pytest.raises(Refused, match="--yes"):
        restored(archive, house.root)
    assert tree(house.root) == before
    restored(archive, house.root, yes=True)
    assert devices(house) == ["old"]
    (aside,) = house.root.glob("before-restore-*")
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    assert (aside / "wave.yaml").read_bytes() == before["wave.yaml"][1]
    assert devices(house.model_copy(update={"database": f"sqlite:///{aside / 'wave.db'}"})) == ["old", "young"]


def test_beside_a_server_nothing_is_restored(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    before = tree(house.root)
    lock = Lock(lock_file(house.database_url, house.root))
    with lock.held():
        assert lock.take()
        with pytest.raises(Refused, match="Stop it"):
            restored(archive, house.root, yes=True)
    assert tree(house.root) == before


def test_a_dry_run_verifies_and_changes_nothing(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    before = tree(house.root)
    restored(archive, house.root, dry_run=True)
    restored(archive, tmp_path / "nowhere", dry_run=True)
    assert tree(house.root) == before
    assert not (tmp_path / "nowhere").exists()


def test_a_backup_is_never_written_over_and_none_lies_in_the_house(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    with pytest.raises(InvalidInput, match="there already"):
        backed(house, archive)
    with pytest.raises(InvalidInput, match="another disk"):
        backed(house, house.root / "b.tar.gz")
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []


def test_a_disk_too_small_for_a_backup_is_named_and_not_that_of_the_database(house: Settings, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(Unavailable, match=r"cannot be written in .*small: there is not enough room") as caught:
            backed(house, tmp_path / "small/b.tar.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(caught.value, StoreUnavailable)
    assert caught.value.remedy == "Name a directory with room."
    assert list((tmp_path / "small").iterdir()) == []


def test_where_nothing_can_be_written_a_backup_says_so(house: Settings) -> None:
    with pytest.raises(Unavailable, match="The backup cannot be written in /proc: "):
        backed(house, Path("/proc/b.tar.gz"))


def test_what_lies_outside_the_root_goes_back_there_and_never_over_anything(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    policy = tmp_path / "policies/mine.yaml"
    policy.unlink()
    restored(archive, house.root, yes=True)
    assert policy.read_text() == "policy: mine\n"
    policy.write_text("policy: changed\n")
    (said,) = [each for each in restored(archive, tmp_path / "new") if "`policies`" in each]
    assert policy.read_text() == "policy: changed\n"
    assert (tmp_path / "new/restored/policies/0/mine.yaml").read_text() == "policy: mine\n", said


# ------------------------------------------------------------------------------------------- while others write


def test_a_backup_under_load_is_of_one_moment_and_counts_up(house: Settings, tmp_path: Path) -> None:
    """A writer in another connection enrols without a pause; each backup holds whole transactions only."""
    over = threading.Event()
    done: list[int] = []

    def write() -> None:
        app = bootstrap.open_application(house)
        try:
            while not over.is_set():
                batch = [Device(f"d-{len(done):04}-{n:02}", "rpi4", "main") for n in range(20)]
                list(app.devices.enroll(batch, tokens=True))
                done.append(len(batch))
        finally:
            app.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        for number in range(4):
            before = sum(done)
            archive = backed(house, tmp_path / f"{number}.tar.gz")
            counts.append((before, archive, sum(done) + 20))
    finally:
        over.set()
        writer.join(60)
    assert counts[-1][2] > counts[0][0], "it wrote meanwhile"
    for number, (before, archive, after) in enumerate(counts):
        restored(archive, tmp_path / f"r{number}")
        there = bootstrap.load_settings(None, {"root": str(tmp_path / f"r{number}")})
        held = devices(there)
        assert before <= len(held) <= after and len(held) % 20 == 0
        with closing(open_store(there.database_url)) as store, store.reading() as r:
            assert r.check() == []


# -------------------------------------------------------------------------------------------- damaged and forged


def test_one_that_is_damaged_or_cut_off_is_refused_and_changes_nothing(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    whole, before = archive.read_bytes(), tree(house.root)
    chance = random.Random(20261122)
    refused = 0
    for _ in range(200):
        broken = bytearray(whole)
        broken[chance.randrange(10, len(whole))] ^= 1 << chance.randrange(8)  # behind gzip's head, which says nothing
        archive.write_bytes(broken)
        try:
            unpacked(archive, None)
        except InvalidInput:
            refused += 1
        else:
            assert gzip.decompress(broken) == gzip.decompress(whole), "the same in other bits"
    assert refused > 100
    archive.write_bytes(whole[:1000] + b"\0" * 100 + whole[1100:])
    with pytest.raises(InvalidInput, match="no whole backup"):
        restored(archive, house.root, yes=True)
    for length in (0, 1, 9, 10, 500, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        archive.write_bytes(whole[:length])
        with pytest.raises(InvalidInput, match="no whole backup"):
            restored(archive, house.root, yes=True)
    assert tree(house.root) == before
    assert sorted(house.root.glob(".restore-*")) == []


def again(archive: Path, *, members: list[tuple[tarfile.TarInfo, bytes]], last: bool = True) -> None:
    """Rewrite an archive with more members, before its manifest or behind it."""
    with gzip.open(archive) as raw, tarfile.open(fileobj=raw, mode="r|") as tar:
        held = [(each, (tar.extractfile(each) or io.BytesIO()).read()) for each in tar]
    told = [pair for pair in held if pair[0].name == MANIFEST]
    rest = [pair for pair in held if pair[0].name != MANIFEST]
    with gzip.open(archive, "wb") as raw, tarfile.open(fileobj=raw, mode="w|") as tar:
        for info, content in rest + members + told if last else rest + told + members:
            info.size = len(content) if info.isreg() else info.size
            tar.addfile(info, io.BytesIO(content))


def member(name: str, **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


FORGED = {
    "up and out": member("root/../../escaped"),
    "at the top": member("../escaped"),
    "absolute": member("/tmp/escaped"),
    "a dot": member("root/./escaped"),
    "empty parts": member("root//escaped"),
    "of no kind": member("escaped/file"),
    "a link": member("root/link", type=tarfile.SYMTYPE, linkname="/etc"),
    "a hard link": member("root/link", type=tarfile.LNKTYPE, linkname="root/wave.yaml"),
    "a device": member("root/device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a pipe": member("root/pipe", type=tarfile.FIFOTYPE),
    "a folder": member("root/folder", type=tarfile.DIRTYPE),
    "a header of pax": member("root/x", pax_headers={"comment": "x" * 100_000}),
    "a name without an end": member("root/" + "x" * 2_000),
    "one that is there": member("root/wave.yaml"),
    "one that nobody named": member("root/more.yaml"),
    "a line break": member("root/a\nb"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_what_does_not_belong_in_one_is_refused(forged: tarfile.TarInfo, house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    again(archive, members=[(forged, b"forged\n")])
    before = tree(tmp_path)
    with pytest.raises(InvalidInput, match="no whole backup"):
        restored(archive, tmp_path / "new")
    assert tree(tmp_path) == before


def test_what_stands_behind_the_manifest_is_refused(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    again(archive, members=[(member("root/more.yaml"), b"")], last=False)
    with pytest.raises(InvalidInput, match="no whole backup"):
        unpacked(archive, None)


# ----------------------------------------------------------------------------------------- from behind the devices


def edition(house: Settings, *numbers: int) -> None:
    with closing(open_store(house.database_url)) as store, store.writing() as w:
        for number in numbers:
            w.save_edition(first_of(number, f"digest-{number}", "{}", Lifetimes(), root_version=1, now=NOW))


def test_no_number_that_devices_have_seen_is_shown_again(house: Settings, tmp_path: Path) -> None:
    """day 0  a backup, when three numbers had been shown
    day 2  numbers to 9000 have been shown; the disk breaks, and the backup is restored over what is left of it
    """
    edition(house, 1, 2, 3)
    archive = backed(house, tmp_path / "b.tar.gz")
    edition(house, 9_000)
    for root, least in ((tmp_path / "new", 3 + numbers_passed_over(timedelta(0))), (house.root, 9_001)):
        warnings = restored(archive, root, yes=True)
        there = bootstrap.load_settings(None, {"root": str(root)})
        with closing(open_store(there.database_url)) as store, store.reading() as r:
            assert r.last_edition() == least
            shown = [r.edition(number) for number in (1, 2, 3)]
        assert not any(each.lasts(Lifetimes(), datetime.now(UTC)) for each in shown if each is not None)
        assert any(f"counts on from {least}" in each for each in warnings)


def test_the_longer_ago_the_backup_the_more_numbers_are_passed_over() -> None:
    assert [numbers_passed_over(timedelta(days=days)) for days in (-3, 0, 1, 30)] == [1_000, 1_000, 2_000, 31_000]


def test_newer_roots_stay_and_that_is_said(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    bootstrap.open_tuf(house).rotate()
    roots = TufFolder(house.tuf_path).roots()
    assert max(roots) == 2
    warnings = restored(archive, house.root, yes=True)
    assert TufFolder(house.tuf_path).roots() == roots
    assert bootstrap.open_tuf(house).show().problem is None
    assert any("newer than the backup's" in each for each in warnings)
    elsewhere = restored(archive, tmp_path / "new")
    assert any("If a later one was made since" in each for each in elsewhere)


def test_roots_of_another_repository_are_set_aside(house: Settings, tmp_path: Path) -> None:
    archive = backed(house, tmp_path / "b.tar.gz")
    mine = TufFolder(house.tuf_path).roots()
    for each in sorted(house.tuf_path.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    for _ in range(2):
        tuf = bootstrap.open_tuf(house)
        tuf.rotate() if TufFolder(house.tuf_path).roots() else tuf.init()
    assert any("are others than the backup's" in each for each in restored(archive, house.root, yes=True))
    assert TufFolder(house.tuf_path).roots() == mine
    assert bootstrap.open_tuf(house).show().problem is None


def test_a_database_of_a_newer_program_is_refused(house: Settings, tmp_path: Path) -> None:
    with sqlite3.connect(house.root / "wave.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    archive = backed(house, tmp_path / "b.tar.gz")
    with pytest.raises(Refused, match="9999"):
        restored(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------------------- content


@pytest.mark.ostree
def test_the_repository_comes_back_whole_where_it_is_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "house"
    bootstrap.initialise(root)
    settings = bootstrap.load_settings(None, {"root": str(root)})
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content\n")
    ostree("commit", f"--repo={settings.repository_path}", "--branch=main", f"--tree=dir={tmp_path / 'tree'}")
    (settings.artifacts_path / "ab").mkdir(parents=True)
    (settings.artifacts_path / "ab/ab12").write_bytes(b"artifact")
    archive = backed(settings, tmp_path / "b.tar.gz", content=True)
    restored(archive, tmp_path / "new")
    repository = tmp_path / "new/repo"
    ostree("fsck", f"--repo={repository}")
    assert ostree("rev-parse", f"--repo={repository}", "main") == ostree(
        "rev-parse", f"--repo={settings.repository_path}", "main"
    )
    assert (tmp_path / "new/artifacts/ab/ab12").read_bytes() == b"artifact"
    without = backed(settings, tmp_path / "without.tar.gz")
    with tarfile.open(without) as tar:
        assert not [name for name in tar.getnames() if name.startswith("content/")]


def ostree(*words: str) -> str:
    return subprocess.run(["ostree", *words], check=True, capture_output=True, text=True, timeout=60).stdout


# -------------------------------------------------------------------------------------------------------- people


def test_who_was_signed_in_is_signed_out(house: Settings, tmp_path: Path) -> None:
    """Who signed out after the backup must not be signed in again by it."""
    with closing(open_store(house.database_url)) as store, store.writing() as w:
        w.add_person(PersonRow("ann", frozenset({Role.VIEWER}), NOW, "mika"))
        w.add_session(SessionRow(b"s" * 32, "ann", NOW, NOW + timedelta(days=7), NOW))
    archive = backed(house, tmp_path / "b.tar.gz")
    restored(archive, tmp_path / "new")
    there = bootstrap.load_settings(None, {"root": str(tmp_path / "new")})
    with closing(open_store(there.database_url)) as store, store.reading() as r:
        assert r.session(b"s" * 32) is None
        assert r.person("ann") is not None
