"""Deltas between artifacts by the real programs: built beside, applied once, published whole."""

from __future__ import annotations

import hashlib
import random
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.adapters.artifacts.provider import FileProvider, FileSettings
from orchestrator.adapters.artifacts.store import FolderStore
from orchestrator.errors import BuildFailed, ContentUnavailable, CorruptDelta, NotFound
from orchestrator.services.delta_program import DeltaProgram
from orchestrator.services.delta_provider import BuildProgress, DeltaPair, DeltaRecord
from orchestrator.services.providers import Providers
from tests.services.fake_provider import FakeProvider, commit

XDELTA3 = DeltaProgram.model_validate(
    {
        "name": "xdelta3",
        "make": ["xdelta3", "-e", "-f", "-s", "{from}", "{to}", "{delta}"],
        "apply": ["xdelta3", "-d", "-f", "-s", "{from}", "{delta}", "{to}"],
    }
)
RDIFF = DeltaProgram.model_validate(
    {
        "name": "rdiff",
        "make": [["rdiff", "signature", "{from}", "{scratch}"], ["rdiff", "delta", "{scratch}", "{to}", "{delta}"]],
        "apply": ["rdiff", "patch", "{from}", "{delta}", "{to}"],
    }
)
ZSTD = DeltaProgram.model_validate(
    {
        "name": "zstd",
        "make": ["zstd", "-q", "-f", "--patch-from={from}", "{to}", "-o", "{delta}"],
        "apply": ["zstd", "-q", "-f", "-d", "--patch-from={from}", "{delta}", "-o", "{to}"],
    }
)
RANDOM = random.Random(7)
OLD = RANDOM.randbytes(300_000)
NEW = OLD[:100_000] + RANDOM.randbytes(1_000) + OLD[100_500:]
FOREIGN = RANDOM.randbytes(200_000)


