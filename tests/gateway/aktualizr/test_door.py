"""The door for aktualizr-lite: what a device is shown, what its reports come to, and what each route answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlReading
from orchestrator.core.update import UpdateStatus
from orchestrator.services.credentials import RevokedKind
from orchestrator.services.room import MOST_KEPT
from tests.gateway.aktualizr.client import monotone
from tests.gateway.aktualizr.house import House, software
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    world = World()
    house = House(tmp_path / "tuf", world)
    house.tuf.init()
    yield house
    world.close()


def names(*versions: int) -> frozenset[str]:
    return frozenset(f"{HARDWARE}-{version}" for version in versions)


def test_a_device_is_shown_what_it_runs_then_what_it_is_offered_and_confirms_by_what_it_runs(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    assert client.check() is None
    assert client.seen_targets == [names(41)]
    world.apply()
    target = client.check()
    assert target == software(42)
    assert client.seen_targets[-1] == names(41, 42)
    client.begin(target)
    assert client.flush() == 200
    assert world.status(device) is UpdateStatus.APPLIED
    client.boot()
    client.flush()
    assert world.status(device) is UpdateStatus.APPLIED  # a success that is only said confirms nothing
    assert client.check() is None
    assert world.status(device) is UpdateStatus.CONFIRMED
    assert client.seen_targets[-1] == names(41, 42)  # it has run both: nothing new is to be shown
    monotone(client)


def test_an_offer_that_is_withdrawn_is_shown_no_more_under_a_higher_version(house: House) -> None:
    world = house.world
    devices = world.fleet(2)
    one, other = (house.client(device) for device in devices)
    one.check()
    world.apply()
    assert one.check() == software(42)
    world.rollouts.halt("lmp-42", by="anna", reason="smoke")
    world.later(timedelta(seconds=2))
    assert one.check() is None
    assert one.seen_targets == [names(41), names(41, 42), names(41)]
    assert other.check() is None
    assert other.seen_targets == [names(41)]
    assert [versions[2] for versions in one.seen_versions] == [1, 2, 3]
    assert other.seen_versions[-1][2] == 3
    monotone(one)


def test_a_device_that_has_started_may_finish_after_a_halt(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    world.apply()
    target = client.check()
    assert target is not None
    client.event("EcuDownloadStarted", target)
    client.flush()
    world.rollouts.halt("lmp-42", by="anna", reason="smoke")
    world.later(timedelta(seconds=2))
    assert client.check() == software(42)


def test_what_belongs_together_stays_so_whatever_comes_between(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    base = f"/d/{device}/{world.tokens[device]}"
    headers = client.headers
    timestamp = house.ask("GET", f"{base}/repo/timestamp.json", headers).json()
    world.apply()
    snapshot = house.ask("GET", f"{base}/repo/snapshot.json", headers).json()
    targets = house.ask("GET", f"{base}/repo/targets.json", headers).json()
    assert snapshot["signed"]["version"] == timestamp["signed"]["meta"]["snapshot.json"]["version"] == 1
    assert set(targets["signed"]["targets"]) == names(41)
    with world.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None and r.list_updates(row.key) == []  # only the poll is a check-in
    assert client.check() == software(42)


def test_a_boot_that_falls_back_is_a_rollback_and_what_is_said_of_the_version_before_counts_for_nothing(
    house: House,
) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    world.apply()
    assert client.cycle(bad=True) == software(42)
    assert world.status(device) is UpdateStatus.ROLLED_BACK
    client.event("EcuInstallationStarted", client.runs)
    client.event("EcuInstallationCompleted", client.runs, success=True, details="")
    client.flush()
    assert client.check() is None
    assert world.status(device) is UpdateStatus.ROLLED_BACK
    assert client.seen_targets[-1] == names(41)


def test_an_install_that_fails_is_a_failure_with_its_code(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    world.apply()
    target = client.check()
    assert target is not None
    client.fail(target)
    client.flush()
    assert world.status(device) is UpdateStatus.FAILED
    with world.store.reading() as r:
        found = {event.kind: event for event in r.events(device=device)}
    assert found["failed"].code == "app_install_failed"
    assert found["failed"].rollout == "lmp-42"
    assert found["installed"].rollout is None  # of version 41


def test_events_that_are_sent_again_count_once(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    world.apply()
    target = client.check()
    assert target is not None
    client.begin(target)
    client.event("MetadataUpdateCompleted", target, success=True, details="root: 1; targets: 1 -> 2")
    client.flush(keep=True)
    client.flush(keep=True)
    client.flush()
    with world.store.reading() as r:
        kinds = [event.kind for event in r.events(device=device)]
    assert sorted(kinds) == ["applied", "downloaded", "downloading", "installing", "metadata_update_completed"]


def test_what_counts_nowhere_is_taken_however_much_it_is_and_kept_up_to_a_bound(house: House) -> None:
    (device,) = house.world.fleet(1)
    client = house.client(device)
    for _ in range(MOST_KEPT // 100 + 2):
        for _ in range(100):
            client.event("MetadataUpdateCompleted", software(41), success=True, details="root: 1")
        assert client.flush() == 200
    with house.world.store.reading() as r:
        assert len(r.events(device=device, limit=10_000)) == MOST_KEPT


def test_the_first_tag_that_is_known_is_followed(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device, tags=f"nobody-knows,{TAG},other")
    client.check()
    with world.store.reading() as r:
        row = r.device(device)
    assert row is not None and row.device.tag == TAG
    world.target(50)
    with world.store.writing() as w:
        w.tag_target(f"{HARDWARE}-50", ("lab",))
    world.later(timedelta(seconds=31))
    house.client(device, tags="lab").check()
    with world.store.reading() as r:
        row = r.device(device)
    assert row is not None and row.device.tag == "lab"


@pytest.mark.parametrize(("name", "commit"), [("Initial Target", commit_of(41)), ("unknown", "unknown"), ("", "")])
def test_a_device_that_cannot_name_what_it_runs_is_served_all_the_same(house: House, name: str, commit: str) -> None:
    world = house.world
    (device,) = world.fleet(1)
    client = house.client(device)
    client.runs = software(-1)
    client.runs.name, client.runs.commit = name, commit
    client.check()
    assert client.seen_targets == [names(41) if commit == commit_of(41) else frozenset()]
    world.apply()
    assert client.check() == software(42)


def test_idle_polls_write_nothing(house: House) -> None:
    (device,) = house.world.fleet(1)
    client = house.client(device)
    client.check()
    written = house.devices.writer.items
    for _ in range(3):
        client.check()
    assert house.devices.writer.items == written
    assert client.repository.fetched.count("targets.json") == 1


def test_what_a_device_tells_of_itself_is_kept_once_and_health_is_taken(house: House) -> None:
    world = house.world
    (device,) = world.fleet(1)
    base = f"/d/{device}/{world.tokens[device]}"
    network = b'{"hostname":"lab-1","local_ipv4":"10.0.0.7","mac":"00:11:22:33:44:55"}'
    for _ in range(2):
        assert house.ask("PUT", f"{base}/system_info/network", None, network).status_code == 200
    written = house.devices.writer.items
    assert house.ask("PUT", f"{base}/system_info/network", None, network).status_code == 200
    assert house.devices.writer.items == written
    assert house.ask("PUT", f"{base}/system_info/config", None, b'[pacman]\ntype = "ostree"\n').status_code == 200
    assert house.ask("PUT", f"{base}/system_info", None, b'{"id":"board"}').status_code == 200
    apps = {"deviceTime": "x", "ostree": commit_of(41), "apps": {"a": {"uri": "u", "state": "unhealthy"}}}
    assert house.ask("POST", f"{base}/apps-states", None, json.dumps(apps).encode()).status_code == 200
    with world.store.reading() as r:
        row = r.device(device)
        assert row is not None and not row.device.healthy
        assert [told.topic for told in r.told(row.key)] == ["apps", "config", "hardware", "network"]
    house.client(device).check()
    with world.store.reading() as r:
        row = r.device(device)
    assert row is not None and not row.device.healthy  # a poll says nothing of it


def test_nothing_is_looked_up_in_the_store_on_the_event_loop(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart, a device polls that has begun an update of a rollout that has ended since, tells of it, and asks
    how large a delta is."""
    world = house.world
    (device,) = world.fleet(1)
    world.apply()
    client = house.client(device)
    target = client.check()
    assert target is not None
    client.event("EcuDownloadStarted", target)
    client.flush()
    world.rollouts.cancel("lmp-42", by="anna", reason="enough")
    world.tick()
    where: list[tuple[str, bool]] = []
    for of, name in ((SqlReading, "rollout_by_key"), (SqlReading, "delta_stats")):
        look = getattr(of, name)

        def looked(self: SqlReading, key: object, look: Any = look, name: str = name) -> object:
            where.append((name, threading.current_thread() is threading.main_thread()))
            return look(self, key)

        monkeypatch.setattr(of, name, looked)
    aside = ThreadPoolExecutor(2)

    def later(work: Callable[[], None]) -> None:
        aside.submit(work)

    devices = world.another(later=later)
    house.begin(devices)
    again = house.client(device)
    again.event("EcuInstallationStarted", target)
    assert again.flush() == 200
    house.begin(devices)
    assert again.check() == target, "what has begun may be finished"
    path = f"/d/{device}/{world.tokens[device]}/treehub/delta-stats/{'0' * 64}"
    assert house.ask("GET", path).status_code == 404
    assert {name for name, _ in where} == {"rollout_by_key", "delta_stats"}
    assert not any(on_loop for _, on_loop in where), where
    devices.close()
    aside.shutdown()


