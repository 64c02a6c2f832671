"""Standard streams that are closed or full: a command says so in a sentence, or does its work in silence."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.streams import not_shown
from tests.cli.house import House

REDIRECTED = 'words=$1; shift; eval "exec \\"\\$@\\" $words"'
"""A shell that closes or fills what ``$1`` says, and becomes the rest."""


def wave(redirected: str, *words: str, at: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", REDIRECTED, "sh", redirected, sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [["list"], ["--help"]], ids=lambda words: " ".join(words))
def test_an_output_without_room_is_told_in_a_sentence(words: list[str], house: House, tmp_path: Path) -> None:
    done = wave(">/dev/full", *words, at=tmp_path)
    assert "The output cannot be written: No space left on device. What was ordered may be done" in done.stderr
    assert (done.stderr.count("\n"), done.stdout, done.returncode) == (1, "", 6)


def test_a_file_that_finds_no_room_is_not_taken_for_the_output() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(OSError) as full:
        file.write(b"x")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, None)
    assert not_shown(full.value) is None


def test_an_order_whose_answer_finds_no_room_is_carried_out(fleet: House, tmp_path: Path) -> None:
    done = wave(">/dev/full", "device", "hold", "gw-0001", "--reason", "bench", "--json", at=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert json.loads(fleet.ok("device", "show", "gw-0001", "--json"))["result"]["status"] == "held"


@pytest.mark.parametrize(
    ("redirected", "words", "code"),
    [
        (">&-", ["list"], 0),
        (">/dev/full", ["nothing", "--json"], 2),
        ("2>&-", ["nothing"], 2),
        ("2>/dev/full", ["nothing"], 2),
        ("<&- >&- 2>&-", ["list"], 0),
    ],
    ids=["no output", "an error finds no room", "no place for errors", "errors find no room", "no stream at all"],
)
def test_without_a_stream_the_exit_code_tells(
    redirected: str, words: list[str], code: int, house: House, tmp_path: Path
) -> None:
    done = wave(redirected, *words, at=tmp_path)
    assert done.returncode == code
    assert "fault" not in done.stderr and "Traceback" not in done.stderr


def test_who_has_no_input_is_as_one_that_says_nothing(fleet: House, tmp_path: Path) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    done = wave("<&-", "cancel", "lmp-42", at=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_told_to_whoever_asks_as_other_programs_are_asked(house: House) -> None:
    assert house.ok("--version") == house.ok("version")
