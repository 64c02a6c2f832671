"""From a Target to a delta that devices can fetch, with the real ostree; and back when it breaks."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.ostree.provider import OstreeProvider, OstreeSettings
from orchestrator.core.delta_plan import DeltaPlan
from orchestrator.services.builder import Builder
from orchestrator.services.deltas import Deltas
from orchestrator.services.records import JobStatus
from orchestrator.services.targets import Targets
from tests.adapters.ostree_trees import Versions, make_versions
from tests.services.delta_fleet import SmallFleet

pytestmark = [pytest.mark.ostree, pytest.mark.slow]


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return make_versions(tmp_path / "content")


def test_queued_built_ready_found_broken_and_built_again(versions: Versions, tmp_path: Path) -> None:
    """Two devices on 1, three on 2, all to 4: planned, built, found whole; then a part is lost and built again."""
    fleet = SmallFleet(tmp_path, versions=())
    provider = OstreeProvider(OstreeSettings(versions.repo))
    targets = Targets(fleet.store, provider, fleet.clock)
    deltas = Deltas(fleet.store, provider, fleet.clock)
    for number in (1, 2, 4):
        targets.add(version=number, commit=f"os/{number}", hardware_ids=["rpi4"], tags=["promoted"])
    fleet.devices(2, versions.commits[1])
    fleet.devices(3, versions.commits[2])
    row = fleet.rollout(4)
    assert deltas.static_deltas(4, tag="promoted").lines == ("   1 -> 4", "   2 -> 4")

    looked = deltas.ensure(row, "all", now=fleet.now)
    plan: DeltaPlan = looked.plan
    assert (looked.queued, plan.devices, plan.covered) == (2, 5, 0)
    assert plan.build_bytes > 0 and plan.bytes_with < plan.bytes_without

    builder = Builder(fleet.store, provider, fleet.clock, owner="b")
    while builder.work_once(threading.Event()):
        pass
    with fleet.store.reading() as r:
        assert {job.status for job in r.jobs()} == {JobStatus.DONE}
    assert deltas.ensure(row, "all", now=fleet.now).plan.covered == 5
    pairs = [versions.pair(1, 4), versions.pair(2, 4)]
    for pair in pairs:
        found, view = provider.find(pair), deltas.show(pair)
        assert found is not None and found.bytes > 0
        assert view.bytes == found.bytes + found.fallback_bytes
        assert (view.state_text, view.waves) == ("ready", ("lmp-9/all",))
    assert all(answer.holds for answer in deltas.verify())

    lost = provider.find(pairs[0])
    assert lost is not None
    (versions.repo / lost.path / "0").unlink()
    again = deltas.ensure(row, "all", now=fleet.now + timedelta(hours=2))
    assert (again.lost, again.queued, again.plan.covered) == ((pairs[0],), 1, 3)
    assert builder.work_once(threading.Event())
    assert deltas.ensure(row, "all", now=fleet.now + timedelta(hours=2)).plan.covered == 5


def test_what_killed_builds_left_behind_is_swept(versions: Versions, tmp_path: Path) -> None:
    fleet = SmallFleet(tmp_path, versions=())
    provider = OstreeProvider(OstreeSettings(versions.repo))
    left = versions.repo / ".wave" / "builds" / "0123"
    left.mkdir(parents=True)
    stop = threading.Event()
    stop.set()
    Builder(fleet.store, provider, fleet.clock, owner="b").run(stop)
    assert not left.exists()
