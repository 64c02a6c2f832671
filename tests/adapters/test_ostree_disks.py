"""A disk under the repository that is full, or may not be written: a sentence, and nothing is left of the attempt."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.ostree import OstreeProvider, OstreeSettings
from orchestrator.errors import BuildFailed, ContentUnavailable
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from tests.adapters.ordinary import as_anybody
from tests.adapters.ostree_trees import Versions, make_versions, ostree
from tests.disks import fill, mounted, remount

pytestmark = [pytest.mark.ostree, pytest.mark.timeout(120)]

FULL = """#!/bin/sh
case "$1 $2" in "static-delta generate")
    if [ -e SIGN ]; then
        for each in "$@"; do case "$each" in --filename=*) echo half >"${each#--filename=}";; esac; done
        echo "error: $({ LC_ALL=C dd if=/dev/zero of=/dev/full bs=1 count=1; } 2>&1 | head -n 1)" >&2
        exit 1
    fi;;
esac
exec ostree "$@"
"""
"""What stands for ostree where no disk can be filled: half a delta, then the kernel's own word for a full one."""


@dataclass(frozen=True)
class Disk:
    """A folder with an own repository in it. ``real``: it is a file system of 24 MB of its own."""

    at: Path
    real: bool
    versions: Versions

    def provider(self) -> OstreeProvider:
        executable = self.at / "ostree"
        if not self.real:
            executable.write_text(FULL.replace("SIGN", str(self.at / "filler")))
            executable.chmod(0o755)
        return OstreeProvider(OstreeSettings(self.versions.repo, "ostree" if self.real else str(executable)))

    def fill(self) -> None:
        if self.real:
            fill(self.at, leave=300_000)
        else:
            (self.at / "filler").touch()

    def empty(self) -> None:
        (self.at / "filler").unlink()

    def read_only(self, patch: pytest.MonkeyPatch) -> None:
        """Without a mount, what would be opened to be written is refused with the kernel's word for it."""
        if self.real:
            return remount(self.at, writable=False)
        before = os.open

        def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(self.at)):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return before(path, flags, *rest, **more)

        patch.setattr(os, "open", refuse)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return make_versions(tmp_path_factory.mktemp("original"))


@pytest.fixture
def disk(original: Versions, tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", 24) as real:
        repo = tmp_path / "disk" / "repo"
        shutil.copytree(original.repo, repo)
        ostree(repo, "config", "set", "core.min-free-space-percent", "0")
        yield Disk(tmp_path / "disk", real, Versions(repo, original.commits))


def build(provider: OstreeProvider, pair: DeltaPair) -> DeltaRecord:
    return provider.build(pair, progress=lambda _: None, cancelled=lambda: False)


def test_a_full_disk_is_said_and_leaves_nothing(disk: Disk) -> None:
    versions, provider = disk.versions, disk.provider()
    disk.fill()
    with pytest.raises(BuildFailed, match=r"The disk of .* is full .*Free space there"):
        build(provider, versions.pair(2, 3))
    assert provider.find(versions.pair(2, 3)) is None
    assert [*(versions.repo / ".wave" / "builds").glob("*"), *(versions.repo / "tmp").glob("*tmp*")] == []
    disk.empty()
    build(provider, versions.pair(1, 2))


def test_a_read_only_file_system_is_said(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    versions, provider = disk.versions, disk.provider()
    build(provider, versions.pair(1, 2))
    disk.read_only(monkeypatch)
    assert provider.find(versions.pair(1, 2)) is not None
    for call in (lambda: build(provider, versions.pair(2, 3)), lambda: provider.drop(versions.pair(1, 2))):
        with pytest.raises(ContentUnavailable, match=r"read-only file system.*Mount it writable"):
            call()


def test_a_folder_that_may_not_be_written_is_said(original: Versions, tmp_path: Path) -> None:
    versions = original.copy(tmp_path / "repo")
    provider = OstreeProvider(OstreeSettings(versions.repo))
    versions.repo.chmod(0o555)

    def built() -> None:
        with pytest.raises(ContentUnavailable, match="may not write"):
            build(provider, versions.pair(1, 2))

    as_anybody(built)
