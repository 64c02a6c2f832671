"""The file of a SQLite database that is taken away, or is another one, while a program has it open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.errors import StoreUnavailable


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = open_store(f"sqlite:///{tmp_path}/a file #1.db", create=True)
    with made.writing() as w:
        w.add_group("lab")
    yield made
    made.close()


def file(tmp_path: Path) -> Path:
    return tmp_path / "a file #1.db"


def groups(store: SqlStore) -> list[str]:
    with store.reading() as r:
        return list(r.groups())


def add(store: SqlStore, name: str) -> None:
    with store.writing() as w:
        w.add_group(name)


def test_nothing_is_written_to_a_file_that_is_gone_and_no_empty_one_takes_its_place(
    store: SqlStore, tmp_path: Path
) -> None:
    here = file(tmp_path)
    here.rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable, match="was removed or replaced while it was in use; nothing of"):
        add(store, "canary")
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        groups(store)
    assert not here.exists()
    (tmp_path / "away").rename(here)
    add(store, "canary")
    assert groups(store) == ["canary", "lab"]


def test_nothing_is_written_in_the_place_of_another_file(store: SqlStore, tmp_path: Path) -> None:
    here = file(tmp_path)
    shutil.copy(here, tmp_path / "copy")
    (tmp_path / "copy").replace(here)
    with pytest.raises(StoreUnavailable, match="was removed or replaced") as caught:
        add(store, "canary")
    assert "stop `wave serve` and start it again" in (caught.value.remedy or "")
    fresh = open_store(f"sqlite:///{here}", create=False)
    add(fresh, "canary")
    fresh.close()


def test_a_new_connection_makes_no_file(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/wave.db", create=True)
    store.close()
    (tmp_path / "wave.db").unlink()
    with pytest.raises(StoreUnavailable):
        groups(store)
    assert not (tmp_path / "wave.db").exists()