class Shelf:
    """A store with the three files; ``provider`` with any program."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = FolderStore(root / "artifacts")
        self.old, self.new, self.foreign = (self.add(content) for content in (OLD, NEW, FOREIGN))
        self.pair = DeltaPair(self.old, self.new)

    def add(self, content: bytes) -> str:
        source = self.root / "source"
        source.write_bytes(content)
        return self.files.take(source).sha256

    def provider(self, program: DeltaProgram | None = XDELTA3, **more: Any) -> FileProvider:
        return FileProvider(FileSettings(self.root / "artifacts", program, **more))

    def folder(self, pair: DeltaPair) -> Path:
        return self.root / "artifacts" / "deltas" / (pair.from_commit or "") / pair.to_commit

    @property
    def leftovers(self) -> list[Path]:
        return list((self.root / "artifacts" / ".wave" / "builds").glob("*"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def build(provider: FileProvider | Providers, pair: DeltaPair, told: list[BuildProgress] | None = None) -> DeltaRecord:
    return provider.build(pair, progress=(told if told is not None else []).append, cancelled=lambda: False)


def program(make: str, apply: str = "cp {delta} {to}; : {from}", **more: Any) -> DeltaProgram:
    """Lines for a shell, which the tests may use and the program never does."""
    places = ["{from}", "{to}", "{delta}"]

    def words(line: str) -> list[str]:
        for number, place in enumerate(places, 1):
            line = line.replace(place, f"${number}")
        return ["sh", "-c", line, "sh", *places]

    return DeltaProgram.model_validate({"name": "own", "make": words(make), "apply": words(apply), **more})


# ------------------------------------------------------------------------------------------------ building


@pytest.mark.parametrize("program", [XDELTA3, RDIFF, ZSTD], ids=lambda each: each.name)
def test_a_delta_is_made_applied_and_published_under_its_own_sha256(shelf: Shelf, program: DeltaProgram) -> None:
    provider = shelf.provider(program)
    provider.check()
    assert provider.find(shelf.pair) is None and provider.settled(shelf.pair) is None
    told: list[BuildProgress] = []
    record = build(provider, shelf.pair, told)
    assert list(dict.fromkeys(each.stage for each in told)) == ["generate", "apply", "verify", "publish"]
    assert 0 < record.bytes < len(NEW) / 10
    assert (record.parts, record.fallback_bytes, record.whole) == (1, 0, False)
    assert record.build_seconds is not None and record.cpu_seconds is not None
    file = shelf.root / "artifacts" / record.path
    assert file.name == f"{hashlib.sha256(file.read_bytes()).hexdigest()}.{program.name}"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    found = provider.find(shelf.pair)
    assert found is not None and (found.path, found.bytes) == (record.path, record.bytes)
    assert provider.verify(shelf.pair).path == record.path
    assert list(provider.published()) == [shelf.pair]
    assert build(provider, shelf.pair).path == record.path
    assert shelf.leftovers == []
    assert provider.drop(shelf.pair) and not provider.drop(shelf.pair)
    assert provider.find(shelf.pair) is None
    with pytest.raises(NotFound):
        provider.verify(shelf.pair)


def test_a_delta_that_is_not_smaller_is_recorded_as_not_worth_it(shelf: Shelf) -> None:
    pair, told = DeltaPair(shelf.old, shelf.foreign), list[BuildProgress]()
    record = build(shelf.provider(), pair, told)
    assert (record.whole, record.bytes, record.fallback_bytes) == (True, 0, len(FOREIGN))
    assert any("it is served whole" in (each.line or "") for each in told)
    assert [file.name for file in shelf.folder(pair).iterdir()] == ["whole.xdelta3"]
    found = shelf.provider().find(pair)
    assert found is not None and found.whole
    assert shelf.provider(RDIFF).find(pair) is None, "another program may do better"


def test_without_a_program_and_from_what_is_no_artifact_everything_is_served_whole(shelf: Shelf) -> None:
    for provider, pair in (
        (shelf.provider(None), shelf.pair),
        (shelf.provider(), DeltaPair(None, shelf.new)),
        (shelf.provider(), DeltaPair("f" * 64, shelf.new)),
    ):
        settled = provider.settled(pair)
        assert settled is not None and settled.whole and settled.fallback_bytes == len(NEW)
        assert provider.find(pair) == settled == build(provider, pair) == provider.verify(pair)
        cost = provider.estimate(pair)
        assert (cost.likely_bytes, cost.at_most_bytes, cost.build_seconds) == (len(NEW), len(NEW), 0.0)
    assert list(shelf.provider().published()) == []


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (program("echo no luck >&2; exit 3"), "`sh` failed: no luck"),
        (program("true"), "ended well and wrote nothing"),
        (program("head -c 10 {to} > {delta}"), "comes to .* and not to"),
        (program("echo x > {delta}", "exit 4"), "cannot be applied"),
        (program("head -c 100000000 /dev/zero > {delta}"), "could not be made"),
        (program("echo x > {delta}", "head -c 100000000 /dev/zero > {to}"), "cannot be applied"),
        (program("ln -s /etc/passwd {delta}"), "wrote nothing"),
    ],
)
def test_a_program_that_fails_or_lies_publishes_nothing(shelf: Shelf, bad: DeltaProgram, why: str) -> None:
    with pytest.raises(BuildFailed, match=why):
        build(shelf.provider(bad), shelf.pair)
    assert list(shelf.provider().published()) == []
    assert shelf.leftovers == []


def test_a_program_has_a_time_limit_and_can_be_cancelled(shelf: Shelf) -> None:
    slow = program("sleep 60; : {delta}")
    with pytest.raises(BuildFailed, match=r"ended after 0\.5 seconds"):
        build(shelf.provider(slow, timeout=timedelta(seconds=0.5)), shelf.pair)
    stop = threading.Event()
    with pytest.raises(BuildFailed, match="was cancelled"):
        shelf.provider(slow).build(shelf.pair, progress=lambda step: stop.set(), cancelled=stop.is_set)
    assert shelf.leftovers == []


def test_a_program_has_a_memory_limit(shelf: Shelf) -> None:
    hungry = DeltaProgram.model_validate(
        {
            "name": "own",
            "make": ["python3", "-c", "bytearray(1 << 30)", "{from}", "{to}", "{delta}"],
            "apply": XDELTA3.apply,
            "memory_mb": 200,
        }
    )
    with pytest.raises(BuildFailed, match="MemoryError"):
        build(shelf.provider(hungry), shelf.pair)


def test_words_of_a_file_name_are_no_commands(tmp_path: Path) -> None:
    folder = tmp_path / "a; touch pwned $(touch pwned) 'x'"
    folder.mkdir()
    shelf = Shelf(folder)
    assert build(shelf.provider(), shelf.pair).bytes
    assert not list(tmp_path.rglob("pwned"))


def test_a_missing_program_is_named(shelf: Shelf) -> None:
    lacking = shelf.provider(program("x").model_copy(update={"make": (("no-such-program", "{from}{to}{delta}"),)}))
    for ask in (lacking.check, lambda: build(lacking, shelf.pair)):
        with pytest.raises(ContentUnavailable, match=r"`no-such-program` of `delta_program` is not there\. Install it"):
            ask()


# ------------------------------------------------------------------------------------------------ what is on disk


@pytest.mark.parametrize("damage", ["changed", "emptied", "second", "removed"])
def test_a_damaged_delta_is_seen_and_built_anew(shelf: Shelf, damage: str) -> None:
    provider = shelf.provider()
    record = build(provider, shelf.pair)
    file = shelf.root / "artifacts" / record.path
    match damage:
        case "changed":
            file.write_bytes(b"!" + file.read_bytes()[1:])
        case "emptied":
            file.write_bytes(b"")
        case "second":
            (file.parent / "other").touch()
        case _:
            file.unlink()
    for ask in (provider.find, provider.verify):
        with pytest.raises(CorruptDelta):
            ask(shelf.pair)
    assert build(provider, shelf.pair).path == record.path
    assert provider.verify(shelf.pair).bytes == record.bytes


def test_a_delta_that_another_program_made_is_not_this_ones(shelf: Shelf) -> None:
    build(shelf.provider(RDIFF), shelf.pair)
    assert shelf.provider().find(shelf.pair) is None
    assert build(shelf.provider(), shelf.pair).path.endswith(".xdelta3")
    assert len(list(shelf.folder(shelf.pair).iterdir())) == 1


def test_an_artifact_that_was_damaged_is_not_served_whole(shelf: Shelf) -> None:
    provider = shelf.provider(None)
    assert provider.find(shelf.pair) is not None
    path = shelf.files.path(shelf.new)
    assert path is not None
    path.write_bytes(b"!" + NEW[1:])
    with pytest.raises(CorruptDelta, match="is not what it was"):
        provider.find(shelf.pair)
    path.unlink()
    with pytest.raises(ContentUnavailable, match="Add the file again"):
        provider.find(shelf.pair)
    assert not provider.has_commit(shelf.new)


def test_what_a_killed_build_left_is_swept_and_nothing_else(shelf: Shelf) -> None:
    build(shelf.provider(), shelf.pair)
    left = shelf.root / "artifacts" / ".wave" / "builds" / "x"
    left.mkdir(parents=True)
    (left / "delta").write_bytes(b"half")
    assert shelf.provider().sweep() == 1
    assert not left.exists() and shelf.provider().find(shelf.pair)


def test_the_store_is_a_repository_without_refs(shelf: Shelf) -> None:
    provider = shelf.provider()
    assert provider.refs() == {}
    assert {record.commit for record in provider.commits()} == {shelf.old, shelf.new, shelf.foreign}
    assert provider.has_commit(shelf.new) and not provider.has_commit("e" * 64) and not provider.has_commit("../x")
    empty = FileProvider(FileSettings(shelf.root / "none"))
    empty.check()
    assert (list(empty.commits()), list(empty.published()), empty.sweep()) == ([], [], 0)


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": "X Y"}, "pattern"),
        ({"make": "xdelta3 {from} {to} {delta}"}, "tuple"),
        ({"make": []}, "must be a command"),
        ({"make": ["xdelta3", "{from}", "{to}"]}, "names {delta} nowhere"),
        ({"apply": ["xdelta3", "{from}", "{to}", "{delta}", "{home}"]}, "{home}, which stands for nothing"),
        ({"apply": ["{from}", "{to}", "{delta}"]}, "must begin with a program"),
        ({"shell": "x"}, "Extra inputs"),
    ],
)
def test_a_program_that_cannot_be_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        DeltaProgram.model_validate({**XDELTA3.model_dump(), **wrong})


# ------------------------------------------------------------------------------------------------ beside a repository


class Missing(FakeProvider):
    """A repository that is not there."""

    def check(self) -> None:
        raise ContentUnavailable("There is no repository.")

    def refs(self) -> Any:
        self.check()

    def has_commit(self, text: str) -> bool:
        self.check()
        return False

    published = commits = sweep = refs


def test_a_repository_that_no_target_needs_may_be_missing(shelf: Shelf) -> None:
    needed: set[str] = {"files"}
    both = Providers((Missing(shelf.root), shelf.provider()), lambda: needed)
    both.check()
    assert both.has_commit(shelf.new) and not both.has_commit("e" * 64)
    assert (both.refs(), both.sweep(), len(both.commits())) == ({}, 0, 3)
    assert build(both, shelf.pair).bytes and list(both.published()) == [shelf.pair]
    for each in ({"files", "fake"}, set()):
        needed = each
        with pytest.raises(ContentUnavailable, match="There is no repository"):
            both.check()


def test_between_two_kinds_of_content_everything_is_fetched_whole(shelf: Shelf) -> None:
    folder = shelf.root / "content"
    folder.mkdir()
    both = Providers((FakeProvider(folder, [commit(1), commit(2)]), shelf.provider()), lambda: {"fake", "files"})
    for pair in (DeltaPair(commit(1), shelf.new), DeltaPair(shelf.old, commit(2))):
        settled = both.settled(pair)
        assert settled is not None and settled.whole
        assert both.find(pair) == settled == build(both, pair) == both.verify(pair)
        assert both.estimate(pair).build_seconds == 0
    assert both.settled(DeltaPair(commit(1), commit(2))) is None
    assert both.settled(shelf.pair) is None
    assert not build(both, DeltaPair(commit(1), commit(2))).whole
    assert build(both, shelf.pair).path.endswith(".xdelta3")
    assert both.drop(shelf.pair) and both.drop(DeltaPair(commit(1), commit(2))) and not both.drop(shelf.pair)
