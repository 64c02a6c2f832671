"""Fixtures of the tests of faults: an installation that is made once, and a copy of it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.ostree_trees import make_versions
from tests.e2e.faults import House, copied
from tests.e2e.faulty_fleet import make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Three Targets in a tiny repository, eighteen devices, nothing running."""
    folder = tmp_path_factory.mktemp("template")
    return make_template(folder / "house", make_versions(folder / "os"))


@pytest.fixture
def house(template: House, tmp_path: Path) -> Iterator[House]:
    """An installation of one's own."""
    with copied(template, tmp_path / "house") as made:
        yield made
