"""bash, zsh and fish complete names of rollouts and waves: the real shells, with a key typed into the first two."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.house import House

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; "),
}


@pytest.fixture
def words(fleet: House, tmp_path: Path) -> dict[str, str]:
    """An environment in which ``wave`` is this program, over a house with one rollout."""
    fleet.ok("apply", str(fleet.rollout()))
    shim = tmp_path / "bin" / "wave"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    shim.chmod(0o755)
    return {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WAVE_ROOT": str(fleet.root),
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "COLUMNS": "200",
        "PS1": "> ",
    }


class Terminal:
    """A shell in a pseudo-terminal."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        program = shutil.which(argv[0])
        assert program is not None, f"{argv[0]} is missing: `make test` gets it"
        self.child, self.end = pty.fork()
        if self.child == 0:
            os.execve(program, argv, environment)

    def type(self, text: str, *, until: str) -> str:
        """What was shown until this was."""
        os.write(self.end, text.encode())
        seen, over = "", time.monotonic() + 60
        while until not in seen and time.monotonic() < over:
            if select.select([self.end], [], [], 0.5)[0]:
                seen += os.read(self.end, 65_536).decode(errors="replace")
        assert until in seen, seen
        return seen

    def close(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        os.close(self.end)


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_a_tab_completes_the_rollout_and_then_its_wave(shell: str, words: dict[str, str]) -> None:
    argv, before = INTERACTIVE[shell]
    terminal = Terminal(argv, words)
    try:
        ready = f'{before}eval "$(_WAVE_COMPLETE=source_{shell} wave)"; echo READY$((0 + 1))\n'
        terminal.type(ready, until="READY1")
        terminal.type("wave promote lm\t", until="lmp-42")
        terminal.type("ca\t", until="canary")
    finally:
        terminal.close()


def test_fish_offers_the_same(words: dict[str, str]) -> None:
    asked = (
        '_WAVE_COMPLETE=source_fish wave | source; complete -C "wave status lm"; complete -C "wave promote lmp-42 c"'
    )
    fish = shutil.which("fish")
    assert fish is not None, "fish is missing: `make test` gets it"
    done = subprocess.run(
        [fish, "--no-config", "-c", asked], env=words, capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout.split() == ["lmp-42", "canary"]