def test_routes_that_are_not_there_harm_nobody(house: House) -> None:
    (device,) = house.world.fleet(1)
    base = f"/d/{device}/{house.world.tokens[device]}"
    assert house.ask("GET", f"{base}/device").json() == {"Name": device}
    for method, path, status in [
        ("POST", "/treehub/download-urls", 404),
        ("GET", "/treehub/delta-stats/" + "0" * 64, 404),
        ("GET", "/hub-creds/", 404),
        ("GET", "/config", 404),
        ("PUT", "/ecus", 404),
        ("GET", "/repo/2.root.json", 404),
        ("GET", "/repo/0.root.json", 404),
        ("GET", "/repo/root.json", 404),
    ]:
        assert house.ask(method, f"{base}{path}").status_code == status, path


def test_strangers_and_wrong_secrets_are_told_the_same(house: House) -> None:
    world = house.world
    one, other = world.fleet(2)
    for path in (f"/d/{one}/{'x' * 40}", f"/d/nobody/{'x' * 40}", f"/d/{one}/{world.tokens[other]}", ""):
        for route in ("/repo/timestamp.json", "/repo/1.root.json", "/device"):
            answer = house.ask("GET", f"{path}{route}")
            assert (answer.status_code, answer.json()["error"]["kind"]) == (401, "unauthorized")
        assert house.ask("POST", f"{path}/events", None, b"[]").status_code == 401


