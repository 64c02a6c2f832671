"""Requests that nobody should send, to a real server: never a 500, nothing hangs, nothing grows. ``make fuzz`` sends a
hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.fuzz import run


@pytest.mark.e2e
@pytest.mark.slow
def test_a_thousand_bad_requests_are_answered_as_described(tmp_path: Path) -> None:
    tally = run(tmp_path / "house", cases=1_000, seed=5)
    assert tally.sent == 1_000 and {200, 400, 401, 404} <= tally.statuses.keys()
