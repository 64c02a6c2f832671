"""Offers and reports: each counts once, whatever is sent, resent or retried."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.course import Course
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.slices import ROLLOUT
from orchestrator.core.update import Counts, EventKind, UpdateStatus, on_check_in, on_deadline, on_event, retry
from orchestrator.services.records import CourseRow, EventRow, LoggedEvent, Places
from tests.contract.building import (
    DAY,
    HOUR,
    NEW,
    NOW,
    OTHER,
    PATIENCE,
    WEEK_AGO,
    device,
    enroll,
    offered,
    rollout,
    scope,
    undone,
)

UUID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


def event(device_key: int, event_id: str, **more: Any) -> EventRow:
    known: dict[str, Any] = {"rollout_key": None, "kind": "installing", "received_at": NOW}
    known |= {"device_at": None, "code": None, "message": None}
    return EventRow(device_key, event_id, **known | more)


def test_an_event_is_new_once_for_its_device_in_and_across_calls(store: SqlStore) -> None:
    with store.writing() as w:
        one, two = enroll(w, device("a"), device("b"))
        assert w.log_events([event(one, "x"), event(one, "y"), event(one, "x"), event(two, "x")]) == [
            True,
            True,
            False,
            True,
        ]
    with store.writing() as w:
        assert w.log_events([event(one, "x"), event(two, "y"), event(two, "y")]) == [False, True, False]
        assert w.log_events([]) == []
    with store.reading() as r:
        everything = [each.seq for each in r.events()]
        assert len(everything) == 4
        assert [each.seq for each in r.events(limit=3)] == everything[:3]
        assert [each.seq for each in r.events(limit=3, newest=True)] == everything[1:]


def test_events_are_counted_up_to_a_bound_and_can_be_taken_out_again(store: SqlStore) -> None:
    with undone(store) as w:
        w.log_events([event(1, f"e{number}", rollout_key=7) for number in range(5)])
        w.log_events([event(1, UUID), event(1, "x", rollout_key=8), event(2, "e1", rollout_key=7)])
        assert [w.count_events(1, 7, most=9), w.count_events(1, 7, most=3), w.count_events(1, None, most=9)] == [
            5,
            3,
            1,
        ]
        w.drop_events(1, ["e1", "e3", UUID, "none"])
        assert [w.count_events(1, 7, most=9), w.count_events(1, None, most=9), w.count_events(2, 7, most=9)] == [
            3,
            0,
            1,
        ]


def test_ids_that_begin_alike_are_found_newest_first_and_told_oldest_first(store: SqlStore) -> None:
    with undone(store) as w:
        mine = [f"{UUID}/{what}" for what in ("1/b", "0/z", "0/a")]
        w.log_events([event(1, each) for each in (*mine, UUID, f"{UUID}0", "x")] + [event(2, f"{UUID}/2/a")])
        assert w.event_ids(1, f"{UUID}/", limit=9) == mine
        assert w.event_ids(1, f"{UUID}/", limit=2) == mine[1:]
        assert w.event_ids(3, f"{UUID}/", limit=9) == []


def test_many_events_at_once_are_told_apart(store: SqlStore) -> None:
    with undone(store) as w:
        events = [event(1, f"{UUID[:-6]}{number // 2:06x}") for number in range(2_001)]
        assert w.log_events(events) == [number % 2 == 0 for number in range(2_001)]
        assert not any(w.log_events(events))


@pytest.mark.parametrize(
    "name", [UUID, UUID.upper(), "x", "", "a" * 16, "ü" * 8, "a" * 15, "\0" * 15, "e-1", "a" * 200]
)
def test_an_id_comes_back_as_it_was_sent(store: SqlStore, name: str) -> None:
    with undone(store) as w:
        (key,) = enroll(w, device("a"))
        assert w.log_events([event(key, name)]) == [True]
        assert w.log_events([event(key, name)]) == [False]
        assert w.events()[0].event_id == name


def test_the_log_is_read_by_device_and_rollout_in_the_order_of_receipt(store: SqlStore) -> None:
    with undone(store) as w:
        one, two = enroll(w, device("a"), device("b"))
        row = w.add_rollout(rollout())
        full = event(one, "1", rollout_key=row.key, device_at="yesterday", code="E5", message="no space")
        w.log_events([full, event(two, "2", received_at=NOW + HOUR), event(one, "3")])
        seqs = [logged.seq for logged in w.events()]
        assert seqs == sorted(seqs)
        assert w.events(device="a", limit=1) == [
            LoggedEvent(seqs[0], "a", "r", "1", "installing", NOW, "yesterday", "E5", "no space")
        ]
        assert [logged.event_id for logged in w.events(device="a", after=seqs[0])] == ["3"]
        assert [logged.event_id for logged in w.events(rollout="r")] == ["1"]
        assert w.events(device="nobody") == []


def test_an_offer_is_there_once_and_comes_back_as_it_was(store: SqlStore) -> None:
    with undone(store) as w:
        (key,) = enroll(w, device("a"))
        row = w.add_rollout(rollout())
        full = offered(row, key, segment_places='{"hardware_id=rpi4": 3}', unhealthy_before=True, by_delta=False)
        full.usual_gap = 2 * HOUR
        assert w.load_updates([(row.key, key)]) == {}
        assert w.add_update(full)
        assert not w.add_update(replace(full, wave="other"))
        assert w.load_updates([(row.key, key)])[row.key, key] == w.update(row.key, key) == full
        assert w.load_updates([(row.key, key), (row.key, 99), (7, key)]) == {(row.key, key): full}
        assert w.load_updates([]) == {}


def test_a_saved_update_comes_back_with_every_mark(store: SqlStore) -> None:
    with undone(store) as w:
        one, two = enroll(w, device("a"), device("b"))
        row = w.add_rollout(rollout())
        for key in (one, two):
            w.add_update(offered(row, key))
        rows = w.load_updates([(row.key, two), (row.key, one)])
        rows[row.key, one].update = replace(
            rows[row.key, one].update,
            status=UpdateStatus.ROLLED_BACK,
            from_commit=None,
            started_at=NOW,
            installing_at=NOW + HOUR,
            confirmed_at=NOW + 2 * HOUR,
            recovered_at=NOW + 3 * HOUR,
            deadline_at=None,
            resolved=True,
            bad=frozenset({OutcomeClass.ROLLED_BACK, OutcomeClass.DOWNLOAD_FAILED}),
            ended=True,
            check_ins=2,
            tries=3,
        )
        rows[row.key, two] = replace(rows[row.key, two], by_delta=True, from_version=None, hardware_id="imx8")
        w.save_updates(rows.values())
        w.save_updates([])
        assert w.load_updates([(row.key, one), (row.key, two)]) == rows


def test_a_saved_course_comes_back_with_every_mark_and_what_the_offer_said_stays(store: SqlStore) -> None:
    with undone(store) as w:
        keys = enroll(w, *(device(f"d{n}") for n in range(3)))
        row = w.add_rollout(rollout())
        w.name_classes(row.key, ["radio", "modem"])
        for key in keys:
            w.add_update(offered(row, key, wave="lab", slice=3, usual_gap=HOUR))
        rows = w.load_courses(row.key, [*keys, 99])
        assert [rows[key].update.status for key in keys] == [UpdateStatus.OFFERED] * 3
        begun = Course(UpdateStatus.INSTALLING, NOW + 2 * DAY, NOW, NOW + HOUR)
        ended = Course(
            UpdateStatus.ROLLED_BACK,
            None,
            NOW,
            NOW + HOUR,
            NOW + 2 * HOUR,
            True,
            NOW + 3 * HOUR,
            frozenset({OutcomeClass.ROLLED_BACK, OutcomeClass.DOWNLOAD_FAILED, "modem"}),
            True,
        )
        for key, course in zip(keys, (begun, ended), strict=False):
            rows[key].update = course
        w.save_courses(rows.values())
        w.save_courses([])
        assert w.load_courses(row.key, keys) == rows
        assert rows[keys[0]] == CourseRow(row.key, keys[0], begun, "lab", 3, HOUR)
        whole = w.load_updates([(row.key, keys[1])])[row.key, keys[1]]
        before = offered(row, keys[1], wave="lab", slice=3, usual_gap=HOUR)
        assert whole == replace(before, update=before.update.come_to(ended))


def test_where_devices_stand_is_read_at_once(store: SqlStore) -> None:
    with undone(store) as w:
        one, two = enroll(w, device("a"), device("b"))
        row = w.add_rollout(rollout())
        w.add_update(offered(row, one, places=(7, 3), segment_places='{"hardware_id=rpi4":2}'))
        w.add_update(offered(row, two))
        assert w.places(row.key, [one, 99]) == {one: Places(7, 3, '{"hardware_id=rpi4":2}')}
        assert w.places(row.key, []) == {}


def test_updates_are_listed_newest_offer_first(store: SqlStore) -> None:
    with undone(store) as w:
        keys = enroll(w, device("a"), device("b"), device("c"))
        row, other = w.add_rollout(rollout()), w.add_rollout(rollout("other"))
        for number, key in enumerate(keys):
            update = offered(row, key)
            update.update = replace(update.update, offered_at=NOW + number * HOUR)
            w.add_update(update)
        again = offered(other, keys[0])
        again.update = replace(again.update, offered_at=NOW + DAY)
        w.add_update(again)
        rows = w.load_updates([(row.key, keys[1])])
        step = on_event(rows[row.key, keys[1]].update, EventKind.FAILED, patience=PATIENCE, now=NOW)
        rows[row.key, keys[1]].update = step.update
        w.save_updates(rows.values())

        assert [name for name, _ in w.list_updates(row.key)] == ["c", "b", "a"]
        assert [name for name, _ in w.list_updates(row.key, limit=1)] == ["c"]
        assert [name for name, _ in w.list_updates(row.key, bad=True)] == ["b"]
        assert [name for name, _ in w.list_updates(row.key, statuses={UpdateStatus.OFFERED})] == ["c", "a"]
        assert [name for name, _ in w.updates_of_device(keys[0])] == ["other", "r"]
        assert [name for name, _ in w.updates_of_device(keys[0], limit=1)] == ["other"]
        of_many = w.updates_of_devices([*keys, 10**6])
        assert sorted(of_many) == sorted(keys)
        assert all(list(of_many[key]) == [row for _, row in w.updates_of_device(key)] for key in keys)
        assert [len(rows) for rows in w.updates_of_devices(keys, limit=1).values()] == [1] * len(keys)
        assert w.updates_of_devices([]) == {}
        called = w.devices_called(["b", "nobody", "a", "with\0nul"])
        assert [person.device.id for person in called] == ["a", "b"] and w.devices_called([]) == []


def test_counts_add_up_in_their_slice(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, *(device(f"d{n}") for n in range(5)))
        row = w.add_rollout(rollout())
        w.open_slice(row, scope(), "all", size=2, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        bad = (OutcomeClass.FAILED, OutcomeClass.FAILED, OutcomeClass.SILENT)
        w.add_counts(
            {
                (row.key, "all", 1, False): Counts(offered=3, started=2, left=1, bad=bad),
                (row.key, "all", 2, False): Counts(),
            }
        )
        w.add_counts({(row.key, "all", 1, False): Counts(offered=1, withdrawn=1, applied=4, resolved=2, confirmed=-1)})
        one, two = w.facts(row, now=NOW).waves[0].slices
        assert (one.offered, one.withdrawn, one.started, one.applied) == (4, 1, 2, 4)
        assert (one.resolved, one.confirmed, one.left) == (2, -1, 1)
        assert one.bad == {OutcomeClass.FAILED: 2, OutcomeClass.SILENT: 1}
        assert (two.offered, two.bad) == (0, {})


def test_who_is_due_earliest_first_with_the_last_sight(store: SqlStore) -> None:
    with undone(store) as w:
        keys = enroll(w, device("a"), device("b", last_seen_at=None), device("c"), device("d"))
        row = w.add_rollout(rollout())
        for key, hours in zip(keys, (3, 1, 5, None), strict=True):
            update = offered(row, key)
            deadline = None if hours is None else NOW + hours * HOUR
            update.update = replace(update.update, deadline_at=deadline)
            w.add_update(update)
        found = w.due(row.key, now=NOW + 3 * HOUR)
        assert [(one.device_key, seen) for one, seen in found] == [(keys[1], None), (keys[0], NOW - HOUR)]
        assert len(w.due(row.key, now=NOW + DAY, limit=1)) == 1
        assert w.postpone_deadlines(timedelta(hours=1), now=NOW) == 3
        assert [one.device_key for one, _ in w.due(row.key, now=NOW + 3 * HOUR)] == [keys[1]]


def test_who_moved_on_before_the_look_is_due_at_the_new_deadline(store: SqlStore) -> None:
    """hour 0: three offers, each to be silent after a day; hour 1: two of them install; hour 24: the looks have come,
    and only the third is due; hour 25: so are the two."""
    with undone(store) as w:
        one, two, three = enroll(w, device("a"), device("b"), device("c"))
        row = w.add_rollout(rollout())
        for key in (one, two, three):
            w.add_update(offered(row, key))
        courses = w.load_courses(row.key, [one, two])
        for course in courses.values():
            course.update = on_event(course.update, EventKind.INSTALLING, patience=PATIENCE, now=NOW + HOUR).update
        w.save_courses(courses.values())
        assert w.deadlines() == {row.key: NOW + DAY}
        assert [each.device_key for each, _ in w.due(row.key, now=NOW + DAY)] == [three]
        gone = w.load_courses(row.key, [three])[three]
        gone.update = on_deadline(gone.update, last_seen_at=None, patience=PATIENCE, now=NOW + DAY).update
        w.save_courses([gone])
        assert w.deadlines() == {row.key: NOW + DAY + HOUR}
        assert w.due(row.key, now=NOW + DAY + HOUR - timedelta(seconds=1)) == []
        assert {each.device_key for each, _ in w.due(row.key, now=NOW + DAY + HOUR)} == {one, two}
        assert w.load_courses(row.key, [one])[one] == courses[one]


def test_offers_that_have_not_started_are_withdrawn_and_counted(store: SqlStore) -> None:
    with undone(store) as w:
        keys = enroll(w, *(device(f"d{n}") for n in range(4)))
        row = w.add_rollout(rollout())
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        for key in keys:
            w.add_update(offered(row, key, wave="all" if key != keys[3] else "other"))
        rows = w.load_updates([(row.key, keys[0])])
        step = on_event(rows[row.key, keys[0]].update, EventKind.INSTALLING, patience=PATIENCE, now=NOW)
        rows[row.key, keys[0]].update = step.update
        w.save_updates(rows.values())
        assert w.withdraw(row.key, "all") == 2
        assert w.withdraw(row.key, "all") == 0
        assert w.facts(row, now=NOW).waves[0].slices[0].withdrawn == 2
        assert w.withdraw(row.key) == 1
        taken = w.update(row.key, keys[1])
        assert taken is not None
        assert (taken.update.status, taken.update.deadline_at) == (UpdateStatus.WITHDRAWN, None)


def test_a_retry_that_has_not_started_is_withdrawn_and_counted_by_its_outcome(store: SqlStore) -> None:
    with undone(store) as w:
        (key,) = enroll(w, device("a"))
        row = w.add_rollout(rollout())
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        w.add_update(offered(row, key))
        w.add_counts({(row.key, "all", 1, False): Counts(offered=1)})
        rows = w.load_updates([(row.key, key)])
        update = rows[row.key, key]
        step = on_event(update.update, EventKind.FAILED, patience=PATIENCE, now=NOW)
        w.add_counts({(row.key, "all", 1, False): step.counts})
        update.update = retry(step.update, patience=PATIENCE, now=NOW).update
        w.save_updates([update])
        assert w.withdraw(row.key) == 1
        taken = w.update(row.key, key)
        assert taken is not None and taken.update.status is UpdateStatus.WITHDRAWN
        assert w.check() == []


def test_the_recount_agrees_after_a_life_of_reports(store: SqlStore) -> None:
    """Offers, reports sent twice, confirmations, one that leaves: tallies stay what the updates say."""
    with undone(store) as w:
        keys = enroll(w, *(device(f"d{n}") for n in range(6)))
        row = w.add_rollout(rollout())
        piece = w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        assert piece is not None
        assert piece.ranks[ROLLOUT].members == 6
        for key in keys:
            w.add_update(offered(row, key))
            w.add_counts({(row.key, "all", 1, False): Counts(offered=1)})
        kinds = (
            EventKind.FAILED,
            EventKind.FAILED,
            EventKind.ROLLED_BACK,
            EventKind.APPLIED,
            EventKind.DOWNLOAD_FAILED,
        )
        for key, kind in [(keys[n % 4], kind) for n, kind in enumerate(kinds * 2)]:
            rows = w.load_updates([(row.key, key)])
            step = on_event(rows[row.key, key].update, kind, patience=PATIENCE, now=NOW)
            rows[row.key, key].update = step.update
            w.save_updates(rows.values())
            w.add_counts({(row.key, "all", 1, False): step.counts})
        for key, running in ((keys[4], NEW), (keys[5], OTHER), (keys[3], NEW)):
            rows = w.load_updates([(row.key, key)])
            step = on_check_in(rows[row.key, key].update, running=running, patience=PATIENCE, now=NOW)
            rows[row.key, key].update = step.update
            w.save_updates(rows.values())
            w.add_counts({(row.key, "all", 1, False): step.counts})
        assert w.check() == []
        for tally in ("resolved", "applied"):
            w.link.run(f"UPDATE slice SET {tally} = {tally} + 1")
            assert [one.what for one in w.check()] == [f"rollout r, wave all, slice 1: {tally}"]
            w.link.run(f"UPDATE slice SET {tally} = {tally} - 1")
