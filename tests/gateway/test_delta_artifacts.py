"""Where deltas between files are artifacts themselves, devices of hawkBit's and Mender's protocols get them, too."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.update import UpdateStatus
from orchestrator.services.delta_program import DeltaProgram
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.deltas import Deltas
from orchestrator.services.messages import CheckIn
from orchestrator.services.planning import Planner
from orchestrator.services.settings import Settings
from tests.gateway.ddi_world import BASE, DdiWorld, artifact_of, content_of
from tests.gateway.mender_house import House
from tests.services.fake_provider import FakeProvider
from tests.services.fleet_world import TAG, World, commit_of

PROGRAM = DeltaProgram.model_validate({"name": "swu-delta", "makes": "artifact", "make": ["x", "{from}{to}{delta}"]})
SETTINGS = Settings(delta_program=PROGRAM)
CONTENT = b"only what changed"
STRICT = {"deltas": {"otherwise": "hold"}}


@pytest.fixture
def ddi(tmp_path: Path) -> Iterator[DdiWorld]:
    made = DdiWorld(tmp_path, World(settings=SETTINGS))
    yield made
    made.close()


def offered(ddi: DdiWorld, device: str) -> dict[str, Any]:
    """The file that its deployment names."""
    deployment = ddi.get(device, ddi.links(device)["deploymentBase"]).json()["deployment"]
    (chunk,) = deployment["chunks"]
    (file,) = chunk["artifacts"]
    assert chunk["version"] == "1.42.0"
    return dict(file)


def test_a_device_gets_the_delta_from_what_it_runs_and_all_others_the_whole(ddi: DdiWorld) -> None:
    old, stranger = ddi.fleet(2)
    ddi.configure(stranger, "0.9-factory")
    delta = ddi.delta(41, 42, CONTENT)
    whole = artifact_of(42)
    for device, expected, content in ((old, delta, CONTENT), (stranger, whole, content_of(42))):
        file = offered(ddi, device)
        sums = expected.digests
        assert (file["filename"], file["size"]) == (expected.filename, expected.size)
        assert file["hashes"] == {"sha1": sums.sha1, "md5": sums.md5, "sha256": sums.sha256}
        assert file["_links"]["download"]["href"].endswith(f"/{expected.filename}")
        got = ddi.get(device, file["_links"]["download"]["href"])
        assert (got.status_code, got.content) == (200, content)
        assert ddi.get(device, file["_links"]["md5sum-http"]["href"]).text == f"{sums.md5}  {expected.filename}\n"
        assert ddi.world.update(device).by_delta is (device == old)
        action = ddi.action(device)
        assert ddi.get(device, f"softwaremodules/{action}/artifacts").json() == [file]
        ddi.say(device, action, "closed", "success")
        ddi.configure(device, "1.42.0")
        assert ddi.world.status(device) is UpdateStatus.CONFIRMED


def test_over_the_own_protocol_it_is_a_delta_like_others(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    delta, commit = ddi.delta(41, 42, CONTENT), artifact_of(41).sha256
    found = ddi.world.devices.check_in(device, ddi.world.tokens[device], CheckIn(commit))
    offer = (found.result(10) if isinstance(found, Future) else found).offer
    assert offer is not None and offer.delta is not None and offer.artifact is not UNSET
    assert (offer.delta.from_commit, offer.delta.bytes) == (commit, len(CONTENT))
    assert (offer.delta.sha256, offer.delta.program) == (delta.sha256, "swu-delta")
    assert offer.artifact.sha256 == artifact_of(42).sha256


def test_a_part_of_it_can_be_fetched_and_the_whole_too_by_who_had_begun_that(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    begun = f"{BASE}/{device}/softwaremodules/{action}/artifacts/image.swu"
    assert ddi.get(device, begun, headers={"range": "bytes=0-9"}).content == content_of(42)[:10]
    ddi.delta(41, 42, CONTENT)
    part = ddi.get(device, offered(ddi, device)["_links"]["download"]["href"], headers={"range": "bytes=5-8"})
    assert (part.status_code, part.content) == (206, CONTENT[5:9])
    assert ddi.get(device, begun, headers={"range": "bytes=10-19"}).content == content_of(42)[10:20]
    assert ddi.get(device, begun.replace("image", "delta-00000000-image")).status_code == 404


def test_who_fetches_it_may_go_on_when_the_rollout_is_cancelled(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    ddi.delta(41, 42, CONTENT)
    href = offered(ddi, device)["_links"]["download"]["href"]
    assert ddi.get(device, href).status_code == 200
    ddi.world.rollouts.cancel("lmp-42", by="anna", reason="enough")
    ddi.world.tick()
    assert offered(ddi, device)["_links"]["download"]["href"] == href
    assert ddi.get(device, href, headers={"range": "bytes=1-3"}).content == CONTENT[1:4]


def test_a_patch_is_for_none_of_them(ddi: DdiWorld) -> None:
    """One that was made before the setting was changed, and is not replaced yet."""
    (device,) = ddi.fleet(1)
    pair = DeltaPair(artifact_of(41).sha256, artifact_of(42).sha256)
    with ddi.world.store.writing() as w:
        record = DeltaRecord(pair, f"deltas/{pair.from_commit}/{pair.to_commit}/{'a' * 64}.xdelta3", 1, 10, 0, 0)
        w.record_delta(record, now=ddi.world.now)
    ddi.world.devices.refresh()
    assert offered(ddi, device)["filename"] == "image.swu"
    assert ddi.world.update(device).by_delta is False


def test_the_wave_and_the_device_wait_for_it(ddi: DdiWorld, tmp_path: Path) -> None:
    """The plan and the gate count these devices among those that need a delta, and an open wave gives none of them the
    whole instead."""
    (device,) = ddi.fleet(1, policy=STRICT)
    world, pair = ddi.world, DeltaPair(artifact_of(41).sha256, artifact_of(42).sha256)
    assert ddi.links(device) == {}
    (why,) = world.devices.why_not(device)
    assert why.kind == "delta" and "not ready" in why.sentence
    with world.store.reading() as r:
        assert [job.pair for job in r.jobs()] == [pair], "it is queued for the device that came by"
    before = world.devices.writer.items
    assert [ddi.links(device) for _ in range(5)] == [{}] * 5
    assert world.devices.writer.items == before, "who waits costs no look into the store"
    provider = FakeProvider(tmp_path, [artifact_of(41).sha256, artifact_of(42).sha256])
    deltas = Deltas(world.store, provider, world.clock, makes_artifacts=SETTINGS.makes_artifacts)
    needed = deltas.ensure(world.row(), "all", now=world.now).plan
    assert (needed.devices, needed.covered, len(needed.builds)) == (1, 0, 1)
    spec = {"rollout": "b", "target": 42, "tag": TAG, "policy": "p", "waves": [{"wave": "all", "devices": "all"}]}
    planner = Planner(world.store, provider, deltas, world.clock)
    plan = planner.plan(RolloutFile.parse(spec), Policy.parse({"policy": "p"}))
    assert [(each.from_commit, each.devices) for each in plan.waves[0].deltas] == [(pair.from_commit, 1)]
    assert not any("served whole" in note for note in plan.notes)
    ddi.delta(41, 42, CONTENT)
    assert offered(ddi, device)["size"] == len(CONTENT)
    assert world.devices.why_not(device)[0].sentence == "It is offered the Target, by delta."


def test_a_mender_device_is_handed_its_address_and_another_the_whole() -> None:
    house = House(settings=SETTINGS)
    try:
        old, stranger = house.fleet(2)
        stranger.runs = "app-0"
        stranger.tell()
        house.world.apply()
        pair = DeltaPair(commit_of(41), commit_of(42))
        path = f"deltas/{pair.from_commit}/{pair.to_commit}/{'a' * 64}-{'b' * 40}-{'c' * 32}.binary-delta"
        with house.world.store.writing() as w:
            w.record_delta(DeltaRecord(pair, path, 1, 10, 0, 0), now=house.world.now)
        house.world.devices.refresh()
        for client, expected in ((old, f"/artifacts/{path}"), (stranger, f"/artifacts/{commit_of(42)}/app-42.mender")):
            found = client.next()
            assert found is not None and found["artifact"]["artifact_name"] == "app-42"
            assert found["artifact"]["source"]["uri"].endswith(expected)
    finally:
        house.world.close()
