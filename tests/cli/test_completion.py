"""The shell completes commands, and the names of what is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.cli.house import House


@pytest.fixture(autouse=True)
def heard_again() -> Iterator[None]:
    """Completing silences the log of its whole process, which is about to end; this one is not."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("wave sta", {"start", "status"}),
        ("wave status lm", {"lmp-42"}),
        ("wave status z", set()),
        ("wave promote lmp-42 ", {"lab", "canary", "rest"}),
        ("wave resume lmp-42 --wave ca", {"canary"}),
        ("wave explain lab-0", {"lab-00", "lab-01", "lab-02", "lab-03"}),
        ("wave target sh", {"show"}),
        ("wave target show 4", {"41", "42"}),
        ("wave delta build 4", {"41", "42"}),
        ("wave device show lab-00", {"lab-00"}),
        ("wave policy show st", {"standard"}),
        ("wave --root /nowhere status l", set()),
    ],
)
def test_names_are_completed(line: str, offered: set[str], fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()))
    env = {"_WAVE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    ended = fleet.run(env=env)
    assert set(ended.stdout.split()) == offered
    assert ended.stderr == ""
