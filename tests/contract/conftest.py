"""Every contract test runs on SQLite in memory, SQLite in a file and PostgreSQL, each in a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.adapters.sql.store import SqlStore, open_store
from tests.contract.building import Opener

KINDS = ["memory", "file", pytest.param("postgresql", marks=pytest.mark.postgres)]
LASTING = KINDS[1:]
"""Those that another process, or a second store, can open."""


def _urls(kind: str, request: pytest.FixtureRequest, directory: Path, ending: ExitStack) -> str:
    if kind == "memory":
        return "sqlite://"
    if kind == "file":
        return f"sqlite:///{directory / 'wave.db'}"
    running, template = request.getfixturevalue("postgres")
    name = running.database(template)
    ending.callback(running.drop, name)
    return str(running.url(name))


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with ExitStack() as ending:
        opened = open_store(_urls(request.param, request, tmp_path, ending))
        ending.callback(opened.close)
        yield opened


@pytest.fixture(params=LASTING)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same database as often as asked; has its ``url``."""
    with ExitStack() as ending:
        yield Opener(_urls(request.param, request, tmp_path, ending), ending)
