"""README's first rollout and the tutorial are run as they stand, line by line, in one shell; only the port is a free
one.

the folder, two versions, three devices      a few seconds
the lab, then everybody, policy `demo`       about ten seconds
a release that does not start                held at its first device, then cancelled
afterwards                                   every device runs version 2, and nothing is left running
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.loopback import free_port

ROOT = Path(__file__).parents[2]
PORT = "WAVE_PORT=8700"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.ostree,
]


def blocks_of(page: str, mark: str) -> list[str]:
    """The blocks of a page with this mark on the line before."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"<!-- {mark} -->\n```(?:sh|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found or mark.startswith("shows")
    return found


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A checkout as far as the lines need one: the command on the path, and the examples."""
    folder = tmp_path / "checkout"
    (folder / ".venv/bin").mkdir(parents=True)
    wave = folder / ".venv/bin/wave"
    wave.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchestrator "$@"\n')
    wave.chmod(0o755)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run(page: str, name: str, here: Path, tmp_path: Path) -> str:
    """What the runnable blocks of a page say, run as one script."""
    port = free_port()
    script = "\n".join(blocks_of(page, f"runnable: {name}"))
    assert script.count(PORT) == 1
    script = script.replace(PORT, f"WAVE_PORT={port}") + "\nwait\npwd\n"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WAVE_")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "WAVE_USER": "reader"}
    shell = subprocess.Popen(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=270)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # it leads a session of its own: what it started, and nothing else
    # `wait` ends with how the last background process was ended: by the kill of the last line.
    assert shell.returncode in (0, 143), said
    return said


def test_the_tutorial_does_and_shows_what_it_says(here: Path, tmp_path: Path) -> None:
    said = run("docs/tutorial.md", "tutorial", here, tmp_path)
    flat = " ".join(said.split())
    for block in blocks_of("docs/tutorial.md", "shows: tutorial"):
        for line in block.splitlines():
            assert " ".join(line.split()) in flat, said
    work = next(each.parent for each in tmp_path.rglob("tokens.txt"))
    assert (work / "first-rollout.tar.gz").stat().st_mode & 0o777 == 0o600


def test_it_does_what_readme_says(here: Path, tmp_path: Path) -> None:
    said = run("README.md", "first-rollout", here, tmp_path)
    assert "first completed" in said
    assert "lab=passed rest=passed" in said
    assert "Every wave has passed: the Target is generally available." in said
    assert "It has confirmed that it runs the Target." in said
    assert "echo I am version 2" in said
    assert "second held" in said
    assert "it ended with 10" in said
    assert "The first bad device in lab" in said
    work = next(each.parent for each in tmp_path.rglob("tokens.txt"))
    for device in ("lab-1", "dev-1", "dev-2"):
        assert (work / "devices" / device / "current/usr/bin/app").read_text() == "echo I am version 2\n"
