"""What all stories share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.services import board


@pytest.fixture(autouse=True)
def _an_old_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots may be ten minutes old instead of a second. Under virtual time every check-in would read the board
    anew; and as a snapshot may only ever say *no*, an older one is the harder test."""
    monkeypatch.setattr(board, "FRESH_FOR", timedelta(minutes=10))
