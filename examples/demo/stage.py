"""The stage: the demo's directory, the ``wave`` commands and the one ``wave serve`` that run there, and their end.

Everything is started in a session of its own and ended by its process id, however the demo ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PROGRAM: Final = (sys.executable, "-m", "orchestrator")
HOUSE: Final = Path(__file__).parents[2]
"""Where the package ``orchestrator`` lies."""

BY: Final = "demo"
"""Whose orders the journal names."""

KEPT: Final = ("content", "golden")
"""What a re-run does not make again."""

OLD: Final = ".old"
"""Where what an earlier run left is put, to be removed beside everything else: its devices have 100,000 names."""


class DemoFailed(Exception):
    """The demo cannot go on; the sentence says what did not happen."""


class Stage:
    """``root`` holds everything; ``wave.yaml`` in it makes every ``wave`` command there find it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.log = self.root / "serve.log"
        self.port = 0
        self._serving: subprocess.Popen[bytes] | None = None
        self._removing: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def repository(self) -> Path:
        return self.root / "content" / "repo"

    def clear(self) -> None:
        """Start afresh: all but the content, whose deltas are to be built again."""
        self.root.mkdir(parents=True, exist_ok=True)
        old = self.root / OLD / uuid.uuid4().hex
        old.mkdir(parents=True)
        for each in self.root.iterdir():
            if each.name not in (*KEPT, OLD):
                each.rename(old / each.name)
        for folder in ("deltas", "delta-indexes", "tmp"):
            for each in (self.repository / folder).glob("*"):
                shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
        self._removing = subprocess.Popen(["nice", "rm", "-rf", self.root / OLD], start_new_session=True)

    def content_intact(self) -> bool:
        """Whether what was made earlier, if anything, is whole."""
        if not (self.repository / "config").exists():
            return True
        check = ["ostree", "fsck", "--quiet", f"--repo={self.repository}"]
        return subprocess.run(check, capture_output=True, timeout=120).returncode == 0

    def drop_content(self) -> None:
        """What is not whole goes, with all that was made from it."""
        for name in KEPT:
            shutil.rmtree(self.root / name, ignore_errors=True)

    def write_settings(self) -> None:
        """Settings with seconds where an installation has minutes."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.root / "wave.yaml").write_text(
            "# The demo's installation: `wave` finds it when it is run in this directory.\n"
            "root: .\n"
            "repository: content/repo\n"
            f"port: {self.port}\n"
            "console_port: off\n"
            "check_in_every: 1s              # minutes in a real fleet\n"
            "tick_at_most: 5s\n"
            "builders: 2\n"
            "build_nice: 0\n"
            "max_bsdiff_size: 8              # cheap deltas first: they unblock a wave early\n"
        )

    def wave(self, *arguments: str, within: float = 60) -> str:
        """Run one ``wave`` command as a user would; what it printed. Raises DemoFailed."""
        shown = command_line(arguments)
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.root,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"`{shown}` did not end within {within:g} s.") from None
        finally:
            end(process, within=5)
        if process.returncode:
            raise DemoFailed(f"`{shown}` ended with {process.returncode}: {err.strip() or out.strip()}")
        return out

    def serve(self, *, within: float = 20) -> None:
        """Start ``wave serve`` and wait until it listens."""
        with self.log.open("wb") as log:
            self._serving = subprocess.Popen(
                [*PROGRAM, "serve"],
                cwd=self.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for("`wave serve` to listen", self._listens, within=within, meanwhile=self.check)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def check(self) -> None:
        """Raises DemoFailed when ``wave serve`` has ended."""
        if self._serving is not None and self._serving.poll() is not None:
            raise DemoFailed(f"`wave serve` ended with {self._serving.returncode}.")

    def log_tail(self, lines: int = 30) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def close(self) -> None:
        """End ``wave serve`` and with it its builders."""
        if self._serving is not None:
            end(self._serving, within=10)
            self._serving = None
        if self._removing is not None:
            end(self._removing, within=5)


def command_line(arguments: tuple[str, ...] | list[str]) -> str:
    """As it would be typed."""
    return f"wave {' '.join(shlex.quote(each) for each in arguments)}"


def environment() -> Mapping[str, str]:
    """The surroundings of a command: nobody's settings but the demo's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WAVE_")}
    paths = [str(HOUSE), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "WAVE_USER": BY, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], *, within: float) -> None:
    """End a process that was started here: kindly, then with its whole session."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(within)
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its own session, so its group is its own
        process.wait(10)


def wait_for(
    what: str,
    condition: Callable[[], bool],
    *,
    within: float,
    meanwhile: Callable[[], None] = lambda: None,
    every: float = 0.1,
) -> None:
    """Until ``condition`` holds. Raises DemoFailed after ``within`` seconds, naming ``what`` was waited for."""
    ends = time.monotonic() + within
    while not condition():
        meanwhile()
        if time.monotonic() > ends:
            raise DemoFailed(f"Waited {within:g} s in vain for {what}.")
        time.sleep(every)
