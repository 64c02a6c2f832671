"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.house import House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """An empty installation."""
    made = House(tmp_path / "wave")
    made.install(monkeypatch)
    return made


@pytest.fixture
def fleet(house: House) -> House:
    """Three versions, four devices in the lab and 60 in the field, all deltas built, nothing applied."""
    house.content()
    house.fleet(field_=60)
    return house