def test_a_client_certificate_names_the_device_and_no_other(house: House) -> None:
    one, other = house.world.fleet(2)
    client = house.certified(one)
    house.world.apply()
    assert client.check() == software(42)
    begun = client.check()
    assert begun is not None
    client.begin(begun)
    assert client.flush() == 200
    assert house.world.status(one) is UpdateStatus.APPLIED
    with house.world.store.reading() as r:
        row, untouched = r.rollout("lmp-42"), r.device(other)
        assert row is not None and untouched is not None and r.update(row.key, untouched.key) is None
    house.devices.identity.revoke_certificates(RevokedKind.DEVICE, one, by="anna")
    assert client.ask("GET", "/repo/timestamp.json", client.headers, b"")[0] == 401
    assert house.certified("nobody").ask("GET", "/repo/timestamp.json", {}, b"")[0] == 401


def test_before_it_is_begun_there_is_no_repository_and_nobody_is_offered(tmp_path: Path) -> None:
    world = World()
    house = House(tmp_path / "tuf", world)
    (device,) = world.fleet(1)
    world.apply()
    base = f"/d/{device}/{world.tokens[device]}"
    assert house.ask("GET", f"{base}/repo/timestamp.json").status_code == 404
    with world.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None and r.list_updates(row.key) == []
    world.close()
