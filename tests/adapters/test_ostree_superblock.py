"""The superblock parser: agrees with ostree on real deltas, and answers any damage with CorruptDelta alone."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.ostree import OstreeProvider, OstreeSettings
from orchestrator.adapters.ostree.gvariant import BYTE, BYTES, WIDE, Malformed, children_of_array, children_of_tuple
from orchestrator.adapters.ostree.layout import delta_path
from orchestrator.adapters.ostree.objects import is_whole, read_content, unpacked_size
from orchestrator.adapters.ostree.superblock import Superblock, parse
from orchestrator.errors import CorruptDelta
from orchestrator.services.delta_provider import DeltaPair
from tests.adapters.ostree_trees import BIG_FILE_BYTES, Versions, make_versions, ostree

pytestmark = pytest.mark.ostree


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return make_versions(tmp_path_factory.mktemp("superblock"))


def generate(versions: Versions, folder: Path, *options: str) -> Path:
    folder.mkdir(parents=True)
    ostree(versions.repo, "static-delta", "generate", f"--filename={folder / 'superblock'}", *options)
    return folder


@pytest.fixture(scope="module")
def delta(versions: Versions) -> Path:
    """2->3 in several parts and with a fallback."""
    pair = versions.pair(2, 3)
    options = [f"--from={pair.from_commit}", f"--to={pair.to_commit}", "--max-chunk-size=1"]
    ostree(versions.repo, "static-delta", "generate", *options)
    return versions.repo / delta_path(pair)


def test_agrees_with_ostree(versions: Versions, delta: Path) -> None:
    block = parse((delta / "superblock").read_bytes())
    shown = ostree(versions.repo, "static-delta", "show", "-".join(versions.commits[version] for version in (2, 3)))
    assert f"From: {block.from_commit}\n" in shown
    assert f"To: {block.to_commit}\n" in shown
    parts = re.findall(r"PartMeta\d+: nobjects=(\d+) size=(\d+) usize=(\d+)", shown)
    assert parts == [(str(part.objects), str(part.size), str(part.unpacked_size)) for part in block.parts]
    assert f"Number of fallback entries: {len(block.fallbacks)}\n" in shown
    assert f"Total Fallback Size: {sum(fallback.size for fallback in block.fallbacks)} " in shown
    assert block.fallbacks[0].unpacked_size == BIG_FILE_BYTES
    assert (versions.repo / block.fallbacks[0].path).stat().st_size == block.fallbacks[0].size


def test_reads_the_other_byte_order(versions: Versions, delta: Path, tmp_path: Path) -> None:
    pair = versions.pair(2, 3)
    options = [f"--from={pair.from_commit}", f"--to={pair.to_commit}", "--max-chunk-size=1", "--swap-endianness"]
    ours = parse((delta / "superblock").read_bytes())
    other = parse((generate(versions, tmp_path / "swapped", *options) / "superblock").read_bytes())
    assert [(part.size, part.unpacked_size) for part in other.parts] == [
        (part.size, part.unpacked_size) for part in ours.parts
    ]
    assert other.fallbacks == ours.fallbacks


def test_reads_from_scratch_and_inline_deltas(versions: Versions, tmp_path: Path) -> None:
    block = parse(
        (generate(versions, tmp_path / "scratch", "--empty", f"--to={versions.commits[1]}") / "superblock").read_bytes()
    )
    assert (block.from_commit, block.to_commit) == (None, versions.commits[1])
    options = ["--inline", f"--from={versions.commits[1]}", f"--to={versions.commits[2]}"]
    folder = generate(versions, tmp_path / "inline", *options)
    assert [part.inline for part in parse((folder / "superblock").read_bytes()).parts] == [True]
    assert [file.name for file in folder.iterdir()] == ["superblock"]


def test_without_fallbacks_it_says_the_same_else(delta: Path) -> None:
    block = parse((delta / "superblock").read_bytes())
    bare = parse(block.without_fallbacks)
    assert bare.fallbacks == ()
    assert (bare.parts, bare.to_commit, bare.from_commit) == (block.parts, block.to_commit, block.from_commit)
    assert parse(bare.without_fallbacks) == bare


def parse_or_corrupt(content: bytes) -> Superblock | None:
    try:
        return parse(content)
    except CorruptDelta:
        return None


@given(cut=st.data())
def test_a_shorter_one_is_never_taken(delta: Path, cut: st.DataObject) -> None:
    content = (delta / "superblock").read_bytes()
    assert parse_or_corrupt(content[: cut.draw(st.integers(0, len(content) - 1))]) is None


@given(data=st.data())
def test_a_changed_one_is_refused_or_read_never_crashes(delta: Path, data: st.DataObject) -> None:
    content = bytearray((delta / "superblock").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    block = parse_or_corrupt(bytes(content))
    if block is not None:
        parse_or_corrupt(block.without_fallbacks)


@given(st.binary(max_size=400))
def test_noise_is_refused(content: bytes) -> None:
    assert parse_or_corrupt(content) is None


@given(st.binary(max_size=200))
def test_containers_of_noise_are_cut_or_malformed(content: bytes) -> None:
    for cut in (
        lambda: children_of_tuple(content, (BYTES, BYTE, WIDE, BYTES)),
        lambda: children_of_array(content, 8),
        lambda: children_of_array(content, 1),
    ):
        with contextlib.suppress(Malformed):
            assert sum(map(len, cut())) <= len(content)


def test_every_object_of_a_commit_is_listed_and_whole(versions: Versions) -> None:
    for commit in versions.commits.values():
        content = read_content(versions.repo, commit)
        for name in content.objects:
            assert is_whole(versions.repo / "objects" / name[:2] / name[2:], name)
        listed = ostree(versions.repo, "ls", "-RC", commit)
        checksums = set(re.findall(r"\b[0-9a-f]{64}\b", listed))
        assert checksums <= {name[:64] for name in content.objects}
        assert {name[:64] for name in content.objects} - checksums == {commit}
    assert "odd \n name é" in content.by_basename
    (big,) = content.by_basename["big"]
    assert unpacked_size(versions.repo, big) == BIG_FILE_BYTES


def published(versions: Versions, pair: DeltaPair, superblock: bytes, parts: dict[int, bytes]) -> OstreeProvider:
    """A repository in which this was published, by somebody who left no index."""
    folder = versions.repo / delta_path(pair)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "superblock").write_bytes(superblock)
    for index, part in parts.items():
        (folder / str(index)).write_bytes(part)
    shutil.rmtree(versions.repo / "delta-indexes", ignore_errors=True)
    return OstreeProvider(OstreeSettings(versions.repo))


def test_a_delta_that_fits_its_checksums_but_cannot_be_applied_is_found(
    versions: Versions, delta: Path, tmp_path: Path
) -> None:
    content = (delta / "superblock").read_bytes()
    parts = {part.index: (delta / str(part.index)).read_bytes() for part in parse(content).parts}
    broken = bytearray(parts[0])
    broken[len(broken) // 2] ^= 1
    old, new = (hashlib.sha256(part).digest() for part in (parts[0], broken))
    pair = versions.pair(2, 3)
    provider = published(versions.copy(tmp_path / "repo"), pair, content.replace(old, new), {**parts, 0: bytes(broken)})
    assert provider.find(pair) is not None  # by its own word it is whole
    with pytest.raises(CorruptDelta, match="cannot be applied"):
        provider.verify(pair)
    provider.build(pair, progress=lambda _: None, cancelled=lambda: False)
    provider.verify(pair)


def test_a_delta_that_does_not_bring_everything_is_found(versions: Versions, delta: Path, tmp_path: Path) -> None:
    block = parse((delta / "superblock").read_bytes())
    parts = {part.index: (delta / str(part.index)).read_bytes() for part in block.parts}
    pair = versions.pair(2, 3)
    provider = published(versions.copy(tmp_path / "repo"), pair, block.without_fallbacks, parts)
    assert provider.find(pair) is not None
    with pytest.raises(CorruptDelta, match=r"does not bring the object .*filez"):
        provider.verify(pair)
