"""What would move a rollout: each sentence by hand, and the ones about time come true to the minute."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.core.decide import decide
from orchestrator.core.evidence.crossing import Step, first_step
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.explain import Outlook, looks_again, outlook, stopped_by
from orchestrator.core.facts import BudgetFacts
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.policy import Otherwise
from orchestrator.core.reasons import a_or_an, does, moment, monitor_state, step_of
from orchestrator.core.rules import WaveRules
from orchestrator.core.states import WATCHED_ROLLOUT, RolloutStatus, WaveStatus
from tests.core.strategies import Given, given_to_decide
from tests.core.world import DAY, DAY_0, HOUR, World, monitor, world

FAILED, ROLLED_BACK, SILENT = OutcomeClass.FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.SILENT
MINUTE = timedelta(minutes=1)


def told_of(told: World, **steps: Step) -> Outlook:
    return outlook(told.state, told.facts, told.rules, told.look(), steps, told.now)


# ------------------------------------------------------------------------------------------------- one monitor


@pytest.mark.parametrize(
    ("changes", "step", "line"),
    [
        (
            {"bad": 3, "places": 31},
            Step(1, 33, 3),
            "3 failed among 31 places; a 4th within the first 33 halts; tolerance 2 %",
        ),
        (
            {"bad": 7, "places": 900, "answer": Answer.HOLD},
            Step(1, 123, 7),
            "7 failed among 900 places; an 8th within the first 123 holds; tolerance 2 %",
        ),
        (
            {"bad": 3, "places": 900},
            Step(2, 16, 1),
            "3 failed among 900 places; 2 more within the first 16, where 1 is, halt; tolerance 2 %",
        ),
        (
            {"bad": 9, "places": 900},
            Step(1, 52, 4),
            "9 failed among 900 places; 1 more within the first 52, where 4 are, halts; tolerance 2 %",
        ),
        (
            {"bad": 1, "places": 900},
            Step(2, 5, 0),
            "1 failed among 900 places; 2 within the first 5 halt; tolerance 2 %",
        ),
        ({"places": 40}, None, "0 failed among 40 places; 2 within the first 5 halt; tolerance 2 %"),
        (
            {"bad": 3, "places": 31, "amber": True},
            Step(1, 33, 3),
            "3 failed among 31 places; amber; a 4th within the first 33 halts; tolerance 2 %",
        ),
        (
            {"bad": 4, "places": 31, "crossed_at": (4, 30)},
            None,
            "4 failed among 31 places; crossed by the 4th at place 30; tolerance 2 %",
        ),
        (
            {"bad": 4, "places": 31, "crossed_at": (4, 30), "accepted": True},
            None,
            "4 failed among 31 places; accepted by a person and closed; tolerance 2 %",
        ),
        (
            {"bad": 1, "places": 31, "accepted": True},
            None,
            "1 failed among 31 places; closed by an order; tolerance 2 %",
        ),
        ({"bad": 4, "places": 31, "answer": Answer.COUNT}, None, "4 failed among 31 places; only counted"),
    ],
)
def test_a_monitor_in_one_line(changes: dict[str, Any], step: Step | None, line: str) -> None:
    assert monitor_state(replace(monitor(alpha=0.05), **changes), step) == line


def test_where_nobody_looked_into_the_tree_the_staircase_says_what_comes_next() -> None:
    stairs = staircase(0.02, 0.05)
    assert step_of(monitor(alpha=0.05)) == first_step(stairs) == Step(2, 5, 0)
    assert step_of(monitor(alpha=0.05, bad=3)) == Step(1, 33, 3)
    assert step_of(monitor(alpha=0.05, bad=3), Step(2, 16, 1)) == Step(2, 16, 1)


def test_words() -> None:
    assert [a_or_an(n) for n in (1, 4, 8, 11, 18, 80, 81, 110, 181, 800, 1_100, 11_000, 18_000)] == (
        "a a an an an an an a a an a an an".split()
    )
    assert does((FAILED,), 1) == "fails" and does((FAILED, ROLLED_BACK, SILENT), 2) == "fail, roll back or stay silent"
    assert all(does((outcome,), count) for outcome in OutcomeClass for count in (1, 2))


# ------------------------------------------------------------------------------------------------- either way


def test_a_slice_advances_by_reports_or_in_time_and_holds_else() -> None:
    """Hour 0: the first slice of 20. Nobody reports: at hour 24 it holds, to the minute."""
    told = world(WaveRules("lab"), devices=60)
    told.tick()
    told.offer("lab")
    told.confirm("lab", 4)
    told.tick()
    seen = told_of(told)
    assert seen.advances == (
        "lab: 4 of 20 devices have reported an outcome in slice 1; the next slice opens at 15. Or at 2026-03-03 09:00"
        " UTC, if 10 are confirmed by then; 4 are.",
    )
    assert seen.holds == (
        "lab: at 2026-03-03 09:00 UTC fewer than 75 % of slice 1 have reported an outcome, and fewer than half are"
        " confirmed.",
    )
    assert seen.halts == ("A person says so: `wave halt lmp-42`.",)
    assert_holds_at(told, DAY_0 + 24 * HOUR)


def test_the_same_slice_goes_on_in_time_when_half_are_confirmed() -> None:
    told = world(WaveRules("lab"), devices=60)
    told.tick()
    told.offer("lab")
    told.confirm("lab", 10)
    told.now = DAY_0 + 24 * HOUR - MINUTE
    assert told.tick().decisions == () and len(told.pools["lab"].slices) == 1
    told.now += MINUTE
    told.tick()
    assert len(told.pools["lab"].slices) == 2


def test_a_bake_says_its_floor_its_needs_and_its_ceiling() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    told.offer("lab")
    told.tick()
    told.confirm("lab", 5)
    seen = told_of(told)
    (said,) = seen.advances
    assert said.startswith(
        "lab: It has baked for 0 s of at least 12 h: 12 h more. 5 of 20 have reported; 95 % are needed"
    )
    assert seen.holds == ("lab: at 2026-03-04 09:00 UTC its bake is over and it could not pass.",)
    told.confirm("lab", 15)
    assert told_of(told).advances == (
        "lab: It has baked for 0 s of at least 12 h: 12 h more. That is at 2026-03-02 21:00 UTC.",
    )
    told.turn_bad("lab", FAILED, 10, confirmed=True)
    assert_holds_at(told, DAY_0 + 48 * HOUR)


def test_what_a_person_granted_counts_from_then() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    told.offer("lab")
    told.tick()
    told.pass_time(48 * HOUR)
    told.tick()
    assert told_of(told).advances == (
        "lab is held; a person lets it go on, `wave resume lmp-42 --wave lab`, or pass, `wave complete lmp-42 lab`.",
    )
    assert told_of(told).holds == ()
    told.pass_time(5 * HOUR)
    told.resume_wave("lab")
    assert told_of(told).holds == (f"lab: at {moment(DAY_0 + 101 * HOUR)} its bake is over and it could not pass.",)
    assert_holds_at(told, DAY_0 + 101 * HOUR)


def test_a_held_rollout_with_a_held_wave_names_both_ways_on() -> None:
    """Each has its own hold: a person who resumes the one has said nothing of the other."""
    told = world(WaveRules("lab", otherwise=Otherwise.HOLD))
    told.pools["lab"].pairs, told.pools["lab"].ready = 2, 1
    told.tick()
    told.pass_time(7 * HOUR)
    told.tick()
    assert told.state.wave("lab").hold is not None
    told.state = replace(told.state, status=RolloutStatus.HELD)
    assert told_of(told).advances == (
        "A person has looked and resumes it: `wave resume lmp-42`.",
        "lab is held; a person lets it go on, `wave resume lmp-42 --wave lab`, or pass, `wave complete lmp-42 lab`.",
        "Or ends it: `wave cancel lmp-42`.",
    )


@pytest.mark.parametrize("otherwise", [Otherwise.HOLD, Otherwise.FULL])
def test_deltas_that_are_late_hold_or_open(otherwise: Otherwise) -> None:
    told = world(WaveRules("lab", otherwise=otherwise))
    told.pools["lab"].pairs, told.pools["lab"].ready = 2, 1
    told.tick()
    seen, at = told_of(told), DAY_0 + 6 * HOUR
    if otherwise is Otherwise.HOLD:
        assert seen.holds == (f"lab: at {moment(at)} its deltas do not cover 100 % of its devices.",)
        assert_holds_at(told, at)
    else:
        assert seen.holds == () and seen.advances[0].endswith(f"At {moment(at)} it opens all the same.")
        told.now = at - MINUTE
        told.tick()
        assert told.status("lab") is WaveStatus.PREPARING
        told.now = at
        told.tick()
        assert told.status("lab") is WaveStatus.OPEN


def test_offers_that_nobody_takes_do_not_keep_the_bake_for_ever() -> None:
    told = world(WaveRules("lab"))
    told.tick()
    assert told_of(told).advances[0].endswith(f"At {moment(DAY_0 + 7 * DAY)} it begins with those that have come.")
    told.now = DAY_0 + 7 * DAY - MINUTE
    told.tick()
    assert told.status("lab") is WaveStatus.OPEN
    told.now += MINUTE
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING


def test_monitors_and_budgets_stand_where_they_belong_the_nearest_first() -> None:
    told = world(WaveRules("lab"), WaveRules("rest", after=("lab",)), fleet=150)
    told.tick()
    told.monitors = {
        "rollout/rolled_back": monitor(monitor="rollout/rolled_back", outcomes=(ROLLED_BACK,), alpha=0.05, places=404),
        "rollout/failed": monitor(alpha=0.05, places=404, bad=3),
        "rollout/silent": monitor(Answer.HOLD, monitor="rollout/silent", outcomes=(SILENT,), alpha=0.05),
        "wave:lab/failed": monitor(monitor="wave:lab/failed", wave="lab", alpha=0.05, places=4),
        "wave:rest/failed": monitor(monitor="wave:rest/failed", wave="rest", alpha=0.05),
        "rollout/old": monitor(accepted=True, crossed_at=(4, 30), bad=4, places=404),
        "rollout/ignored": monitor(Answer.COUNT, outcomes=(OutcomeClass.IGNORED,), places=404),
    }
    told.budgets = (BudgetFacts((FAILED,), 19, 3), BudgetFacts((SILENT,), 5, 0, answer=Answer.HOLD))
    seen = told_of(told, **{"rollout/failed": Step(1, 33, 3)})
    assert seen.halts == (
        "1 more device fails within the first 33 places, where 3 have; wherever they are, 15 of the 404.",
        "2 devices roll back within the first 5 places; wherever they are, 18 of the 404.",
        "2 devices fail within the first 5 places of wave lab.",
        "19 devices fail, wherever: the budget.",
        "A person says so: `wave halt lmp-42`.",
    )
    assert seen.holds[:3] == (
        "2 devices stay silent within the first 5 places.",
        "5 devices stay silent, wherever: the budget.",
        "In a wave that began with fewer than 10 devices one more is bad, of a class that halts: a fleet this small"
        " cannot tell chance from cause.",
    )


def test_monitors_of_many_waves_that_are_alike_are_one_line() -> None:
    told = world(*(WaveRules(f"w{n}") for n in range(5)))
    told.monitors = {
        f"wave:w{n}/failed": monitor(monitor=f"wave:w{n}/failed", wave=f"w{n}", alpha=0.05, places=4) for n in range(5)
    }
    assert told_of(told).halts[0] == "2 devices fail within the first 5 places of any of 5 waves."
    del told.monitors["wave:w0/failed"], told.monitors["wave:w1/failed"]
    assert told_of(told).halts[0] == "2 devices fail within the first 5 places of wave w2, w3 and w4."


@pytest.mark.parametrize(
    ("status", "advances"),
    [
        (RolloutStatus.DRAFT, "A person starts it: `wave start lmp-42`."),
        (RolloutStatus.PAUSED, "A person resumes it: `wave resume lmp-42`."),
        (RolloutStatus.HELD, "A person has looked and resumes it: `wave resume lmp-42`."),
        (RolloutStatus.HALTED, "A person has looked and resumes it: `wave resume lmp-42`."),
        (RolloutStatus.CANCELLED, "It has ended."),
    ],
)
def test_where_only_a_person_moves_it(status: RolloutStatus, advances: str) -> None:
    told = world(WaveRules("lab"))
    told.state = replace(told.state, status=status)
    seen = told_of(told)
    assert seen.advances[0] == advances
    assert bool(seen.halts) == (status in WATCHED_ROLLOUT) and seen.holds == ()


def test_a_resume_names_all_that_stopped_it() -> None:
    told = world(WaveRules("lab"))
    told.monitors = {"rollout/failed": monitor(next_limit=4)}
    told.budgets = (BudgetFacts((FAILED,), 4, 0),)
    told.tick()
    told.offer("lab")
    told.turn_bad("lab", FAILED, 4)
    told.tick()
    assert stopped_by(told.state, told.facts) == ("rollout/failed", "budget/failed")
    assert told_of(told).advances == (
        "A person has looked and resumes it: `wave resume lmp-42 --accept rollout/failed --accept budget/failed"
        " --reason TEXT`.",
        "Or ends it: `wave cancel lmp-42`.",
    )


def test_when_it_looks_again() -> None:
    assert looks_again(DAY_0 + 10 * MINUTE, DAY_0) == (
        "Looks again with the next report that counts, at the latest at 2026-03-02 09:10 UTC (in 10 min); until then"
        " the same facts decide nothing new."
    )
    assert looks_again(None, DAY_0) == ""


@settings(max_examples=300)
@given(given_to_decide())
def test_whatever_is_given_every_line_is_a_sentence(given_: Given) -> None:
    state, facts, rules, now = given_
    seen = outlook(state, facts, rules, decide(state, facts, rules, now), {}, now)
    for line in (*seen.advances, *seen.halts, *seen.holds):
        assert line.endswith((".", "`.")) and "  " not in line and "None" not in line.replace("None of its", ""), line
    assert bool(seen.halts) == (state.status in WATCHED_ROLLOUT)
    if state.status in (RolloutStatus.HALTED, RolloutStatus.PAUSED, RolloutStatus.HELD, RolloutStatus.CANCELLED):
        assert not seen.holds


def assert_holds_at(told: World, at: datetime) -> None:
    """A minute before nothing holds, however often it is looked; then it does."""
    told.now = at - MINUTE
    told.tick()
    assert told.state.wave("lab").hold is None
    told.now = at
    told.tick()
    assert told.state.wave("lab").hold is not None
