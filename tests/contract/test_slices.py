"""Opening slices: who is in, which places they have, who keeps waiting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.fleet import Device
from orchestrator.core.position import SPACE, position
from orchestrator.core.slices import BINS, EXACT_RANKS, ROLLOUT, Slice, slice_of
from orchestrator.errors import InvalidInput
from orchestrator.services.records import DeviceFilter, RolloutRow
from tests.contract.building import (
    DAY,
    HOUR,
    NOW,
    WEEK_AGO,
    device,
    enroll,
    offered,
    rollout,
    scope,
    selector,
    undone,
)

ALL = scope()
SALT = ALL.selectors[0].salt


def begun(w: SqlWriting, devices: int, **more: object) -> RolloutRow:
    w.enroll(((device(f"d{n}", **more), None) for n in range(devices)), now=NOW)
    return w.add_rollout(rollout(of=ALL))


def opened(
    w: SqlWriting, row: RolloutRow, size: int | None, *, dimensions: Sequence[str] = (), now: datetime = NOW
) -> Slice | None:
    assert row.scope is not None
    return w.open_slice(row, row.scope, "all", size=size, seen_since=WEEK_AGO, dimensions=dimensions, now=now)


def positions(w: SqlWriting) -> dict[str, int]:
    return {one.device.id: position(one.device.member.hash, SALT) for one in w.devices(DeviceFilter(), limit=10_000)}


def test_a_small_slice_has_the_lowest_positions_and_exact_places(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 100)
        order = sorted(positions(w).values())
        first = opened(w, row, 20, dimensions=("hardware_id",))
        assert first is not None
        assert first.ranks["wave:all"].positions == tuple(order[:20])
        assert (first.number, first.members, first.before) == (1, 20, {})
        assert first.places(order[7], (ROLLOUT, "wave:all", "hardware_id=rpi4")) == dict.fromkeys(
            (ROLLOUT, "wave:all", "hardware_id=rpi4"), 8
        )
        second = opened(w, row, 20, now=NOW + DAY)
        assert second is not None
        assert second.ranks[ROLLOUT].positions == tuple(order[20:40])
        assert second.before == {ROLLOUT: 20, "wave:all": 20, "hardware_id=rpi4": 20}
        assert second.places(order[20], (ROLLOUT,)) == {ROLLOUT: 21}
        assert w.slices(row.key) == [first, second]
        assert w.slices(row.key, "other") == []
        pieces = w.facts(row, now=NOW).waves[0].slices
        assert [(piece.members, piece.waiting) for piece in pieces] == [(20, 80), (20, 60)]


def test_the_last_slice_takes_all_and_then_there_is_none(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 30)
        assert opened(w, row, 20) is not None
        last = opened(w, row, 20, now=NOW + HOUR)
        assert last is not None
        assert (last.members, last.upto) == (10, SPACE)
        assert opened(w, row, 20, now=NOW + 2 * HOUR) is None
        assert len(w.slices(row.key)) == 2


def test_a_wave_without_a_device_gets_an_empty_slice(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 0)
        assert opened(w, row, 20) is None
        assert w.slices(row.key) == [Slice("all", 1, SPACE, NOW, {}, {})]


def test_nobody_waits_any_more_when_those_who_waited_are_gone(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 30)
        opened(w, row, 20)
        assert w.facts(row, now=NOW).waves[0].waiting == 10
        w.touch({key: (WEEK_AGO - DAY, timedelta(0)) for key in range(1, 31)})
        assert opened(w, row, 20, now=NOW + HOUR) is None
        assert w.facts(row, now=NOW).waves[0].waiting == 0


def test_only_the_reachable_the_eligible_and_those_without_an_update_wait(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 10)
        enroll(w, device("dark", last_seen_at=WEEK_AGO - HOUR), device("new", since_at=NOW + HOUR))
        enroll(w, device("there", version=42), device("never", since_at=None, last_seen_at=None))
        keys = enroll(w, device("had"))
        w.add_update(offered(row, keys[0]))
        piece = opened(w, row, None)
        assert piece is not None
        assert piece.members == 10


def test_a_device_without_a_value_is_in_no_population_of_that_dimension(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 3, labels={"site": "x"})
        enroll(w, device("bare", version=None), device("other", hardware_id="imx8"))
        piece = opened(w, row, None, dimensions=("hardware_id", "source_version", "label:site", "label:no"))
        assert piece is not None
        assert {name: ranks.members for name, ranks in piece.ranks.items()} == {
            ROLLOUT: 5,
            "wave:all": 5,
            "hardware_id=rpi4": 4,
            "hardware_id=imx8": 1,
            "source_version=41": 4,
            "label:site=x": 3,
        }


def test_a_large_slice_counts_by_stretch_and_is_about_as_large_as_asked(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 3_000, labels={"site": "x"})
        piece = opened(w, row, 2_000, dimensions=("hardware_id", "label:site"))
        assert piece is not None
        below = [place for place in positions(w).values() if place < piece.upto]
        assert piece.members == len(below)
        assert abs(piece.members - 2_000) < 60
        for name in (ROLLOUT, "hardware_id=rpi4", "label:site=x"):
            counted = [0] * BINS
            for place in below:
                counted[place * BINS // SPACE] += 1
            assert piece.ranks[name].counts == tuple(counted)
        assert w.facts(row, now=NOW).waves[0].waiting == 3_000 - len(below)
        rest = opened(w, row, None, now=NOW + HOUR)
        assert rest is not None
        assert rest.members == 3_000 - len(below)
        assert not w.check()


def test_a_slice_of_exactly_the_limit_has_exact_ranks(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, EXACT_RANKS + 5)
        piece = opened(w, row, EXACT_RANKS)
        assert piece is not None
        assert len(piece.ranks[ROLLOUT].positions) == piece.members == EXACT_RANKS


def test_places_of_parallel_waves_follow_the_order_of_their_opening(store: SqlStore) -> None:
    of = scope(selector("lab", group="lab"), selector("rest"))
    with undone(store) as w:
        enroll(w, *(device(f"l{n}", group="lab") for n in range(6)), *(device(f"r{n}") for n in range(8)))
        row = w.add_rollout(rollout(of=of, waves=("lab", "rest")))
        for wave, size in (("rest", 4), ("lab", None), ("rest", None)):
            w.open_slice(row, of, wave, size=size, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        first, lab, second = w.slices(row.key)
        assert [(piece.wave, piece.number) for piece in (first, lab, second)] == [("rest", 1), ("lab", 1), ("rest", 2)]
        assert lab.before == {ROLLOUT: 4, "wave:rest": 4}
        assert second.before == {ROLLOUT: 10, "wave:rest": 4, "wave:lab": 6}


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    joins=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    sizes=st.lists(st.one_of(st.none(), st.integers(1, 8)), min_size=1, max_size=5),
)
def test_each_device_is_in_the_slice_that_python_says(
    store: SqlStore, joins: list[int], sizes: list[int | None]
) -> None:
    """Devices come over six hours, slices open hourly: SQL counts a device in the slice ``slice_of`` finds for it."""
    with undone(store) as w:
        row = w.add_rollout(rollout(of=ALL))
        fleet: list[Device] = [
            device(f"d{n}", since_at=NOW + hour * HOUR, last_seen_at=NOW + hour * HOUR) for n, hour in enumerate(joins)
        ]
        enroll(w, *fleet)
        members: dict[int, list[int]] = {}
        for hour, size in enumerate(sizes):
            piece = opened(w, row, size, now=NOW + hour * HOUR)
            if piece is not None:
                members[piece.number] = list(piece.ranks[ROLLOUT].positions)
        pieces = w.slices(row.key)
        found: dict[int, list[int]] = {number: [] for number in members}
        for one in fleet:
            place = position(one.member.hash, SALT)
            assert one.since_at is not None
            piece = slice_of(pieces, place, one.since_at)
            if piece is not None:
                found[piece.number].append(place)
        assert {number: sorted(places) for number, places in found.items()} == members


def test_late_devices_are_seen_an_hour_after_the_last_slice(store: SqlStore) -> None:
    of = scope(selector("lab", group="lab"), selector("rest"))
    with undone(store) as w:
        enroll(w, device("a", group="lab"), device("b"))
        row = w.add_rollout(rollout(of=of, waves=("lab", "rest")))
        for wave in ("lab", "rest"):
            w.open_slice(row, of, wave, size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        enroll(w, device("c", since_at=NOW + timedelta(minutes=5)), device("d", since_at=NOW + HOUR, version=42))

        def late(now: datetime) -> list[str]:
            return [wave.wave for wave in w.facts(row, now=now).waves if wave.late]

        assert late(NOW + timedelta(minutes=59)) == []
        assert late(NOW + HOUR) == ["rest"]
        keys = enroll(w, device("e", group="lab", since_at=NOW + HOUR))
        assert late(NOW + 2 * HOUR) == ["lab", "rest"]
        w.add_update(offered(row, keys[0], wave="lab"))
        assert late(NOW + 2 * HOUR) == ["rest"]


def test_a_newcomer_beyond_reach_is_not_late(store: SqlStore) -> None:
    """No slice would hold it: it was seen once, eight days ago."""
    with undone(store) as w:
        enroll(w, device("a"))
        row = w.add_rollout(rollout())
        opened(w, row, 20)
        enroll(w, device("visitor", since_at=NOW + HOUR, last_seen_at=NOW + HOUR))
        assert [wave.late for wave in w.facts(row, now=NOW + 7 * DAY).waves] == [True]
        assert [wave.late for wave in w.facts(row, now=NOW + 8 * DAY).waves] == [False]


def test_a_slice_cannot_be_opened_before_the_last_one(store: SqlStore) -> None:
    with undone(store) as w:
        row = begun(w, 30)
        opened(w, row, 20)
        with pytest.raises(InvalidInput, match="before"):
            opened(w, row, 20, now=NOW - HOUR)
