"""Artifacts as use cases: uploads in pieces, what is said of a file, and what may not be removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts.store import FolderStore
from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.artifact import FILES, Format
from orchestrator.core.fleet import Target
from orchestrator.errors import InvalidInput, NotFound, Refused
from orchestrator.services.artifacts import Artifacts, Said, hardware_of
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from tests.adapters import artifact_files as files
from tests.contract.building import NOW

IMAGE = files.cpio(
    b"sw-description", b'software = { version = "2.0"; b1: { hardware-compatibility = ["1.0", "1.1"]; }; }'
)


@pytest.fixture
def store() -> Iterator[SqlStore]:
    opened = open_store("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def artifacts(store: SqlStore, tmp_path: Path) -> Artifacts:
    return Artifacts(store, FolderStore(tmp_path / "artifacts"), lambda: NOW)


def put(artifacts: Artifacts, folder: Path, name: str, content: bytes, said: Said | None = None) -> str:
    (folder / name).write_bytes(content)
    return artifacts.add(folder / name, said).artifact.sha256


def test_an_upload_in_pieces_becomes_an_artifact(artifacts: Artifacts) -> None:
    upload = artifacts.begin(len(IMAGE))
    artifacts.append(upload.id, 0, IMAGE[:100])
    artifacts.append(upload.id, artifacts.upload(upload.id).offset, IMAGE[100:])
    added = artifacts.finish(upload.id, "b1-2.0.swu")
    assert (added.new, added.artifact.format, added.artifact.version) == (True, Format.SWU, "2.0")
    assert added.artifact.hardware_ids == ("b1:1.0", "b1:1.1")
    assert [view.there for view in artifacts.list()] == [True]


@pytest.mark.parametrize("name", ["../x.swu", "a/b.swu", ".hidden", "", "a b.swu", "x" * 200, "ü.swu"])
def test_a_name_that_could_be_no_files_is_refused_before_anything_is_published(artifacts: Artifacts, name: str) -> None:
    upload = artifacts.begin(1)
    artifacts.append(upload.id, 0, b"x")
    with pytest.raises(InvalidInput, match="cannot be an artifact's file name"):
        artifacts.finish(upload.id, name)
    assert artifacts.upload(upload.id).offset == 1


def test_what_is_refused_is_not_copied(artifacts: Artifacts, tmp_path: Path) -> None:
    for said in (Said(hardware_ids=("other",)), Said(version="a\nb"), Said(hardware_ids=("a b",)), Said(name=" x")):
        with pytest.raises((InvalidInput, Refused)):
            put(artifacts, tmp_path, "b1.swu", IMAGE, said)
    assert not (tmp_path / "artifacts").exists()


def test_a_target_takes_the_hardware_of_its_file_and_no_other(artifacts: Artifacts, tmp_path: Path) -> None:
    put(artifacts, tmp_path, "b1.swu", IMAGE)
    artifact = artifacts.find("b1.swu")
    assert hardware_of(artifact, ()) == ("b1:1.0", "b1:1.1")
    assert hardware_of(artifact, ["b1:1.1"]) == ("b1:1.1",)
    with pytest.raises(Refused, match=r"is for b1:1\.0, b1:1\.1, not for b1:1\.2"):
        hardware_of(artifact, ["b1:1.2"])
    put(artifacts, tmp_path, "plain.img", b"plain", Said(version="1"))
    with pytest.raises(InvalidInput, match="names no hardware"):
        hardware_of(artifacts.find("plain.img"), ())


def test_what_is_meant_is_never_guessed(artifacts: Artifacts, tmp_path: Path) -> None:
    for number in (1, 2):
        put(artifacts, tmp_path, "same.img", b"%d" % number, Said(name="os", version=str(number)))
    for which in ("same.img", "os"):
        with pytest.raises(Refused, match="may be 2 artifacts"):
            artifacts.find(which)
    with pytest.raises(NotFound):
        artifacts.find("none")
    for view in artifacts.list():
        assert artifacts.show(view.artifact.sha256[:10]) == view


def test_what_a_target_or_a_delta_needs_is_not_removed(artifacts: Artifacts, store: SqlStore, tmp_path: Path) -> None:
    one, two, three = (
        put(artifacts, tmp_path, f"{n}.img", b"%d" % n, Said(version=str(n), hardware_ids=("b1",))) for n in (1, 2, 3)
    )
    with store.writing() as w:
        w.add_target(Target("os-1", 1, one, ("b1",), provider=FILES), now=NOW)
        w.record_delta(DeltaRecord(DeltaPair(two, one), "deltas/x", 1, 5, 0, 0), now=NOW)
    with pytest.raises(Refused, match="is what os-1 is"):
        artifacts.remove(one)
    with pytest.raises(Refused, match="is needed for the delta"):
        artifacts.remove(two)
    with store.writing() as w:
        w.forget_delta(DeltaPair(two, one))
        w.queue_builds({DeltaPair(two, one): 1.0}, now=NOW)
    with pytest.raises(Refused, match="is needed for the delta"):
        artifacts.remove(two)
    artifacts.remove(three)
    assert {view.artifact.sha256 for view in artifacts.list()} == {one, two}


def test_a_file_whose_record_was_lost_is_recorded_by_adding_it_again(
    artifacts: Artifacts, store: SqlStore, tmp_path: Path
) -> None:
    """As after a crash between publishing and recording."""
    sha256 = put(artifacts, tmp_path, "b1.swu", IMAGE)
    with store.writing() as w:
        w.remove_artifact(sha256)
    assert artifacts.list() == []
    added = artifacts.add(tmp_path / "b1.swu")
    assert added.new and [view.there for view in artifacts.list()] == [True]
