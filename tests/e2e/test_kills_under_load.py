"""A server killed with SIGKILL under load: nothing that it acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.kills import run


@pytest.mark.e2e
@pytest.mark.parametrize(("ddi", "kills"), [(False, 3), (True, 2)], ids=["own protocol", "hawkBit's"])
def test_kills_under_load_lose_nothing_and_count_nothing_twice(tmp_path: Path, ddi: bool, kills: int) -> None:
    tally = run(tmp_path / "house", kills=kills, devices=100, seed=11, ddi=ddi)
    assert tally.kills == kills and tally.resent > 0
    assert len(tally.acknowledged) > 100
