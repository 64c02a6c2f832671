"""Runs the ``ostree`` command: own process group, time limit, cancellation, errors in our words.

A subprocess and not a library, so that a crash of ostree stays outside and a build can be niced and killed whole.
"""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from orchestrator.adapters.commands import Cancelled, CommandResult, TimedOut, start, watch
from orchestrator.errors import BuildFailed, ContentUnavailable, WaveError

OLDEST_VERSION = (2020, 8)
"""The first libostree that writes delta indexes, which devices need to find a delta."""

_INSTALL = "Install it (Debian: `apt-get install ostree`), or name it in the settings."


class CommandFailed(WaveError):
    """ostree said no. Never leaves this package: the caller knows whose fault it is."""

    def __init__(self, verb: str, result: CommandResult) -> None:
        self.verb = verb
        self.result = result
        self.reason = _reason(result)
        super().__init__(f"`ostree {verb}` failed: {self.reason}.")


class OstreeCommand:
    """The ``ostree`` executable. ``timeout`` ends a command that is given none of its own; ``nice`` is added to all."""

    def __init__(self, executable: str = "ostree", *, timeout: timedelta = timedelta(minutes=5), nice: int = 0) -> None:
        self._executable = executable
        self._timeout = timeout
        self._nice = nice

    def check(self) -> None:
        """Raises ContentUnavailable when ostree is missing, cannot run, or is older than OLDEST_VERSION."""
        path = self._path()
        status = Path(path).stat()
        # asked again only when the file behind the name changes, as after an upgrade
        version = _version(self, path, status.st_mtime_ns, status.st_ino)
        if version < OLDEST_VERSION:
            raise ContentUnavailable(
                f"{path} is version {'.'.join(map(str, version))}, too old to index deltas.",
                remedy=f"Install {'.'.join(map(str, OLDEST_VERSION))} or later.",
            )

    def run(
        self,
        *arguments: str,
        timeout: timedelta | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_line: Callable[[str], None] | None = None,
        keep_open: Sequence[int] = (),
    ) -> CommandResult:
        """Run to the end; the first of ``arguments`` is the verb.

        ``on_line`` gets what it prints as it comes; ``keep_open`` are file descriptors (locks) that the child
        holds too.
        Raises CommandFailed, ContentUnavailable when ostree is missing, and BuildFailed on timeout or cancellation;
        by then the whole process group is dead.
        """
        limit = timeout if timeout is not None else self._timeout
        started = time.monotonic()
        try:
            process = start([self._path(), *arguments], nice=self._nice, keep_open=keep_open)
        except OSError as error:
            raise ContentUnavailable(f"{self._executable} cannot be run: {error.strerror}.", remedy=_INSTALL) from error
        try:
            result = watch(process, started + limit.total_seconds(), cancelled, on_line)
        except TimedOut:
            raise BuildFailed(
                f"`ostree {_verb(arguments)}` was ended after {limit.total_seconds():g} seconds.",
                remedy="Give builds more time, or make them cheaper with a smaller max_bsdiff_size.",
            ) from None
        except Cancelled:
            raise BuildFailed(f"`ostree {_verb(arguments)}` was cancelled.") from None
        if result.returncode:
            raise CommandFailed(_verb(arguments), result)
        return result

    def _path(self) -> str:
        path = shutil.which(self._executable)
        if path is None:
            raise ContentUnavailable(f"The command `{self._executable}` is not there.", remedy=_INSTALL)
        return path


@lru_cache(maxsize=16)
def _version(command: OstreeCommand, path: str, mtime: int, inode: int) -> tuple[int, ...]:
    del mtime, inode
    try:
        output = command.run("--version", timeout=timedelta(seconds=20)).stdout
    except (CommandFailed, BuildFailed) as error:
        raise ContentUnavailable(f"{path} cannot say its version: {error}", remedy="Install it again.") from error
    found = re.search(r"Version: *'?(\d+)\.(\d+)", output)
    if found is None:
        raise ContentUnavailable(f"{path} does not look like OSTree: it names no version.", remedy=_INSTALL)
    return tuple(map(int, found.groups()))


def _verb(arguments: Sequence[str]) -> str:
    return " ".join(argument for argument in arguments[:2] if not argument.startswith(("-", "/")))


def _reason(result: CommandResult) -> str:
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        return f"it was killed by {name}; the log of the machine says whether memory ran out"
    said = [line for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in said if line.lower().startswith("error:")] or said
    return errors[-1].removeprefix("error:").strip()[:500] if errors else f"it ended with {result.returncode}"


def explain(error: CommandFailed | OSError, repository: Path, *, doing: str) -> WaveError:
    """A failed command or system call in our tree, with what to do. ``doing`` completes "while …"."""
    reason = error.reason if isinstance(error, CommandFailed) else (error.strerror or str(error))
    match reason:
        case _ if is_disk_full(reason):
            return BuildFailed(
                f"The disk of {repository} is full (while {doing}).",
                remedy=f"Free space there ({_free(repository)}), or drop deltas that no rollout needs.",
            )
        case _ if "Read-only file system" in reason:
            return ContentUnavailable(
                f"{repository} is on a read-only file system (while {doing}).", remedy="Mount it writable."
            )
        case _ if "Permission denied" in reason or "Operation not permitted" in reason:
            return ContentUnavailable(
                f"This user may not write to {repository} (while {doing}: {reason}).",
                remedy="Run as the repository's owner, or change its permissions.",
            )
        case _ if not (repository / "objects").is_dir():
            return missing_repository(repository)
        case _ if "No such metadata object" in reason or "file object" in reason or "Refspec" in reason:
            return ContentUnavailable(
                f"{repository} lacks an object that is needed (while {doing}: {reason}).",
                remedy="Run `ostree fsck`, and push or pull the commit again.",
            )
    return BuildFailed(
        f"It failed while {doing}: {reason}.", remedy="See the build's log, and whether `ostree fsck` finds fault."
    )


def is_disk_full(reason: str) -> bool:
    """By the words of the kernel and of ostree."""
    return any(words in reason for words in ("No space left", "min-free-space", "Disk quota"))


def missing_repository(repository: Path) -> ContentUnavailable:
    return ContentUnavailable(
        f"There is no OSTree repository at {repository}.",
        remedy="Mount or restore it, or make one with `ostree init --mode=archive`.",
    )


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path).free / 1e6:.0f} MB are free"
    except OSError:
        return "free space unknown"
