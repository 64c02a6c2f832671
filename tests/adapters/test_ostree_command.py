"""How the runner of ``ostree`` ends commands and what it says of their failures; with scripts in ostree's place."""

from __future__ import annotations

import itertools
import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.ostree.command import CommandFailed, OstreeCommand, explain
from orchestrator.errors import BuildFailed, ContentUnavailable, WaveError

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repo" / "objects").mkdir(parents=True)
    return tmp_path / "repo"


def script(folder: Path, body: str) -> OstreeCommand:
    path = folder / "ostree"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return OstreeCommand(str(path), timeout=timedelta(seconds=10), nice=5)


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        ("Writing object: No space left on device", BuildFailed, r"The disk of .* is full .*Free space there"),
        ("min-free-space-percent '3%' would be exceeded", BuildFailed, r"is full"),
        ("opening temp file: Read-only file system", ContentUnavailable, r"read-only file system.*Mount it writable"),
        ("openat(tmp): Permission denied", ContentUnavailable, r"may not write .*Run as the repository's owner"),
        ("No such metadata object aa.commit", ContentUnavailable, r"lacks an object.*ostree fsck"),
        ("Couldn't find file object 'bb'", ContentUnavailable, r"lacks an object"),
        ("something new", BuildFailed, r"failed while building: something new"),
    ],
)
def test_each_failure_is_a_sentence_with_a_remedy(
    tmp_path: Path, repository: Path, said: str, error: type[WaveError], sentence: str
) -> None:
    with pytest.raises(CommandFailed) as caught:
        script(tmp_path, f'echo "progress" >&2; echo "error: {said}" >&2; exit 1').run("static-delta", "generate")
    explained = explain(caught.value, repository, doing="building")
    assert type(explained) is error
    with pytest.raises(error, match=sentence):
        raise explained


def test_a_full_device_is_known_by_the_words_of_the_kernel(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        script(tmp_path, "LC_ALL=C cat /bin/sh > /dev/full").run("summary", "-u")
    assert "is full" in str(explain(caught.value, repository, doing="building"))
    with pytest.raises(OSError, match="No space") as ours, Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    assert "is full" in str(explain(ours.value, repository, doing="building"))


def test_a_repository_that_is_gone_explains_any_failure(tmp_path: Path) -> None:
    error = explain(OSError(2, "No such file or directory"), tmp_path / "gone", doing="building")
    assert type(error) is ContentUnavailable
    assert "There is no OSTree repository" in str(error)


def test_gives_the_end_of_what_was_said_and_the_time_it_took(tmp_path: Path) -> None:
    lines: list[str] = []
    result = script(tmp_path, "echo $LC_ALL; nice; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo end >&2").run(
        "x", on_line=lines.append
    )
    assert result.stdout.split() == ["C", str(os.nice(0) + 5)]
    assert result.stderr == "end\n"
    assert sorted(lines) == sorted(["C", str(os.nice(0) + 5), "end"])
    assert 0 < result.cpu_seconds < 5


def test_a_child_that_stays_and_holds_the_pipes_does_not_hold_us(tmp_path: Path) -> None:
    started = time.monotonic()
    assert script(tmp_path, "sleep 20 & echo done").run("x").stdout == "done\n"
    assert time.monotonic() - started < 5


def test_cancelling_is_asked_at_least_once_a_second(tmp_path: Path) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 4

    with pytest.raises(BuildFailed, match="`ostree x` was cancelled"):
        script(tmp_path, "sleep 20").run("x", cancelled=cancelled)
    assert max(later - earlier for earlier, later in itertools.pairwise(asked)) < 1


def test_the_command_dies_with_the_thread_that_waits_for_it(tmp_path: Path) -> None:
    """A worker that is killed leaves nothing computing; a thread that ends is the nearest one can come in a test."""
    pid_file = tmp_path / "pid"
    child = os.fork()
    if child == 0:
        try:
            script(tmp_path, f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 20").run("x")
        finally:
            os._exit(0)
    end = time.monotonic() + 10
    while not pid_file.exists():
        assert time.monotonic() < end
        threading.Event().wait(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    process = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    while process.exists() and process.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < end
        threading.Event().wait(0.02)
