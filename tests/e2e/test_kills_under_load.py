"""A server killed with SIGKILL under load: nothing that it acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.kills import run


@pytest.mark.e2e
def test_five_kills_under_load_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    tally = run(tmp_path / "house", kills=5, devices=100, seed=11)
    assert tally.kills == 5 and tally.resent > 0
    assert len(tally.acknowledged) > 100
