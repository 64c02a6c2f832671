"""Fixtures of the operators' side: an installation with something in it, and people who ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.house import House
from tests.web.asking import Asking


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Three versions, four devices in the lab and 30 in the field, a rollout that was applied."""
    made = House(tmp_path / "wave")
    made.install(monkeypatch)
    made.content()
    made.fleet(field_=30)
    made.ok("apply", str(made.rollout()))
    return made


@pytest.fixture
def api(house: House) -> Iterator[Asking]:
    with house.application() as app:
        yield Asking(app)
