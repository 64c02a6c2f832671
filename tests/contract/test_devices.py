"""Targets and devices: what is kept, what is refused, who may change a label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.calendar import Habits
from orchestrator.core.fleet import DeviceStatus, Target
from orchestrator.errors import NotFound, Refused
from orchestrator.services.records import DeviceFilter, RunningCount
from tests.contract.building import DAY, HOUR, NEW, NOW, OLD, OTHER, device, enroll, offered, rollout, undone

TARGET = Target("lmp-42", 42, NEW, ("imx8", "rpi4"), tags=("promoted",), added_at=NOW)


def test_targets_are_listed_newest_version_first_then_by_name(store: SqlStore) -> None:
    with store.writing() as w:
        for name, version, commit in (("b", 41, OLD), ("a", 41, OLD), ("z", 42, NEW)):
            w.add_target(Target(name, version, commit, ("rpi4",), tags=("x",) if name == "a" else ()), now=NOW)
    with store.reading() as r:
        assert [target.name for target in r.targets()] == ["z", "a", "b"]
        assert [target.name for target in r.targets(version=41)] == ["a", "b"]
        assert [target.name for target in r.targets(tag="x")] == ["a"]
        assert r.targets()[0].added_at == NOW
        assert r.known_version("rpi4", OLD) == 41
        assert r.known_version("imx8", OLD) is None


def test_adding_the_same_target_again_changes_nothing(store: SqlStore) -> None:
    with store.writing() as w:
        assert w.add_target(TARGET, now=NOW)
        assert not w.add_target(TARGET, now=NOW + DAY)
        assert w.targets() == [TARGET]


def test_a_version_has_one_commit_on_one_hardware_and_a_name_one_content(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_target(TARGET, now=NOW)
        with pytest.raises(Refused, match="42 for rpi4"):
            w.add_target(replace(TARGET, name="other", hardware_ids=("rpi4",), commit=OTHER), now=NOW)
        with pytest.raises(Refused, match="lmp-42 is there already"):
            w.add_target(replace(TARGET, version=43), now=NOW)
        assert w.add_target(replace(TARGET, name="alias"), now=NOW)


def test_tags_of_a_target_are_replaced(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_target(TARGET, now=NOW)
        w.tag_target("lmp-42", ["devel"])
        assert w.targets()[0].tags == ("devel",)
        with pytest.raises(NotFound):
            w.tag_target("nothing", [])


def test_a_device_comes_back_as_it_was_enrolled(store: SqlStore) -> None:
    full = device(
        "gw-1", group="lab", labels={"site": "berlin", "rack": "7"}, held_because="repair", status=DeviceStatus.HELD
    )
    bare = device("gw-2", commit=None, version=None, since_at=None, last_seen_at=None)
    with store.writing() as w:
        assert w.enroll([(full, b"t" * 32), (bare, None)], now=NOW) == 2
    with store.reading() as r:
        row = r.device("gw-1")
        assert row is not None
        assert row.device == full
        assert row.token_digest == b"t" * 32
        assert r.device_by_key(row.key) == row
        other = r.device("gw-2")
        assert other is not None
        assert other.device == bare
        assert r.device("gw-3") is None
        assert r.device_by_key(99) is None
    with undone(store) as w:
        assert w.enrolled(["gw-1", "gw-3", "gw-2"]) == {"gw-1", "gw-2"}
        assert w.enrolled([]) == frozenset()


def test_enrolling_again_moves_what_is_given_and_keeps_the_rest(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, device("a", labels={"site": "berlin"}, group="lab"))
        again = device("a", hardware_id="imx8", tag="devel", commit=OTHER, version=1, labels={"rack": "2"})
        assert w.enroll([(again, b"x"), (device("b"), None)], now=NOW) == 1
        row = w.device("a")
        assert row is not None
        assert (row.device.hardware_id, row.device.tag, row.device.group) == ("imx8", "devel", "lab")
        assert row.device.labels == {"site": "berlin", "rack": "2"}
        assert (row.device.commit, row.device.version) == (OLD, 41)
        assert row.device.since_at == NOW
        assert row.token_digest == b"x"


def test_enrolling_again_as_it_is_does_not_make_a_newcomer_of_it(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, device("a"))
        assert w.enroll([(device("a"), None)], now=NOW) == 0
        row = w.device("a")
        assert row is not None
        assert row.device == device("a")


def test_a_list_is_by_id_in_pages_and_by_every_filter(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_group("empty")
        enroll(
            w,
            device("B", group="lab"),
            device("a", labels={"site": "x"}, tag="devel"),
            device("c", hardware_id="imx8", version=40),
            device("a_1", status=DeviceStatus.RETIRED),
        )

        def names(**which: Any) -> list[str]:
            return [row.device.id for row in w.devices(DeviceFilter(**which))]

        assert names() == ["B", "a", "a_1", "c"]
        assert [row.device.id for row in w.devices(DeviceFilter(), after="a", limit=1)] == ["a_1"]
        assert names(tag="devel") == ["a"]
        assert names(group="lab") == ["B"]
        assert names(hardware_id="imx8") == ["c"]
        assert names(label=("site", "x")) == ["a"]
        assert names(status=DeviceStatus.RETIRED) == ["a_1"]
        assert names(version=40) == ["c"]
        assert names(text="a_") == ["a_1"]
        assert w.count_devices(DeviceFilter(hardware_id="rpi4")) == 3
        assert w.groups() == {"empty": 0, "lab": 1}
        assert w.tags() == {"devel": 1, "promoted": 2}


def test_what_active_devices_run_most_first(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, device("a"), device("b"), device("c", commit=None, version=None), device("d", tag="devel"))
        enroll(w, device("e", status=DeviceStatus.RETIRED))
        assert w.running() == (RunningCount("rpi4", OLD, 41, 3), RunningCount("rpi4", None, None, 1))
        assert w.running(tag="devel") == (RunningCount("rpi4", OLD, 41, 1),)


def test_moving_to_a_group_or_label_makes_a_newcomer_only_of_those_who_moved(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, device("a", group="lab"), device("b"), device("c", since_at=None, last_seen_at=None))
        assert w.set_group(["a", "b", "c", "nobody"], "lab", now=NOW) == 2
        since = [row.device.since_at for row in w.devices(DeviceFilter())]
        assert since == [NOW - 2 * DAY, NOW, None]
        assert w.set_label(["a", "b"], "site", "x", now=NOW + HOUR) == 2
        assert w.set_label(["a", "b"], "site", "x", now=NOW + DAY) == 0
        assert [row.device.since_at for row in w.devices(DeviceFilter())] == [NOW + HOUR, NOW + HOUR, None]
        assert w.set_label(["a"], "site", None, now=NOW) == 1
        assert w.set_group(["a"], None, now=NOW) == 1
        row = w.device("a")
        assert row is not None
        assert row.device.labels == {}
        assert row.device.group is None


def test_a_devices_own_word_does_not_change_the_operators_label(store: SqlStore) -> None:
    with undone(store) as w:
        (key,) = enroll(w, device("a", labels={"site": "berlin"}))
        said = {"site": "paris", "os": "3.1", "cpu": "arm"}
        w.save_device(key, device("a", labels=said, commit=NEW, version=42, healthy=False))
        row = w.device_by_key(key)
        assert row is not None
        assert row.device == device(
            "a", labels={"site": "berlin", "os": "3.1", "cpu": "arm"}, commit=NEW, version=42, healthy=False
        )
        w.save_device(key, device("a", labels={"os": "3.2"}))
        row = w.device_by_key(key)
        assert row is not None
        assert row.device.labels == {"site": "berlin", "os": "3.2"}


def test_status_token_and_last_sight(store: SqlStore) -> None:
    with undone(store) as w:
        keys = enroll(w, device("a"), device("b"))
        assert w.set_device_status(["a", "x"], DeviceStatus.HELD, "on the bench", now=NOW) == 1
        assert w.set_device_status(["a"], DeviceStatus.HELD, "on the bench", now=NOW + DAY) == 0
        w.set_token("a", b"digest")
        w.touch({keys[1]: (NOW, HOUR), keys[0]: (NOW + HOUR, 2 * HOUR)})
        one, two = w.devices(DeviceFilter())
        assert (one.device.status, one.device.held_because) == (DeviceStatus.HELD, "on the bench")
        assert one.token_digest == b"digest"
        assert (one.device.last_seen_at, one.device.usual_gap) == (NOW + HOUR, 2 * HOUR)
        assert (two.device.last_seen_at, two.device.usual_gap) == (NOW, HOUR)
        with pytest.raises(NotFound):
            w.set_token("x", b"digest")


def test_enrolling_takes_a_stream_of_any_length(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.enroll(((device(f"d{n}", labels={"n": str(n % 3)}), None) for n in range(5_001)), now=NOW) == 5_001
        assert w.count_devices(DeviceFilter(label=("n", "0"))) == 1_667


def test_habits_are_gaps_of_active_devices_and_times_from_offer_to_confirmation(store: SqlStore) -> None:
    with store.writing() as w:
        known = [device(f"d{n}", usual_gap=n * HOUR) for n in range(1, 4)]
        keys = enroll(w, *known, device("new"), device("away", tag="other", usual_gap=DAY))
        enroll(w, device("gone", usual_gap=DAY, status=DeviceStatus.RETIRED))
        assert sorted(w.habits("promoted", sample=100).comes) == [HOUR, 2 * HOUR, 3 * HOUR]
        assert len(w.habits("promoted", sample=2).comes) == 2
        for number in range(7):
            row = w.add_rollout(rollout(f"r{number}", tag="other" if number == 6 else "promoted"))
            for key in keys[:2]:
                one = offered(row, key)
                took = number * HOUR if key == keys[0] else None
                one.update = replace(one.update, confirmed_at=None if took is None else one.update.offered_at + took)
                w.add_update(one)
        # Of rollouts 1 to 5, the newest of the tag; the other device has not confirmed.
        assert sorted(w.habits("promoted", sample=100).reports) == [number * HOUR for number in range(1, 6)]
        assert w.habits("other", sample=100).reports == (6 * HOUR,)
        assert w.habits("nobody", sample=100) == Habits()
