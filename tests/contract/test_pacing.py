"""What paces offers: who shares a label's value is counted as it is now, and a rate is one moment that stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.offers import LabelLimit
from orchestrator.core.update import EventKind, on_check_in, on_event, retire, withdraw
from orchestrator.services.records import RolloutRow
from tests.contract.building import HOUR, NEW, NOW, OTHER, PATIENCE, device, enroll, offered, rollout, undone

HALL = LabelLimit("site", "hall", 100)


def fleet(w: SqlWriting, many: int = 6) -> tuple[RolloutRow, list[int]]:
    """Devices of one hall, all with an offer, and one elsewhere that has one too."""
    names = [f"d{number}" for number in range(many)]
    keys = enroll(w, *(device(name, labels={"site": "hall"}) for name in names), device("far", labels={"site": "roof"}))
    row = w.add_rollout(rollout())
    for key in keys:
        assert w.add_update(offered(row, key))
    return row, keys[:-1]


def test_whoever_has_an_offer_and_no_outcome_is_at_it(store: SqlStore) -> None:
    with undone(store) as w:
        row, keys = fleet(w)
        assert w.flying_with(row.key, HALL) == 6
        steps = (
            lambda update: withdraw(update),
            lambda update: on_event(update, EventKind.FAILED, patience=PATIENCE, now=NOW),
            lambda update: on_check_in(update, running=NEW, patience=PATIENCE, now=NOW),
            lambda update: on_check_in(update, running=OTHER, patience=PATIENCE, now=NOW),
            lambda update: retire(update),
        )
        for over, (key, step) in enumerate(zip(keys, steps, strict=False), start=1):
            found = w.update(row.key, key)
            assert found is not None
            found.update = step(found.update).update
            w.save_updates([found])
            assert w.flying_with(row.key, HALL) == 6 - over
        started = w.update(row.key, keys[-1])
        assert started is not None
        started.update = on_event(started.update, EventKind.INSTALLING, patience=PATIENCE, now=NOW).update
        w.save_updates([started])
        assert w.flying_with(row.key, HALL) == 1


def test_no_more_are_counted_than_the_limit_asks_for(store: SqlStore) -> None:
    with undone(store) as w:
        row, _ = fleet(w)
        assert [w.flying_with(row.key, replace(HALL, at_most=most)) for most in (1, 5, 6, 7)] == [1, 5, 6, 6]


def test_the_label_is_as_it_is_now_and_a_wave_counts_its_own(store: SqlStore) -> None:
    with undone(store) as w:
        row, keys = fleet(w)
        other = w.add_rollout(rollout(name="other"))
        assert w.flying_with(other.key, HALL) == 0
        w.set_label(["d0", "d1"], "site", "roof", now=NOW)
        w.set_label(["d2"], "site", None, now=NOW)
        assert w.flying_with(row.key, HALL) == 3
        assert w.flying_with(row.key, replace(HALL, value="roof")) == 3
        assert w.flying_with(row.key, replace(HALL, wave="all")) == 3
        assert w.flying_with(row.key, replace(HALL, wave="lab")) == 0
        moved = w.update(row.key, keys[5])
        assert moved is not None
        moved.wave = "lab"
        w.save_updates([moved])
        assert w.flying_with(row.key, replace(HALL, wave="lab")) == 1


@pytest.mark.parametrize("at", [NOW, NOW + 100 * HOUR])
def test_what_is_spent_of_a_rate_is_kept_by_rollout_and_wave(store: SqlStore, at: datetime) -> None:
    with undone(store) as w:
        one, two = w.add_rollout(rollout()), w.add_rollout(rollout(name="two"))
        assert w.spent(one.key) == {}
        w.set_spent(one.key, {"": at, "lab": NOW + HOUR})
        w.set_spent(one.key, {"lab": at})
        w.set_spent(two.key, {"": NOW - HOUR})
        assert w.spent(one.key) == {"": at, "lab": at}
        assert w.spent(two.key) == {"": NOW - HOUR}
