"""What every test shares: Hypothesis's two profiles, and a PostgreSQL for those that ask for one.

``ci`` tries the same examples on every run, so that a red run is red again; ``dev`` looks for new ones each time.
``HYPOTHESIS_PROFILE`` chooses; without it, ``CI`` in the environment does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.adapters.sql.store import open_store
from tests.postgres import Cluster, cluster

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# A shell that starts the tests in its background has all they start ignore Ctrl-C, which some of them try.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[Cluster, str]]:
    """A cluster, and a database in it that has the schema and nothing else."""
    with cluster() as running:
        name = running.database()
        open_store(running.url(name)).close()
        yield running, name
