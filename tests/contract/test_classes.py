"""Classes of the operator's own and devices that were unhealthy before: kept, counted and recounted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.facts import Apart, BudgetFacts
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.update import Course, UpdateStatus, counted
from orchestrator.errors import Refused
from orchestrator.services.records import BadOutcome, RolloutRow
from tests.contract.building import DAY, NOW, WEEK_AGO, device, enroll, offered, rollout, scope, undone

OWN = ("modem", "disk")
MODEM = MonitorSpec("rollout/modem", ("modem",), "rollout", 0.02, 0.03, Answer.HOLD)
BUDGET = BudgetFacts(("modem", "failed"), 3, 0)


def begun(w: SqlWriting) -> RolloutRow:
    row = w.add_rollout(rollout(of=scope()))
    w.name_classes(row.key, OWN)
    w.add_monitors(row.key, [MODEM], from_places={})
    w.set_budgets(row.key, [BUDGET])
    return row


def fail(w: SqlWriting, row: RolloutRow, key: int, place: int, *bad: str, apart: bool = False) -> None:
    """A device comes to a bad end in these classes, as a report counts it."""
    update = offered(row, key, place=place, unhealthy_before=apart, apart=apart)
    course = replace(
        update.update,
        status=UpdateStatus.FAILED,
        bad=frozenset(bad),
        resolved=True,
        started_at=NOW,
        deadline_at=None,
        ended=True,
    )
    update.update = course
    assert w.add_update(update)
    w.add_counts({(row.key, "all", 1, apart): counted(course)})
    if not apart:
        earlier: frozenset[str] = frozenset()
        for outcome in bad:
            w.add_bad(row.key, [BadOutcome(outcome, "all", place, place, earlier, key, 1)])
            earlier |= {outcome}


def filled(w: SqlWriting) -> RolloutRow:
    keys = enroll(w, *(device(f"d{n}") for n in range(6)))
    row = begun(w)
    w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
    fail(w, row, keys[0], 1, "modem")
    fail(w, row, keys[1], 2, "disk", OutcomeClass.FAILED)
    fail(w, row, keys[2], 3, OutcomeClass.VERIFY_FAILED)
    fail(w, row, keys[3], 4, "modem", apart=True)
    return row


def test_classes_come_back_by_their_names_and_those_apart_by_themselves(store: SqlStore) -> None:
    with undone(store) as w:
        row = filled(w)
        facts = w.facts(row, now=NOW + DAY)
        (piece,) = facts.waves[0].slices
        assert dict(piece.bad) == {"failed": 1, "verify_failed": 1, "modem": 1, "disk": 1}
        assert piece.apart == Apart(offered=1, in_flight=0, resolved=1, confirmed=0, bad={"modem": 1})
        assert (piece.offered, piece.resolved, piece.reachable) == (3, 3, 5)
        (seen,) = facts.monitors
        assert (seen.outcomes, seen.bad) == (("modem",), 1)
        assert [(budget.name, budget.bad) for budget in facts.budgets] == [("modem+failed", 2)]
        marks = {frozenset(update.update.bad) for _, update in w.list_updates(row.key, bad=True)}
        assert marks == {frozenset(each) for each in (["modem"], ["disk", "failed"], ["verify_failed"])}
        assert [update.apart for name, update in w.list_updates(row.key) if name == "d3"] == [True]
        assert not w.check()


@pytest.mark.parametrize(
    ("table", "column", "what"),
    [
        ("slice", "bad_own_1", "wave all, slice 1: bad disk"),
        ("slice", "bad_own_2", "wave all, slice 1: bad modem"),
        ("slice_apart", "bad_own_2", "wave all, slice 1, unhealthy before: bad modem"),
        ("slice_apart", "offered", "wave all, slice 1, unhealthy before: offered"),
    ],
)
def test_a_tally_that_is_wrong_is_found_and_named(store: SqlStore, table: str, column: str, what: str) -> None:
    """Slots are given in the order of the alphabet where several names come at once."""
    with undone(store) as w:
        filled(w)
        w.link.run(f"UPDATE {table} SET {column} = {column} + 1")
        assert [one.what for one in w.check()] == [f"rollout r, {what}"]


def test_monitors_counted_again_leave_out_who_stands_apart(store: SqlStore) -> None:
    with undone(store) as w:
        row = filled(w)
        before = w.monitors(row.key)
        w.count_again(row)
        assert w.monitors(row.key) == before


def test_names_keep_their_slots_and_more_than_eight_are_refused(store: SqlStore) -> None:
    with undone(store) as w:
        row = filled(w)
        w.name_classes(row.key, ["modem", "a", "b", "c", "d", "e", "f"])
        assert dict(w.facts(row, now=NOW + DAY).waves[0].slices[0].bad)["modem"] == 1
        with pytest.raises(Refused, match="8 classes of your own"):
            w.name_classes(row.key, ["g"])
        assert not w.check()


def test_an_offer_taken_back_from_who_stands_apart_is_counted_there(store: SqlStore) -> None:
    with undone(store) as w:
        row = filled(w)
        (key,) = enroll(w, device("late"))
        update = offered(row, key, place=7, unhealthy_before=True, apart=True)
        w.add_update(update)
        w.add_counts({(row.key, "all", 1, True): counted(update.update)})
        assert w.facts(row, now=NOW + DAY).waves[0].slices[0].apart.in_flight == 1
        assert w.withdraw(row.key) == 1
        assert w.facts(row, now=NOW + DAY).waves[0].slices[0].apart.in_flight == 0
        assert not w.check()


def test_a_report_that_goes_well_reads_nothing_of_classes(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with undone(store) as w:
        row = begun(w)
        (key,) = enroll(w, device("d"))
        w.add_update(offered(row, key))
        w._own_classes.clear()
        said: list[str] = []
        rows = w.link.rows

        def heard(sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            said.append(sql)
            return rows(sql, values)

        monkeypatch.setattr(w.link, "rows", heard)
        loaded = w.load_courses(row.key, [key])
        loaded[key].update = Course(UpdateStatus.INSTALLING, NOW + DAY, NOW, NOW)
        w.save_courses(loaded.values())
        assert said and not any("own_class" in sql for sql in said)
