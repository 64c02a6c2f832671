"""Applies a delta once for real, as a device would, in a scratch repository that is thrown away.

The scratch repository holds the old commit alone: in one that could see the published objects (a parent, say) ostree
skips every part whose objects are "there already" and proves nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

from orchestrator.adapters.ostree.command import CommandFailed, OstreeCommand, explain, is_disk_full
from orchestrator.adapters.ostree.layout import read_superblock
from orchestrator.adapters.ostree.objects import object_path, read_content
from orchestrator.adapters.workspace import Workspace
from orchestrator.errors import BuildFailed, CorruptDelta
from orchestrator.services.delta_provider import DeltaPair


class ScratchApply:
    """One proof. ``cpu_seconds`` adds up what the commands used."""

    def __init__(
        self,
        ostree: OstreeCommand,
        repository: Path,
        space: Workspace,
        *,
        timeout: timedelta,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ostree = ostree
        self._repository = repository
        self._space = space
        self._timeout = timeout
        self._cancelled = cancelled
        self._scratch = space.folder / "scratch"
        self.cpu_seconds = 0.0

    def prove(self, folder: Path, pair: DeltaPair) -> None:
        """The delta in ``folder`` turns the old commit into the whole new one. Raises CorruptDelta if not,
        ContentUnavailable and BuildFailed when it could not be tried."""
        superblock = read_superblock(folder, pair)
        delta = self._space.folder / "apply"
        try:
            self._prepare(pair)
            delta.mkdir()
            (delta / "superblock").write_bytes(superblock.without_fallbacks)
            for part in superblock.parts:
                if not part.inline:
                    _link(folder / str(part.index), delta / str(part.index))
            # ostree marks a commit as whole by the absence of this file; the fallback objects are still to come
            (self._scratch / "state" / f"{pair.to_commit}.commitpartial").touch()
            self._delta_step("static-delta", "apply-offline", str(delta / "superblock"))
            self._check_all_made(pair, {fallback.name for fallback in superblock.fallbacks})
            self._step("pull-local", str(self._repository), pair.to_commit)
            if pair.from_commit is not None:
                object_path(self._scratch, f"{pair.from_commit}.commit").unlink()
            self._delta_step("fsck", "--quiet")
        except (OSError, CommandFailed) as error:
            raise explain(error, self._repository, doing="applying the delta for a test") from error
        finally:
            # both, because a build proves twice when what was published already does not hold
            shutil.rmtree(self._scratch, ignore_errors=True)
            shutil.rmtree(delta, ignore_errors=True)

    def _prepare(self, pair: DeltaPair) -> None:
        self._scratch.mkdir()
        self._step("init", f"--mode={_mode(self._scratch)}")
        self._step("config", "set", "core.fsync", "false")
        if pair.from_commit is not None:
            self._step("pull-local", str(self._repository), pair.from_commit)

    def _check_all_made(self, pair: DeltaPair, fallbacks: set[str]) -> None:
        expected = read_content(self._repository, pair.to_commit).objects - fallbacks
        if pair.from_commit is not None:
            expected -= read_content(self._repository, pair.from_commit).objects
        for name in sorted(expected):
            # content objects are called .file where they are stored unpacked
            if not os.path.lexists(object_path(self._scratch, name.removesuffix("z"))):
                raise CorruptDelta(f"The delta does not bring the object {name}.", remedy="Build it again.")

    def _step(self, *arguments: str) -> None:
        result = self._ostree.run(
            f"--repo={self._scratch}",
            *arguments,
            timeout=self._timeout,
            cancelled=self._cancelled,
            keep_open=(self._space.lock_fd,),
        )
        self.cpu_seconds += result.cpu_seconds

    def _delta_step(self, *arguments: str) -> None:
        """A step whose failure says that the delta is bad, unless the machine is at fault."""
        try:
            self._step(*arguments)
        except CommandFailed as error:
            fault = explain(error, self._repository, doing="applying the delta for a test")
            # ostree aborts (SIGABRT) on some damaged deltas; SIGKILL comes from outside
            full = is_disk_full(error.reason)
            if isinstance(fault, BuildFailed) and not full and error.result.returncode != -signal.SIGKILL:
                raise CorruptDelta(f"The delta cannot be applied: {error.reason}.", remedy="Build it again.") from error
            raise fault from error


def _mode(folder: Path) -> Literal["bare-user", "bare-user-only"]:
    """``bare-user`` keeps modes such as setuid, which ``bare-user-only`` refuses, but needs user.* attributes."""
    try:
        os.setxattr(folder, "user.ostreemeta", b"")
    except OSError:
        return "bare-user-only"
    os.removexattr(folder, "user.ostreemeta")
    return "bare-user"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
