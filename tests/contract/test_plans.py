"""What every tick and every halt asks is found by an index in SQLite, however many devices and updates there are; what
one device said, in PostgreSQL too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore, SqlWriting, open_store
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.update import UpdateStatus
from orchestrator.services.records import BadOutcome, DeviceFilter, EventRow, RolloutRow
from tests.contract.building import HOUR, NOW, WEEK_AGO, device, enroll, monitor, offered, rollout, scope, undone

ASKED: dict[str, Callable[[SqlWriting, RolloutRow], object]] = {
    "facts": lambda w, row: w.facts(row, now=NOW + 3 * HOUR),
    "due": lambda w, row: w.due(row.key, now=NOW),
    "bad ones": lambda w, row: w.list_updates(row.key, bad=True),
    "a crossing": lambda w, row: w.add_bad(row.key, [BadOutcome(OutcomeClass.FAILED, "all", n, n) for n in (1, 2, 3)]),
    "updates of a device": lambda w, row: w.updates_of_device(1),
    "updates of devices": lambda w, row: w.updates_of_devices(range(1, 200)),
    "devices by their ids": lambda w, row: w.devices_called([f"d{n}" for n in range(1, 200)]),
    "a batch": lambda w, row: w.load_updates([(row.key, key) for key in range(5)]),
    "a batch of courses": lambda w, row: w.load_courses(row.key, range(5)),
    "places": lambda w, row: w.places(row.key, range(5)),
    "events of a device": lambda w, row: w.events(device="d1"),
    "events of a rollout": lambda w, row: w.events(rollout="r"),
    "a device": lambda w, row: w.device("d1"),
    "a page of a tag": lambda w, row: w.devices(DeviceFilter(tag="promoted"), after="d1"),
    "habits": lambda w, row: w.habits("promoted", sample=100),
    "a lease": lambda w, row: w.lease_build("me", now=NOW, until=NOW),
}
GROWING = ("device_update", "update_offer", "device", "event", "device_label", "u", "o", "d", "e", "l")


@pytest.mark.parametrize("asked", ASKED)
def test_no_growing_table_is_read_from_end_to_end(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("sqlite://")
    with store.writing() as w:
        row = w.add_rollout(rollout())
        keys = enroll(w, *(device(f"d{number}") for number in range(20)))
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        w.add_monitors(row.key, [monitor()], from_places={})
        for key in keys:
            w.add_update(offered(row, key))
        plans: list[str] = []
        rows = w.link.rows

        def explained(sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            if sql.startswith("SELECT"):
                plans.extend(step[3] for step in w.link.raw.execute(f"EXPLAIN QUERY PLAN {sql}", values))
            return rows(sql, values)

        monkeypatch.setattr(w.link, "rows", explained)
        ASKED[asked](w, row)
        monkeypatch.undo()
        assert plans
        assert [step for step in plans if step.split()[0] == "SCAN" and step.split()[1] in GROWING] == []
        if asked in {"bad ones", "a crossing"}:
            assert any("update_bad" in step for step in plans)
        if asked in {"facts", "due"}:
            assert any("update_deadline" in step for step in plans)
        assert len(w.list_updates(row.key, statuses={UpdateStatus.OFFERED})) == 20
    store.close()


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("of_rollout", [False, True])
def test_what_one_device_said_is_found_by_the_device_however_many_said_something(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, of_rollout: bool, newest: bool
) -> None:
    """Of a rollout or of all: neither the whole rollout's events are looked through nor those of everybody."""
    plans: list[str] = []
    with undone(store) as w:
        row = w.add_rollout(rollout())
        keys = enroll(w, *(device(f"d{number}") for number in range(40)))
        for number in range(50):
            w.log_events([EventRow(key, f"e{number}", row.key, "noted", NOW, None, None, None) for key in keys])
        if w.link.postgres:
            w.link.run("ANALYZE event")
        rows, how = w.link.rows, "EXPLAIN" if w.link.postgres else "EXPLAIN QUERY PLAN"

        def explained(sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            plans.extend(str(step[-1]) for step in rows(f"{how} {sql}", values))
            return rows(sql, values)

        monkeypatch.setattr(w.link, "rows", explained)
        found = w.events(device="d7", rollout=row.state.rollout if of_rollout else None, newest=newest, limit=10)
        monkeypatch.undo()
    whole = "\n".join(plans)
    assert [each.event_id for each in found] == [f"e{number}" for number in (range(40, 50) if newest else range(10))]
    assert "event_is" in whole, whole
    assert "event_of_rollout" not in whole and "event_pkey" not in whole and "Seq Scan on event" not in whole, whole
