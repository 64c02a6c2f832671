"""What pages ask the store for: lists by pages, tallies of many rollouts at once, failed devices, and the census."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.fleet import Device
from orchestrator.services.console_store import Census

NOW = datetime(2026, 5, 4, 9, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def _fleet(store: SqlStore) -> None:
    devices = [
        Device(f"dev-{n}", "rpi4", "main", group="lab" if n < 3 else None, commit="a" * 64, version=41 if n % 2 else 42)
        for n in range(10)
    ]
    with store.writing() as w:
        w.add_group("lab")
        w.enroll([(each, None) for each in devices], now=NOW)
        known = w.devices_called([each.id for each in devices])
        seen = {row.key: NOW - timedelta(days=n * 4) for n, row in enumerate(known)}
        w.touch({key: (at, timedelta(minutes=5)) for key, at in seen.items()})


def _count(store: SqlStore, at: datetime) -> Census:
    with store.reading() as r:
        return r.count_fleet(at)


def test_a_census_counts_versions_groups_and_who_is_silent(store: SqlStore) -> None:
    _fleet(store)
    found = _count(store, NOW)
    assert found.devices == 10 and found.groups == {"lab": 3}
    assert [(one.tag, one.version, one.devices) for one in found.running] == [("main", 42, 5), ("main", 41, 5)]
    assert list(found.silent.values()) == [9, 8, 2]
    assert len(found.quietest) == 9 and found.quietest[0][1] == NOW - timedelta(days=36)


def test_a_census_is_kept_once_in_its_time_and_the_newest_is_whole(store: SqlStore) -> None:
    _fleet(store)
    first, second = _count(store, NOW), _count(store, NOW + QUARTER)
    with store.writing() as w:
        assert w.keep_census(first, every=QUARTER)
        assert not w.keep_census(first, every=QUARTER)
        assert w.keep_census(second, every=QUARTER)
    with store.reading() as r:
        assert r.census() == second
        assert r.versions_since(NOW) == [(NOW, {42: 5, 41: 5}), (NOW + QUARTER, {42: 5, 41: 5})]


def test_of_older_days_one_census_stays(store: SqlStore) -> None:
    counted = _count(store, NOW)
    with store.writing() as w:
        for hour in range(0, 24 * 5, 6):
            at = NOW + timedelta(hours=hour)
            kept = Census(at, counted.running, counted.statuses, counted.groups, counted.silent, counted.quietest)
            assert w.keep_census(kept, every=QUARTER)
    with store.reading() as r:
        kept_at = [at for at, _ in r.versions_since(NOW)]
    last_two_days = [at for at in kept_at if at >= NOW + timedelta(days=3)]
    assert len(last_two_days) == 8
    assert len({at.date() for at in kept_at[:-11]}) == len(kept_at[:-11])


def test_devices_are_found_by_how_their_id_begins_and_by_group(store: SqlStore) -> None:
    _fleet(store)
    with store.reading() as r:
        assert [row.device.id for row in r.device_ids("dev-", after=None, limit=3)] == ["dev-0", "dev-1", "dev-2"]
        assert [row.device.id for row in r.device_ids("dev-", after="dev-7", limit=3)] == ["dev-8", "dev-9"]
        assert r.device_ids("dev-5x", after=None, limit=3) == []
        lab = r.in_group("lab", after=0, limit=2)
        assert [row.device.id for row in lab] == ["dev-0", "dev-1"]
        assert [row.device.id for row in r.in_group("lab", after=lab[-1].key, limit=2)] == ["dev-2"]
        assert [row.device.id for row in r.devices_at([lab[0].key])] == ["dev-0"]


def test_without_rollouts_there_is_nothing_to_tally(store: SqlStore) -> None:
    with store.reading() as r:
        assert r.tallied([]) == {} and r.tallied([1]) == {}
        assert r.rollout_page(None, offset=0, limit=10) == [] and r.rollout_statuses() == {}
