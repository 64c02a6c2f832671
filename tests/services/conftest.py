"""A world for each test, on either database.

On PostgreSQL it is one of its own in the session's cluster. Whatever a test does there, no two of its writers may have
waited for each other in a circle: the server counts when it had to break one up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Cluster
from tests.services.fleet_world import World


@pytest.fixture(params=["memory", pytest.param("postgresql", marks=pytest.mark.postgres)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A small world, on SQLite in memory and on PostgreSQL."""
    url = "sqlite://" if request.param == "memory" else request.getfixturevalue("postgres_url")
    world = World(url)
    yield world
    world.close()


@pytest.fixture
def postgres_url(postgres: tuple[Cluster, str]) -> Iterator[str]:
    """An empty database with the schema; at the end nobody may have met in a deadlock in it."""
    running, template = postgres
    name = running.database(template)
    yield running.url(name)
    met = _deadlocks(running, name)
    running.drop(name)
    assert met == 0, "Two writers waited for each other in a circle, for a second at least: see the order of locks."


def _deadlocks(running: Cluster, name: str) -> int:
    """The count is complete once all who were in the database have left it."""
    with psycopg.connect(host=str(running.directory), user="wave", dbname="postgres", autocommit=True) as connection:
        for _ in range(200):
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
            if row is not None and row[0] == 0:
                break
            time.sleep(0.02)
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = %s", (name,)).fetchone()
    assert row is not None
    return int(row[0])
