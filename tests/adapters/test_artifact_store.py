"""The store of artifacts on disk: whole or not there, gone on with, never two for one content."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.artifacts import keys
from orchestrator.adapters.artifacts import store as module
from orchestrator.adapters.artifacts.disk import CHUNK
from orchestrator.adapters.artifacts.keys import KEY_BYTES, SigningKey, signing_key
from orchestrator.adapters.artifacts.store import FolderStore
from orchestrator.errors import Busy, Conflict, ContentUnavailable, InvalidInput, NotFound, Refused
from orchestrator.services.artifact_store import Progress

CONTENT = os.urandom(CHUNK * 2 + 12345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "artifacts")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "image.swu"
    path.write_bytes(CONTENT)
    return path


def incoming(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "artifacts" / "incoming").glob("*"))


def test_a_file_is_taken_in_with_its_three_sums(files: FolderStore, source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    digests = files.take(source, progress=lambda done, of: told.append((done, of)))
    assert digests.sha256 == SHA256
    assert digests.sha1 == hashlib.sha1(CONTENT).hexdigest()
    assert digests.md5 == hashlib.md5(CONTENT).hexdigest()
    assert digests.size == len(CONTENT)
    assert told == [(CHUNK, len(CONTENT)), (2 * CHUNK, len(CONTENT)), (len(CONTENT), len(CONTENT))]
    path = tmp_path / "artifacts" / SHA256[:2] / SHA256
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert incoming(tmp_path) == []
    assert (files.path(SHA256), files.size(SHA256), files.verify(SHA256)) == (path, len(CONTENT), True)
    assert files.stored() == [SHA256]
    assert files.take(source) == digests == files.digest(source)
    assert files.stored() == [SHA256]


class _Killed(BaseException):
    pass


def killed_after(steps: int) -> Progress:
    left = [steps]

    def progress(done: int, of: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise _Killed

    return progress


def test_an_interrupted_copy_goes_on_where_it_stopped(files: FolderStore, source: Path, tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        files.take(source, progress=killed_after(2))
    [part] = incoming(tmp_path)
    assert part.read_bytes() == CONTENT[: 2 * CHUNK]
    assert files.stored() == []
    before = part.stat().st_ino
    assert files.take(source).sha256 == SHA256
    assert (tmp_path / "artifacts" / SHA256[:2] / SHA256).stat().st_ino == before
    assert incoming(tmp_path) == []


@pytest.mark.parametrize("damage", ["changed", "longer"])
def test_what_a_copy_holds_already_is_not_believed(
    files: FolderStore, source: Path, tmp_path: Path, damage: str
) -> None:
    with pytest.raises(_Killed):
        files.take(source, progress=killed_after(2))
    [part] = incoming(tmp_path)
    with part.open("r+b") as stream:
        stream.seek(7 if damage == "changed" else len(CONTENT) + 5)
        stream.write(b"!")
    assert files.take(source).sha256 == SHA256
    assert files.verify(SHA256)


def test_a_file_that_changes_while_it_is_read_is_refused(files: FolderStore, source: Path, tmp_path: Path) -> None:
    def grow(done: int, of: int) -> None:
        with source.open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(InvalidInput, match="changed while it was read"):
        files.take(source, progress=grow)
    assert files.stored() == []
    assert incoming(tmp_path) == []


def test_two_that_take_the_same_file_at_once_do_not_mix(files: FolderStore, source: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(done: int, of: int) -> None:
        inside.set()
        assert go_on.wait(30)

    first = threading.Thread(target=lambda: files.take(source, progress=hold))
    first.start()
    assert inside.wait(30)
    with pytest.raises(Busy, match="Another process is taking in"):
        files.take(source)
    go_on.set()
    first.join()
    assert files.stored() == [SHA256]


def test_what_is_no_file_is_refused_in_words(files: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, said in (("none", "is not there"), (".", "is no file"), ("empty", "has 0 bytes")):
        with pytest.raises(InvalidInput, match=said):
            files.take(tmp_path / name)


def test_a_full_disk_is_said_before_the_copy(
    files: FolderStore, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 1 << 60)
    with pytest.raises(ContentUnavailable, match=r"MB free; 2 MB are to come\. Free space there"):
        files.take(source)
    with pytest.raises(ContentUnavailable, match="Free space there"):
        files.begin(1)


def test_a_damaged_and_a_missing_file_are_seen(files: FolderStore, source: Path) -> None:
    files.take(source)
    path = files.path(SHA256)
    assert path is not None
    path.write_bytes(b"!" + CONTENT[1:])
    assert not files.verify(SHA256)
    assert files.remove(SHA256)
    assert not files.remove(SHA256)
    with pytest.raises(NotFound, match="There is no artifact"):
        files.verify(SHA256)
    for name in ("../../etc/passwd", "x" * 64, SHA256.upper()):
        assert files.path(name) is None and files.size(name) is None


def test_an_upload_goes_piece_by_piece_and_says_where_it_stands(files: FolderStore, tmp_path: Path) -> None:
    upload = files.begin(len(CONTENT), SHA256)
    assert files.append(upload.id, 0, CONTENT[:1000]).offset == 1000
    with pytest.raises(Conflict, match=r"stands at 1000, not at 0\. Go on at 1000"):
        files.append(upload.id, 0, CONTENT[:1000])
    with pytest.raises(Conflict):
        files.append(upload.id, 1001, b"x")
    with pytest.raises(InvalidInput, match="this would be more"):
        files.append(upload.id, 1000, CONTENT)
    with pytest.raises(Refused, match=f"1000 of {len(CONTENT)} bytes"):
        files.finish(upload.id)
    assert FolderStore(tmp_path / "artifacts").upload(upload.id).offset == 1000
    assert files.append(upload.id, 1000, CONTENT[1000:]).offset == len(CONTENT)
    assert files.finish(upload.id).sha256 == SHA256
    assert incoming(tmp_path) == []
    with pytest.raises(NotFound):
        files.upload(upload.id)


def test_an_upload_that_comes_to_something_else_is_thrown_away(files: FolderStore, tmp_path: Path) -> None:
    upload = files.begin(3, SHA256)
    files.append(upload.id, 0, b"abc")
    with pytest.raises(InvalidInput, match=r"came to sha256 ba7816bf.*thrown away"):
        files.finish(upload.id)
    assert (files.stored(), incoming(tmp_path)) == ([], [])


@pytest.mark.parametrize("wrong", [(0, None), (-1, None), (1 << 50, None), (5, "abc"), (5, "A" * 64)])
def test_an_upload_that_cannot_be_is_refused(files: FolderStore, wrong: tuple[int, str | None]) -> None:
    with pytest.raises(InvalidInput):
        files.begin(*wrong)


@pytest.mark.parametrize("name", ["", "..", "../urls", "a" * 31, "A" * 32, "a" * 32, "file-" + "a" * 64, "\0" * 32])
def test_an_upload_that_nobody_began_is_not_found(files: FolderStore, name: str) -> None:
    with pytest.raises(NotFound):
        files.append(name, 0, b"x")


def test_uploads_that_nobody_goes_on_with_are_swept(files: FolderStore, tmp_path: Path, source: Path) -> None:
    files.take(source)
    old, new = files.begin(5), files.begin(5)
    for file in incoming(tmp_path):
        if file.name.startswith(old.id):
            os.utime(file, (1, 1))
    assert files.sweep() == 1
    assert files.upload(new.id) == new
    with pytest.raises(NotFound):
        files.upload(old.id)
    assert files.stored() == [SHA256]


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_however_it_is_cut_an_upload_comes_to_the_same(pieces: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = FolderStore(Path(folder))
        whole = b"".join(pieces)
        upload = files.begin(len(whole))
        for piece in pieces:
            upload = files.append(upload.id, upload.offset, piece)
        assert files.finish(upload.id).sha256 == hashlib.sha256(whole).hexdigest()


def test_the_key_of_addresses_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    found: list[bytes] = []
    at_once = [threading.Thread(target=lambda: found.append(signing_key(root))) for _ in range(8)]
    for each in at_once:
        each.start()
    for each in at_once:
        each.join()
    assert len(set(found)) == 1 and len(found[0]) == KEY_BYTES
    [file] = root.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with pytest.raises(ContentUnavailable, match=r"can be read by others\. chmod 600"):
        signing_key(root)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(ContentUnavailable, match="is damaged"):
        signing_key(root)


def test_a_key_is_read_once_and_again_when_the_file_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every offer somebody asks for it, and an operator who replaces it wants the old addresses dead now."""
    key = SigningKey(tmp_path)
    first = key()
    reads: list[Path] = []
    read = keys._read

    def counted(file: Path) -> object:
        reads.append(file)
        return read(file)

    monkeypatch.setattr(keys, "_read", counted)
    assert [key() for _ in range(5)] == [first] * 5
    assert reads == []
    file = tmp_path / "urls.key"
    another = tmp_path / "another"
    another.write_bytes(b"2" * KEY_BYTES)
    another.chmod(0o600)
    another.rename(file)
    assert [key(), key()] == [b"2" * KEY_BYTES] * 2 and len(reads) == 1
    before = file.stat().st_mtime_ns
    file.write_bytes(b"3" * KEY_BYTES)
    os.utime(file, ns=(before + 1, before + 1))
    assert key() == b"3" * KEY_BYTES, "written over in its place"
    same = file.stat().st_mtime_ns
    file.write_bytes(b"4" * KEY_BYTES)
    os.utime(file, ns=(same, same))
    assert key() == b"4" * KEY_BYTES, "and its time set back, as some tools that copy do"
    file.write_bytes(b"3" * KEY_BYTES)
    file.chmod(0o640)
    with pytest.raises(ContentUnavailable, match="can be read by others"):
        key()
    file.chmod(0o600)
    assert key() == b"3" * KEY_BYTES
    file.unlink()
    assert key() not in (first, b"2" * KEY_BYTES, b"3" * KEY_BYTES), "removed, so a new one is made"


TAKE = """
import sys
from pathlib import Path
from orchestrator.adapters.artifacts.store import FolderStore
def told(done, of):
    print(done, flush=True)
    sys.stdin.readline()
FolderStore(Path(sys.argv[1])).take(Path(sys.argv[2]), progress=told)
"""


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_process_that_is_killed_while_it_copies_leaves_nothing_that_counts(
    files: FolderStore, source: Path, tmp_path: Path, steps: int
) -> None:
    argv = [sys.executable, "-c", TAKE, str(tmp_path / "artifacts"), str(source)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for step in range(steps):
            assert process.stdout.readline()
            if step + 1 < steps:
                process.stdin.write("\n")
                process.stdin.flush()
        with pytest.raises(Busy):
            files.take(source)
        process.kill()
    assert (files.stored(), files.path(SHA256)) == ([], None)
    assert len(incoming(tmp_path)) == 1
    assert files.take(source).sha256 == SHA256
    assert files.verify(SHA256) and incoming(tmp_path) == []
