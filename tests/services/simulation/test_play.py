"""The simulator plays the real core: what holds for every run, and what each shipped scenario comes to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.course import counted as counted_by_core
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.services.simulation.fleet import Habit, Shape
from orchestrator.services.simulation.machine import Taken, flying
from orchestrator.services.simulation.many import play_many
from orchestrator.services.simulation.play import Run, play
from orchestrator.services.simulation.scenarios import SCENARIOS, Order, Outage, Scenario
from orchestrator.services.simulation.setting import Ending
from orchestrator.services.simulation.tally import Evidence, Member
from tests.services.simulation.settings import policy, setting

QUICK = Shape(300, habits=(Habit(1.0, 300, 360),))


def test_a_run_is_the_same_whenever_it_is_played() -> None:
    asked = setting("bad")
    assert [play(asked, run) for run in range(5)] == [play(asked, run) for run in range(5)]
    assert play(asked, 1) != play(asked, 2)


def test_a_seed_gives_the_same_runs_however_many_processes_play_them() -> None:
    asked = setting("bad")
    alone = play_many(asked, 12)
    told: list[int] = []
    assert play_many(asked, 12, jobs=3, progress=told.append) == alone
    assert sum(told) == 12
    assert play_many(replace(asked, seed=2), 12) != alone


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SCENARIOS)),
    st.sampled_from([Order.MIXED, Order.FAILURES_FIRST, Order.SUCCESSES_FIRST]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(1, 10_000),
)
def test_what_the_tallies_say_is_what_a_recount_of_the_devices_says(
    name: str, order: Order, together: bool, retries: float, offline: float, run: int
) -> None:
    scenario = replace(SCENARIOS[name], order=order, together=together, retries=retries, eager=10)
    asked = replace(setting(fleet=400, waves="canary 20, rest"), scenario=scenario, offline=offline)
    one = Run(asked, run, None)
    came = one.played()
    updates = {device: one.machine.standings[number] for device, number in one.standing.items()}
    counted = [update for device, update in updates.items() if not one.member[device].excluded]
    facts = [wave.facts() for wave in one.evidence.waves.values()]
    assert came.exposed == len(updates) <= 400
    assert sum(each.offered for each in facts) == len(counted)
    assert sum(each.resolved for each in facts) == sum(update.resolved for update in counted)
    assert sum(each.confirmed for each in facts) == sum(each.counts_as_confirmed for each in counted)
    for outcome in OutcomeClass:
        assert came.bad.get(outcome, 0) == sum(outcome in update.bad for update in updates.values())
        assert sum(each.bad(outcome) for each in facts) == sum(outcome in update.bad for update in counted)
    assert one.evidence.in_flight == sum(flying(counted_by_core(update)) for update in updates.values())
    for monitor in one.evidence.monitors:
        assert one.evidence.left_out.excluded or len(monitor.places) == len(set(monitor.places)), (
            "one place, one device"
        )


def test_a_good_release_comes_through_and_nothing_was_exposed_twice() -> None:
    perfect = replace(setting(), scenario=Scenario("perfect", "Nothing is wrong.", level=0.0, quiet=0.0))
    found = [play(perfect, run) for run in range(20)]
    assert {each.ending for each in found} == {Ending.COMPLETED}
    assert {each.exposed for each in found} == {600}
    assert all(wave.passed is not None and wave.held is None for each in found for wave in each.waves)


def test_what_fails_everywhere_is_halted_by_the_fifth_failed_device() -> None:
    asked = replace(setting("broken", waves="canary 20, rest"), budgets=False)
    found = [play(asked, run) for run in range(60)]
    assert {each.ending for each in found} == {Ending.HALTED}
    assert max(each.failed for each in found) <= 5
    assert max(each.exposed for each in found) <= 20


def test_bricks_hold_where_silence_holds_and_halt_where_it_halts() -> None:
    bricks = replace(setting("bricks"), history=0)
    held = [play(bricks, run) for run in range(5)]
    assert {(each.ending, each.cause) for each in held} == {(Ending.HELD, "rollout/silent")}
    halting = policy(window="always", tolerate={"failed": "2%", "rolled_back": "1%", "silent": "5%"})
    halted = [play(replace(bricks, policy=halting), run) for run in range(5)]
    assert {each.ending for each in halted} == {Ending.HALTED}
    assert min(each.hours for each in (*held, *halted)) > 24


def test_with_a_history_bricks_halt_within_the_hour_by_the_policy_that_ships() -> None:
    known = setting("bricks", waves="canary 20, rest")
    found = [play(known, run) for run in range(5)]
    assert {(each.ending, each.cause) for each in found} == {(Ending.HALTED, "silence")}
    assert max(each.hours for each in found) < 1


def test_devices_that_go_dark_with_all_the_others_hold_and_do_not_halt() -> None:
    """Minutes after the start the only region there is goes dark: canaries under way, and everybody else."""
    halting = policy(window="always", tolerate={"failed": "2%", "rolled_back": "1%", "silent": "5%"})
    dark = replace(SCENARIOS["outage"], level=0.0, quiet=0.0, outage=Outage(after=0.08, hours=6.0))
    shape = Shape(600, labels={"region": {"east": 1.0}}, habits=(Habit(1.0, 300, 900),))
    asked = replace(setting(waves="canary 20, rest"), policy=halting, scenario=dark, shape=shape)
    found = [play(asked, run) for run in range(10)]
    assert {(each.ending, each.cause) for each in found} == {(Ending.HELD, "environment")}


def test_trouble_of_the_last_wave_touches_no_wave_before_it() -> None:
    asked = replace(setting("late", fleet=1_000), scenario=replace(SCENARIOS["late"], level=0.0, quiet=0.0))
    for run in range(10):
        came = play(asked, run)
        assert came.ending is Ending.HALTED
        assert [wave.passed is None for wave in came.waves] == [False, False, False, True]


def test_the_pace_is_never_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    flying: list[int] = []
    count = Evidence.count

    def watched(evidence: Evidence, member: Member, taken: Taken) -> bool:
        bad = count(evidence, member, taken)
        flying.append(evidence.in_flight)
        return bad

    monkeypatch.setattr(Evidence, "count", watched)
    paced = replace(setting(fleet=200), policy=policy(window="always", pace={"in_flight": 7}), shape=QUICK)
    assert play(paced, 1).ending is Ending.COMPLETED
    assert max(flying) == 7


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_says_what_it_is_and_is_probable(name: str) -> None:
    scenario = SCENARIOS[name]
    tolerate = policy().tolerances
    assert scenario.sentence.endswith(".")
    for struck in (False, True):
        rates = scenario.rates(tolerate, struck=struck)
        ends = sum(rate for outcome, rate in rates.items() if outcome is not OutcomeClass.DOWNLOAD_FAILED)
        assert 0.0 <= ends <= 1.0 + 1e-9
    assert scenario.harmless(tolerate) is (name in {"good", "tolerated", "slow", "outage"})


@pytest.mark.parametrize(
    "pace",
    [
        {"stake": 20},
        {"rate": "60/h"},
        {"in_flight": 50, "per": {"label": "region", "at_most": 3}, "rate": "600/h"},
    ],
    ids=str,
)
def test_every_pace_lets_a_good_release_through_and_holds(
    pace: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    flying: list[tuple[int, int, int]] = []
    count = Evidence.count

    def watched(evidence: Evidence, member: Member, taken: Taken) -> bool:
        bad = count(evidence, member, taken)
        confirmed = sum(each.facts().confirmed for each in evidence.slices)
        flying.append((evidence.in_flight, sum(each.piece.members for each in evidence.slices), confirmed))
        return bad

    monkeypatch.setattr(Evidence, "count", watched)
    perfect = replace(setting(fleet=300), scenario=Scenario("perfect", "Nothing is wrong.", level=0.0, quiet=0.0))
    came = play(replace(perfect, policy=policy(window="always", pace=pace), shape=QUICK), 1)
    assert (came.ending, came.exposed) == (Ending.COMPLETED, 300)
    most = max(at_it for at_it, _, _ in flying)
    if "per" in pace:
        assert most <= 15  # three in each of five regions
    if "stake" in pace:
        # With nothing but confirmations the stake bears at least as many as a twentieth of the fleet would.
        assert all(at_it <= 20 for at_it, _, confirmed in flying if confirmed == 0)
    if pace == {"rate": "60/h"}:
        assert came.hours >= 300 / 60 - 1


def test_a_sick_release_slows_to_a_trickle_before_it_is_halted() -> None:
    asked = replace(setting("bad", waves="all"), budgets=False)
    came = [play(asked, run) for run in range(40)]
    assert {each.ending for each in came} <= {Ending.HALTED, Ending.HELD}
    assert sum(each.ending is Ending.HALTED for each in came) > 30
