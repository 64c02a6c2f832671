"""Bad outcomes in monitors and budgets: counted once, where they belong, with the crossing that recounting finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.evidence.crossing import Step, first_step, recount
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts
from orchestrator.core.journal import Entry
from orchestrator.core.outcomes import Outcome, OutcomeClass
from orchestrator.core.update import Counts, UpdateStatus
from orchestrator.services.records import BadOutcome, RolloutRow
from tests.contract.building import NOW, WEEK_AGO, device, enroll, monitor, offered, rollout, scope, undone

FAILED, SILENT = OutcomeClass.FAILED, OutcomeClass.SILENT


def fail(w: SqlWriting, row: RolloutRow, places: Iterable[int], *outcomes: OutcomeClass) -> None:
    """Devices at these places of the rollout go bad, each in all of ``outcomes``, in one report."""
    found = []
    for place in places:
        (key,) = enroll(w, device(f"at-{place}"))
        update = offered(row, key, place=place)
        bad = frozenset(outcomes or (FAILED,))
        update.update = replace(update.update, bad=bad, status=UpdateStatus.FAILED, resolved=True)
        w.add_update(update)
        earlier: frozenset[Outcome] = frozenset()
        for outcome in sorted(bad):
            found.append(BadOutcome(outcome, "all", place, place, earlier))
            earlier |= {outcome}
    w.add_bad(row.key, found)


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    places=st.lists(st.integers(1, 400), min_size=1, max_size=25, unique=True),
    parts=st.integers(1, 5),
    start=st.integers(0, 60),
)
def test_the_crossing_is_the_one_that_recounting_finds(
    store: SqlStore, places: list[int], parts: int, start: int
) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        spec = monitor()
        w.add_monitors(row.key, [spec], from_places={spec.key: start})
        seen: list[int] = []
        first = None
        for part in range(parts):
            mine = places[part::parts]
            fail(w, row, mine)
            seen += [place - start for place in mine if place > start]
            found = recount(seen, staircase(spec.tolerance, spec.alpha))
            if first is None and found is not None:
                first = (found.bad, found.place)
            (kept,) = w.monitors(row.key)
            assert (kept.bad, kept.crossed_at) == (len(seen), first)
        assert [one for one in w.check() if "monitor" in one.what] == []


def test_a_monitor_counts_its_own_class_and_population(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        w.add_monitors(row.key, [monitor(), monitor("wave:all"), monitor("wave:b")], from_places={})
        w.add_monitors(row.key, [monitor("rollout", SILENT)], from_places={})
        w.add_bad(row.key, [BadOutcome(FAILED, "all", 7, 3), BadOutcome(FAILED, "b", 9, 1)])
        assert {one.spec.key: one.bad for one in w.monitors(row.key)} == {
            "rollout/failed": 2,
            "wave:all/failed": 1,
            "wave:b/failed": 1,
            "rollout/silent": 0,
        }


def test_what_pools_classes_counts_a_device_once(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        w.add_monitors(row.key, [monitor("rollout", FAILED, SILENT)], from_places={})
        pooled, alone = BudgetFacts((FAILED, SILENT), 9, 0), BudgetFacts((SILENT,), 9, 0)
        w.set_budgets(row.key, [pooled, alone])
        fail(w, row, [1, 2], FAILED, SILENT)
        fail(w, row, [3], SILENT)
        assert w.monitors(row.key)[0].bad == 3
        assert {budget.name: budget.bad for budget in w.budgets(row.key)} == {"failed+silent": 3, "silent": 3}
        assert [one for one in w.check() if "tally" in one.what or "budget" in one.what or "monitor" in one.what] == []


def test_a_closed_monitor_counts_no_more_and_the_next_attempt_starts_anew(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        spec = monitor()
        w.add_monitors(row.key, [spec], from_places={})
        fail(w, row, [1, 2, 3])
        w.close_monitors(row.key, [spec.key], now=NOW)
        w.add_monitors(row.key, [spec], from_places={spec.key: 20})
        fail(w, row, [5, 21, 22])
        old, new = w.monitors(row.key)
        assert (old.bad, old.crossed_at) == (3, (2, 2))
        assert (new.bad, new.crossed_at) == (2, (2, 2))


def test_facts_say_the_next_limit_and_amber(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, *(device(f"d{n}") for n in range(50)))
        row = w.add_rollout(rollout())
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        w.add_monitors(row.key, [monitor(), monitor("wave:all")], from_places={"wave:all/failed": 20})
        fail(w, row, [45])
        overall, late = w.facts(row, now=NOW).monitors
        stairs = staircase(0.02, 0.045)
        assert (overall.places, overall.bad, overall.next_limit, overall.wave) == (50, 1, stairs.limit(2), None)
        assert (late.places, late.bad, late.wave, late.crossed_at) == (30, 1, "all", None)
        fail(w, row, [46, 47])
        assert w.facts(row, now=NOW).monitors[0].next_limit == stairs.limit(4)


def test_what_is_missing_to_cross_is_read_from_the_tree(store: SqlStore) -> None:
    """2 in 4, 3 in 15, 4 in 31 at this allowance: those far behind help none in front."""
    stairs = staircase(0.02, 0.045)
    with undone(store) as w:
        row = w.add_rollout(rollout())
        specs = [monitor(), monitor("rollout", SILENT), monitor("wave:all"), monitor("wave:other")]
        w.add_monitors(row.key, specs, from_places={"wave:all/failed": 40})
        assert w.next_steps(row.key) == {}
        fail(w, row, [30, 14, 90, 500])
        assert w.next_steps(row.key) == {
            "rollout/failed": Step(2, stairs.limit(4), 2),
            "wave:all/failed": first_step(stairs),
        }
        fail(w, row, [1, 2])
        assert set(w.next_steps(row.key)) == {"wave:all/failed"}, "what has crossed needs nothing more"


def test_amber_comes_with_failures_and_goes_with_confirmations_and_not_with_silence(store: SqlStore) -> None:
    """Three of fifty are no reason to slow down; three of three are, and the other 47 pending do not hide it."""
    with undone(store) as w:
        enroll(w, *(device(f"d{n}") for n in range(50)))
        row = w.add_rollout(rollout())
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        w.add_monitors(row.key, [monitor(), monitor("wave:all")], from_places={"wave:all/failed": 50})
        assert w.flowing(row, counted=False) == ((), ())
        fail(w, row, [45, 46, 47])
        w.add_counts({(row.key, "all", 1, False): Counts(offered=50, resolved=30, bad=(OutcomeClass.SILENT,) * 27)})
        for confirmed, amber in ((0, True), (10, True), (37, False)):
            w.add_counts({(row.key, "all", 1, False): Counts(confirmed=confirmed)})
            for monitors in (w.facts(row, now=NOW).monitors, w.flowing(row, counted=False)[1]):
                assert monitors[0].amber == amber
                assert not any(each.amber for each in monitors[1:]), "nothing of it lies after where that one starts"
        waves, (only,) = w.flowing(row, counted=True)
        assert (waves[0].in_flight, waves[0].confirmed, only.monitor) == (20, 47, "rollout/failed")


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE monitor SET bad = 9", "rollout r, monitor rollout/failed (attempt 1): bad"),
        ("UPDATE monitor SET crossed_bad = NULL", "rollout r, monitor rollout/failed (attempt 1): crossing"),
        ("UPDATE budget SET bad = 9", "rollout r, budget failed: bad"),
        ("UPDATE population SET places = 9 WHERE name = 'rollout'", "rollout r, places of rollout"),
        ("UPDATE rollout SET journal_seq = 5", "rollout r, head of the journal"),
    ],
)
def test_the_check_finds_what_was_changed_behind_its_back(store: SqlStore, statement: str, what: str) -> None:
    with undone(store) as w:
        entry = Entry(1, NOW, "started", "ann", "Started.").sealed()
        row = w.add_rollout(rollout(journal_seq=1, journal_hash=entry.hash))
        enroll(w, device("a"))
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        w.append_journal(row, [entry])
        w.add_monitors(row.key, [monitor()], from_places={})
        w.set_budgets(row.key, [BudgetFacts((FAILED,), 9, 0)])
        fail(w, row, [1, 2, 3])
        w.link.run("DELETE FROM update_offer WHERE rollout_place > 3")
        before = {one.what for one in w.check()}
        assert what not in before
        w.link.run(statement)
        assert what in {one.what for one in w.check()}
