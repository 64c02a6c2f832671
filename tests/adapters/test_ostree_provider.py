"""The ostree provider against the real ``ostree``: what is built is whole; what is not whole is never taken for one."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.ostree import OstreeProvider, OstreeSettings
from orchestrator.adapters.ostree.layout import delta_path
from orchestrator.errors import BuildFailed, ContentUnavailable, CorruptDelta, InvalidInput, NotFound
from orchestrator.services.delta_provider import BuildProgress, DeltaPair, DeltaRecord
from tests.adapters.ostree_trees import BIG_FILE_BYTES, Versions, make_versions, ostree
from tests.waiting import gone, until

pytestmark = [pytest.mark.ostree, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Four versions, no deltas. Only read."""
    return make_versions(tmp_path_factory.mktemp("original"))


@pytest.fixture
def versions(original: Versions, tmp_path: Path) -> Versions:
    return original.copy(tmp_path / "repo")


@pytest.fixture
def provider(versions: Versions) -> OstreeProvider:
    return OstreeProvider(OstreeSettings(versions.repo))


def build(
    provider: OstreeProvider,
    pair: DeltaPair,
    progress: Callable[[BuildProgress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> DeltaRecord:
    return provider.build(pair, progress=progress, cancelled=cancelled)


def leftovers(repo: Path) -> list[Path]:
    return [*(repo / ".wave" / "builds").glob("*"), *(repo / "tmp").glob("*tmp*")]


def test_knows_refs_and_commits(provider: OstreeProvider, versions: Versions) -> None:
    provider.check()
    assert provider.refs() == {f"os/{version}": commit for version, commit in versions.commits.items()}
    records = provider.commits()
    assert [record.subject for record in records] == ["version 4", "version 3", "version 2", "version 1"]
    assert records[0].refs == ("os/4",)
    assert records[0].made_at == 1_700_000_004
    ostree(versions.repo, "refs", "--delete", "os/1")
    assert [record.refs for record in provider.commits()][-1] == ()
    assert provider.has_commit(versions.commits[1])
    assert not provider.has_commit("0" * 64)


@pytest.mark.parametrize("commit", ["", "../../config", "a" * 63, "A" * 64, "a" * 64 + "\n", "-" * 64, "á" * 64])
def test_only_a_commit_becomes_a_path_or_an_argument(provider: OstreeProvider, commit: str) -> None:
    for pair in (DeltaPair(None, commit), DeltaPair(commit, "a" * 64)):
        for call in (provider.find, provider.estimate, provider.verify, provider.drop):
            with pytest.raises(InvalidInput, match="64 lower-case hex digits"):
                call(pair)
        with pytest.raises(InvalidInput):
            build(provider, pair)


@pytest.mark.parametrize(("origin", "target"), [(1, 2), (2, 3), (3, 4), (1, 4), (4, 1), (None, 3)])
def test_builds_finds_verifies_and_drops(
    provider: OstreeProvider, versions: Versions, origin: int | None, target: int
) -> None:
    pair = versions.pair(origin, target)
    assert provider.find(pair) is None
    stages: list[str] = []
    estimate = provider.estimate(pair)
    record = build(provider, pair, progress=lambda step: stages.append(step.stage))
    assert list(dict.fromkeys(stages)) == ["generate", "verify", "apply", "publish"]
    assert record.pair == pair
    assert record.bytes + record.fallback_bytes <= estimate.at_most_bytes + 10_000
    assert record.bytes == sum(file.stat().st_size for file in (versions.repo / record.path).iterdir())
    assert record.build_seconds is not None
    assert record.cpu_seconds is not None
    assert record.cpu_seconds > 0
    found = provider.verify(pair)
    assert found == provider.find(pair)
    assert (found.bytes, found.fallback_bytes, found.parts) == (record.bytes, record.fallback_bytes, record.parts)
    assert provider.published() == [pair]
    assert ostree(versions.repo, "static-delta", "list").split() == [
        "-".join(commit for commit in (pair.from_commit, pair.to_commit) if commit)
    ]
    assert leftovers(versions.repo) == []
    assert provider.drop(pair)
    assert not provider.drop(pair)
    assert provider.find(pair) is None
    assert provider.published() == []
    with pytest.raises(NotFound):
        provider.verify(pair)


def test_big_new_objects_are_counted_as_fallbacks(provider: OstreeProvider, versions: Versions) -> None:
    record = build(provider, versions.pair(2, 3))
    assert record.fallbacks == 1
    assert record.fallback_bytes > BIG_FILE_BYTES > record.bytes
    packed = OstreeProvider(OstreeSettings(versions.repo, min_fallback_size=0, max_chunk_size=1))
    packed.drop(versions.pair(2, 3))
    record = build(packed, versions.pair(2, 3))
    assert record.fallbacks == 0
    assert record.bytes > BIG_FILE_BYTES


def test_a_tree_with_setuid_programs_is_proven_too(
    provider: OstreeProvider, versions: Versions, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "su").write_bytes(b"su")
    (tree / "su").chmod(0o4755)
    options = ["--branch=setuid", f"--tree=dir={tree}", "--no-xattrs", "--owner-uid=0", "--owner-gid=0"]
    record = build(provider, DeltaPair(versions.commits[1], ostree(versions.repo, "commit", *options)))
    assert record.parts == 1


def test_the_index_names_what_is_published(provider: OstreeProvider, versions: Versions) -> None:
    index = versions.repo / "delta-indexes"
    build(provider, versions.pair(1, 2))
    assert (versions.repo / "summary").exists()
    assert len(list(index.rglob("*.index"))) == 1
    (versions.repo / "summary").unlink()
    # a build that was killed between publishing and the index is finished by the next one
    build(provider, versions.pair(1, 2))
    assert (versions.repo / "summary").exists()


def test_what_is_published_already_is_returned(provider: OstreeProvider, versions: Versions) -> None:
    record = build(provider, versions.pair(1, 2))
    inode = (versions.repo / record.path).stat().st_ino
    stages: list[str] = []
    again = build(provider, versions.pair(1, 2), progress=lambda step: stages.append(step.stage))
    assert again.bytes == record.bytes
    assert (versions.repo / record.path).stat().st_ino == inode
    assert stages == ["publish"]


def test_an_estimate_is_an_upper_bound_and_tells_likeness(provider: OstreeProvider, versions: Versions) -> None:
    same = provider.estimate(versions.pair(1, 2))
    assert same.likely_bytes < same.at_most_bytes / 2  # only changed files with a like one before
    assert same.objects < 20
    big = provider.estimate(versions.pair(2, 3))
    assert big.likely_bytes > BIG_FILE_BYTES
    scratch = provider.estimate(versions.pair(None, 1))
    assert scratch.likely_bytes == scratch.at_most_bytes
    assert provider.estimate(versions.pair(1, 1)).at_most_bytes == 0
    with pytest.raises(ContentUnavailable, match="is not in"):
        provider.estimate(DeltaPair(None, "0" * 64))


def test_different_pairs_are_built_at_once(provider: OstreeProvider, versions: Versions) -> None:
    pairs = [versions.pair(1, 2), versions.pair(2, 3), versions.pair(3, 4), versions.pair(1, 4)]
    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(lambda pair: build(provider, pair), pairs))
    assert sorted(provider.published()) == sorted(pairs)
    assert [provider.find(pair) is not None for pair in pairs] == [True] * 4
    assert len({record.path for record in records}) == 4
    assert leftovers(versions.repo) == []


def test_one_pair_built_twice_at_once_is_published_once(provider: OstreeProvider, versions: Versions) -> None:
    pair = versions.pair(1, 2)
    with ThreadPoolExecutor(3) as pool:
        records = list(pool.map(lambda _: build(provider, pair), range(3)))
    assert len({record.bytes for record in records}) == 1
    provider.verify(pair)


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty superblock": lambda delta: (delta / "superblock").write_bytes(b""),
    "half a superblock": lambda delta: _truncate(delta / "superblock"),
    "flipped bit in the superblock": lambda delta: _flip(delta / "superblock"),
    "no superblock": lambda delta: (delta / "superblock").unlink(),
    "half a part": lambda delta: _truncate(delta / "0"),
    "a part too long": lambda delta: (delta / "0").write_bytes((delta / "0").read_bytes() + b"\0"),
    "flipped bit in a part": lambda delta: _flip(delta / "0"),
    "no part": lambda delta: (delta / "0").unlink(),
    "stale part": lambda delta: (delta / "1").write_bytes(b"of an older build"),
    "stale tmp": lambda delta: (delta / "tmp.XYZ123").write_bytes(b""),
    "an empty folder": _empty,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_broken_is_found_and_repaired(provider: OstreeProvider, versions: Versions, damage: str) -> None:
    pair = versions.pair(1, 2)
    record = build(provider, pair)
    DAMAGE[damage](versions.repo / record.path)
    for look in (provider.find, provider.verify):
        with pytest.raises(CorruptDelta) as caught:
            look(pair)
        assert caught.value.remedy
    assert provider.published() == [pair]
    again = build(provider, pair)
    assert again.bytes == record.bytes
    provider.verify(pair)


def test_a_delta_that_cannot_be_read_is_not_taken_for_broken(
    provider: OstreeProvider, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = versions.pair(1, 2)
    record = build(provider, pair)

    def too_many(self: Path) -> bytes:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", too_many)
        with pytest.raises(ContentUnavailable, match="Too many open files"):
            provider.find(pair)
    found = provider.find(pair)
    assert found is not None
    assert found.bytes == record.bytes


def test_a_delta_of_another_pair_is_not_taken(provider: OstreeProvider, versions: Versions) -> None:
    record = build(provider, versions.pair(1, 2))
    wrong = versions.repo / delta_path(versions.pair(2, 1))
    shutil.copytree(versions.repo / record.path, wrong)
    with pytest.raises(CorruptDelta, match="another pair"):
        provider.find(versions.pair(2, 1))


@pytest.mark.parametrize("damage", [Path.unlink, _flip, _truncate])
def test_a_lost_fallback_object_is_found_and_named(
    provider: OstreeProvider, versions: Versions, damage: Callable[[Path], None]
) -> None:
    pair = versions.pair(2, 3)
    build(provider, pair)
    big = max((versions.repo / "objects").rglob("*.filez"), key=lambda file: file.stat().st_size)
    kept = big.read_bytes()
    big.unlink()  # hard-linked to the original
    big.write_bytes(kept)
    damage(big)
    with pytest.raises(CorruptDelta, match=r"needs objects/"):
        provider.find(pair)
    # no build can bring back what the repository lost; it says so and publishes nothing
    with pytest.raises((ContentUnavailable, BuildFailed), match=r"object|damaged"):
        build(provider, pair)
    assert provider.find(pair) is None
    big.write_bytes(kept)
    build(provider, pair)
    provider.verify(pair)


def _build_in_child(repo: Path, pair: DeltaPair, started: Any) -> None:
    os.setsid()
    OstreeProvider(OstreeSettings(repo)).build(
        pair,
        progress=lambda step: started.put(step.stage),
        cancelled=lambda: False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("wait_for", ["generate", "verify", "apply", "publish"])
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_build_killed_at_any_moment_leaves_nothing_that_looks_whole(
    provider: OstreeProvider, versions: Versions, wait_for: str, delay: float
) -> None:
    pair = versions.pair(1, 3)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_build_in_child, args=(versions.repo, pair, queue))
    child.start()
    while queue.get() != wait_for:
        pass
    threading.Event().wait(delay)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    found = provider.find(pair)  # whole or nothing; CorruptDelta would fail the test
    assert found is None or wait_for == "publish" or delay
    # The kernel ends an orphan a moment after its parent.
    until("nothing is left", lambda: provider.sweep() >= 0 and not leftovers(versions.repo), within=10)
    build(provider, pair)
    provider.verify(pair)


def test_sweep_leaves_a_running_build_alone(provider: OstreeProvider, versions: Versions) -> None:
    swept: list[int] = []

    def sweep(step: BuildProgress) -> None:
        if step.stage == "apply":
            swept.append(provider.sweep())

    dead = versions.repo / ".wave" / "builds" / "dead"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    build(provider, versions.pair(1, 2), progress=sweep)
    assert swept == [1]
    assert provider.sweep() == 0


def fake(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


VERSION = 'case "$1" in --version) echo "libostree:"; echo " Version: \'2022.7\'"; exit 0;; esac\n'


def provider_with(versions: Versions, executable: str, timeout: timedelta = timedelta(hours=2)) -> OstreeProvider:
    return OstreeProvider(OstreeSettings(versions.repo, executable, timeout=timeout))


def test_a_hanging_ostree_is_ended_by_its_time_limit(versions: Versions, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    hanging = fake(tmp_path / "ostree", f"{VERSION}sleep 300 & echo $$ $! > {marker}; wait")
    provider = provider_with(versions, hanging, timeout=timedelta(seconds=0.5))
    started = time.monotonic()
    with pytest.raises(BuildFailed, match=r"was ended after 0.5 seconds"):
        build(provider, versions.pair(1, 2))
    assert time.monotonic() - started < 5
    gone([int(pid) for pid in marker.read_text().split()], within=10)
    assert leftovers(versions.repo) == []


def test_a_hanging_ostree_is_ended_by_cancelling(versions: Versions, tmp_path: Path) -> None:
    hanging = fake(tmp_path / "ostree", f"{VERSION}yes >&2")
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(BuildFailed, match="cancelled"):
        build(provider_with(versions, hanging), versions.pair(1, 2), cancelled=cancel.is_set)
    assert time.monotonic() - started < 2
    assert leftovers(versions.repo) == []


def test_a_build_that_prints_a_lot_is_drained(versions: Versions, tmp_path: Path) -> None:
    noisy = fake(tmp_path / "ostree", f"{VERSION}seq 1 200000 >&2; seq 1 200000; echo 'error: at the end' >&2; exit 1")
    with pytest.raises(BuildFailed, match="at the end"):
        build(provider_with(versions, noisy), versions.pair(1, 2))


def test_a_missing_ostree_is_said_with_the_remedy(versions: Versions) -> None:
    with pytest.raises(ContentUnavailable, match=r"is not there.*apt-get install ostree"):
        provider_with(versions, "no-such-ostree").check()


@pytest.mark.parametrize("version", ["2019.6", "2020.7"])
def test_an_old_ostree_is_refused(versions: Versions, tmp_path: Path, version: str) -> None:
    old = fake(tmp_path / "ostree", f"echo 'libostree:'; echo \" Version: '{version}'\"")
    with pytest.raises(ContentUnavailable, match=rf"{version}, too old.*2020\.8"):
        provider_with(versions, old).check()
    fake(tmp_path / "ostree", VERSION)  # upgraded meanwhile: seen without a restart
    os.utime(old, (1, 1))
    provider_with(versions, old).check()


def test_what_is_no_ostree_is_refused(versions: Versions, tmp_path: Path) -> None:
    with pytest.raises(ContentUnavailable, match="names no version"):
        provider_with(versions, fake(tmp_path / "ostree", "echo hello")).check()
    with pytest.raises(ContentUnavailable, match="cannot say its version"):
        provider_with(versions, fake(tmp_path / "other", "exit 3")).check()


def test_a_crash_of_ostree_stays_outside(versions: Versions, tmp_path: Path) -> None:
    crashing = fake(tmp_path / "ostree", f"{VERSION}kill -SEGV $$")
    with pytest.raises(BuildFailed, match="killed by SIGSEGV"):
        build(provider_with(versions, crashing), versions.pair(1, 2))


def test_a_repository_that_vanished_is_said(provider: OstreeProvider, versions: Versions) -> None:
    pair = versions.pair(1, 2)
    versions.repo.rename(versions.repo.with_name("elsewhere"))
    calls: list[Callable[[], object]] = [
        provider.check, provider.refs, provider.commits, provider.published, provider.sweep,
        lambda: provider.find(pair), lambda: provider.estimate(pair), lambda: provider.verify(pair),
        lambda: provider.drop(pair), lambda: build(provider, pair), lambda: provider.has_commit(pair.to_commit),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ContentUnavailable, match=r"There is no OSTree repository at .*Mount or restore it"):
            call()


def test_a_repository_that_vanishes_during_a_build_is_said(provider: OstreeProvider, versions: Versions) -> None:
    def vanish(step: BuildProgress) -> None:
        if step.stage == "verify":
            versions.repo.rename(versions.repo.with_name("elsewhere"))

    with pytest.raises((ContentUnavailable, BuildFailed)):
        build(provider, versions.pair(1, 2), progress=vanish)


def test_only_archives_are_served(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    ostree(tmp_path / "bare", "init", "--mode=bare-user")
    with pytest.raises(ContentUnavailable, match=r"'bare-user'; devices pull from archives only"):
        OstreeProvider(OstreeSettings(tmp_path / "bare")).check()


def test_a_commit_that_is_not_there_is_said(provider: OstreeProvider, versions: Versions) -> None:
    with pytest.raises(ContentUnavailable, match=r"is not in .* Push it"):
        build(provider, DeltaPair("0" * 64, versions.commits[1]))
