"""Changing a rollout that runs: what may change does, nothing is reset, and nobody is let go by it.

Day 0: 240 devices, three waves; the canary is open and has its first outcomes. Then somebody edits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.evidence.allowance import RESERVE_PART, newcomer_alpha
from orchestrator.core.outcomes import Answer
from orchestrator.core.policy import Policy
from orchestrator.core.reasons import monitor_state
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.errors import InvalidInput, Refused, WrongState
from orchestrator.services.editing import Applied
from orchestrator.services.records import MonitorRow
from orchestrator.services.replaying import Replayer
from orchestrator.services.verifying import Verifier
from tests.services.fleet_world import TAG, World

NAME = "lmp-42"
WAVES: list[dict[str, Any]] = [
    {"wave": "canary", "devices": {"count": 40}},
    {"wave": "middle", "devices": {"share": "50%"}},
    {"wave": "rest", "devices": "all"},
]
POLICY: dict[str, Any] = {
    "policy": "test",
    "deltas": {"within": "0s", "otherwise": "full"},
    "bake": {"at_least": "12h", "at_most": "48h"},
    "tolerate": {"failed": "5%", "download_failed": "5%"},
    "budget": {"failed": 30},
    "pace": {"in_flight": 200},
}


@pytest.fixture
def running(world: World) -> World:
    devices = world.fleet(240)
    world.apply(waves=WAVES, policy=POLICY)
    offered = [each for each in devices if world.check_in(each) is not None]
    assert len(offered) == 20
    for device in offered[:10]:
        world.check_in(device, 42)
    world.report(offered[10], "failed")
    return world


def files(
    waves: Sequence[Mapping[str, Any]] = WAVES, policy: Mapping[str, Any] = POLICY, **spec: Any
) -> tuple[RolloutFile, Policy]:
    document = {"rollout": NAME, "target": 42, "tag": TAG, "policy": "test", "waves": waves, **spec}
    return RolloutFile.parse(document), Policy.parse(dict(policy))


def applied(world: World, *both: Any, yes: bool = True, **more: Any) -> Applied:
    return world.rollouts.apply(*both, by="bo", yes=yes, **more)


def monitors(world: World) -> list[MonitorRow]:
    key = world.row().key
    with world.store.reading() as r:
        return list(r.monitors(key))


def journal(world: World) -> Sequence[Any]:
    key = world.row().key
    with world.store.reading() as r:
        return r.journal(key)


def holds(world: World) -> None:
    """What was written is whole, recounts and replays."""
    with world.store.reading() as r:
        assert list(r.check()) == []
    for each in Verifier(world.store).verify():
        assert each.findings == ()
    assert Replayer(world.store).replay(NAME).divergences == ()


# ------------------------------------------------------------------------------------------------- shown, and made


def test_without_a_yes_it_is_shown_and_not_made(running: World) -> None:
    before, entries = running.row(), len(journal(running))
    both = files(policy={**POLICY, "tolerate": {"failed": "3%", "download_failed": "5%"}})
    for options in ({"yes": False}, {"yes": True, "dry_run": True}):
        found = applied(running, *both, **options)
        assert not found.written and found.edited is not None
        assert [str(each) for each in found.edited.changes] == ["policy: tolerate.failed.at_most: 5% becomes 3%"]
        assert "-    at_most: 5%" in found.edited.diff and "+    at_most: 3%" in found.edited.diff
        assert found.edited.diff[0] == "--- policy, as bound"
    assert running.row() == before and len(journal(running)) == entries
    holds(running)


def test_it_is_journaled_with_both_digests_who_and_why(running: World) -> None:
    before = running.row()
    both = files(policy={**POLICY, "tolerate": {"failed": "3%", "download_failed": "5%"}})
    found = applied(running, *both, reason="customers asked")
    after, entry = running.row(), journal(running)[-1]
    assert found.written and (entry.event, entry.by) == ("edited", "bo")
    assert entry.sentence == "Edited by bo: policy: tolerate.failed.at_most: 5% becomes 3%. customers asked"
    assert (entry.facts["old_policy_digest"], entry.facts["policy_digest"]) == (before.policy_digest, both[1].digest())
    assert entry.policy_digest == after.policy_digest == both[1].digest()
    assert after.policy == both[1].canonical().decode() and after.spec == before.spec
    assert after.state.epoch == before.state.epoch + 1
    holds(running)


def test_applying_the_same_file_again_changes_nothing(running: World) -> None:
    both = files(policy={**POLICY, "tolerate": {"failed": "3%", "download_failed": "5%"}})
    applied(running, *both)
    entries = len(journal(running))
    again = applied(running, *both)
    assert (again.edited, again.changes, again.created) == (None, (), False)
    assert len(journal(running)) == entries


@pytest.mark.parametrize("order", ["pause", "none"])
def test_a_paused_one_stays_paused(running: World, order: str) -> None:
    if order == "pause":
        running.rollouts.pause(NAME, by="anna")
    before = running.row().state
    found = applied(running, *files(policy={**POLICY, "tolerate": {"failed": "3%", "download_failed": "5%"}}))
    assert found.status is before.status and running.row().state.standing == before.standing


# ------------------------------------------------------------------------------------------------- evidence stays


def test_what_is_unchanged_goes_on_and_what_is_new_is_paid_from_the_reserve(running: World) -> None:
    """`failed` gets a higher tolerance on a person's word: its monitor is closed with its count, and begins anew with
    the next slice. The others have not even noticed."""
    before = {each.spec.key: each for each in monitors(running)}
    both = files(policy={**POLICY, "tolerate": {"failed": "7%", "download_failed": "5%"}})
    found = applied(running, *both, allow_wider=["canary"], reason="x")
    assert found.edited is not None
    assert set(found.edited.closes) == {key for key in before if key.endswith("/failed")}
    assert "rollout/failed" in found.edited.begins
    after = monitors(running)
    for each in after:
        if each.spec.key in before and each.attempt == 1 and "failed" not in [str(o) for o in each.spec.outcomes]:
            assert each == before[each.spec.key]
    closed, fresh = [each for each in after if each.spec.key == "rollout/failed"]
    assert closed.accepted_at is not None and (closed.bad, closed.spec) == (1, before["rollout/failed"].spec)
    assert (fresh.attempt, fresh.bad, fresh.from_place) == (2, 0, 20)
    assert fresh.spec.tolerance == 0.07 and fresh.spec.alpha == newcomer_alpha(0.05, 1)
    assert running.facts().waves[0].bad(next(iter(fresh.spec.outcomes))) == 1
    (told,) = [each for each in running.facts().monitors if each.monitor == "rollout/failed" and each.accepted]
    assert "closed by an order" in monitor_state(told)
    holds(running)


def test_a_lower_tolerance_forgets_nothing(running: World) -> None:
    """Its monitor goes on with what it has seen, and the new one begins beside it. Then all that were offered fail: had
    the first been closed, nobody would be counting them."""
    before = {each.spec.key: each for each in monitors(running)}
    found = applied(running, *files(policy={**POLICY, "tolerate": {"failed": "4.9%", "download_failed": "5%"}}))
    assert found.edited is not None and found.edited.closes == ()
    assert "rollout/failed@4.9%" in found.edited.begins
    after = {each.spec.key: each for each in monitors(running)}
    assert {key: after[key] for key in before} == before
    fresh = after["rollout/failed@4.9%"]
    assert (fresh.attempt, fresh.bad, fresh.from_place, fresh.spec.tolerance) == (1, 0, 20, 0.049)
    holds(running)
    for number in range(1, 241):
        if running.row().state.status is RolloutStatus.RUNNING:
            running.report(f"dev-{number:04d}", "failed")
    assert running.row().state.status is RolloutStatus.HALTED
    assert "tolerance of 5 %" in running.row().state.standing.reason.sentence
    running.rollouts.resume(NAME, by="bo", accept=["rollout/failed"], reason="x")
    holds(running)


def test_a_more_severe_answer_forgets_nothing(running: World) -> None:
    before = {each.spec.key: each for each in monitors(running)}
    halts = {"failed": "5%", "download_failed": {"at_most": "5%", "then": "halt"}}
    found = applied(running, *files(policy={**POLICY, "tolerate": halts}))
    assert found.edited is not None and found.edited.closes == ()
    assert "rollout/download_failed@5%" in found.edited.begins
    after = {each.spec.key: each for each in monitors(running)}
    assert {key: after[key] for key in before} == before
    assert after["rollout/download_failed@5%"].spec.answer is Answer.HALT
    holds(running)


def test_a_lower_tolerance_whose_answer_then_becomes_a_halt_has_a_monitor_of_its_own(running: World) -> None:
    for then in ("hold", "halt"):
        tolerate = {"failed": "5%", "download_failed": {"at_most": "3%", "then": then}}
        assert applied(running, *files(policy={**POLICY, "tolerate": tolerate})).written
    answers = {each.spec.key: each.spec.answer for each in monitors(running) if each.spec.scope == "rollout"}
    assert answers["rollout/download_failed@3%"] is Answer.HOLD
    assert answers["rollout/download_failed@3%-halt"] is Answer.HALT
    holds(running)


def test_both_monitors_of_a_segment_count(world: World) -> None:
    """After a lower tolerance a segment has two of a class: a report reaches both, and both are accepted by name."""
    for version in (41, 42):
        world.target(version)
    east, west = (world.enroll(120, labels={"site": site}) for site in ("east", "west"))
    for device in (*east, *west):
        world.check_in(device)
    policy = {**POLICY, "segments": ["label:site"], "budget": {"failed": 200}, "slices": {"first": 60, "growth": 2}}
    world.apply(waves=[WAVES[2]], policy=policy)
    both = files([WAVES[2]], {**policy, "tolerate": {"failed": "4%", "download_failed": "5%"}})
    applied(world, *both)
    with world.store.writing() as w:
        w.link.run("UPDATE monitor SET from_place = 0 WHERE name LIKE ?", ("%@%",))
    offered = [each for each in (*east, *west) if world.check_in(each) is not None]
    failed = next(each for each in offered if each in east)
    world.report(failed, "failed")
    found = {each.monitor: each.bad for each in world.facts().monitors if each.segment == "label:site=east"}
    assert found == {"segment:label:site=east/failed": 1, "segment:label:site=east/failed@4%": 1}
    with world.store.reading() as r:
        assert list(r.check()) == []


def test_newcomers_are_numbered_over_the_rollouts_life(running: World) -> None:
    """Edit after edit takes less, and all of them together never more than the reserve."""
    for tolerance in ("3%", "2%", "1%", "1.5%"):
        both = files(policy={**POLICY, "tolerate": {"failed": tolerance, "download_failed": "5%"}})
        applied(running, *both, allow_wider=["canary"], reason="x")
    fresh = [each.spec.alpha for each in monitors(running) if "@" in each.spec.key]
    assert len(fresh) >= 4 and fresh == sorted(fresh, reverse=True)
    assert fresh == [newcomer_alpha(0.05, number + 1) for number in range(len(fresh))]
    assert sum(fresh) <= 0.05 * RESERVE_PART
    assert running.row().state.newcomers == len(fresh)
    holds(running)


def test_a_budget_keeps_its_count_under_a_new_limit(running: World) -> None:
    applied(running, *files(policy={**POLICY, "budget": {"failed": 20, "rolled_back": 7}}))
    found = {each.name: each for each in running.facts().budgets}
    assert (found["failed"].limit, found["failed"].bad) == (20, 1)
    assert (found["rolled_back"].limit, found["rolled_back"].bad) == (7, 0)
    holds(running)


def test_a_stricter_rule_that_would_stop_it_says_so_and_does(running: World) -> None:
    both = files(policy={**POLICY, "budget": {"failed": 1}})
    shown = applied(running, *both, yes=False)
    assert shown.edited is not None and shown.edited.would == "halt"
    assert running.row().state.status is RolloutStatus.RUNNING
    applied(running, *both)
    running.tick()
    assert running.row().state.status is RolloutStatus.HALTED
    holds(running)


# ------------------------------------------------------------------------------------------------- later waves


def test_later_waves_may_be_added_changed_and_removed(running: World) -> None:
    waves = [WAVES[0], {"wave": "few", "devices": {"count": 30}}, WAVES[2]]
    found = applied(running, *files(waves))
    state = running.row().state
    assert [(wave.wave, wave.status) for wave in state.waves] == [
        ("canary", WaveStatus.OPEN),
        ("few", WaveStatus.PENDING),
        ("rest", WaveStatus.PENDING),
    ]
    assert found.edited is not None
    words = [str(each) for each in found.edited.changes]
    assert "rollout: waves: canary, middle, rest becomes canary, few, rest" in words
    assert any(each.startswith("rollout: wave middle devices.share is gone") for each in words)
    scope = running.row().scope
    assert scope is not None and [each.wave for each in scope.selectors] == ["canary", "few", "rest"]
    with running.store.reading() as r:
        sizes = {
            name: r.look(scope, name, seen_since=running.now.replace(year=2020)).eligible for name in ("few", "rest")
        }
    # 40 devices of the fleet are the canary's; ten of those run the Target by now.
    assert sizes == {"few": 30, "rest": 170}
    running.tick()
    holds(running)


def test_the_bounds_of_waves_above_the_first_difference_stay(running: World) -> None:
    before = running.row().scope
    applied(running, *files([*WAVES[:2], {"wave": "few", "devices": {"count": 30}}, WAVES[2]]))
    after = running.row().scope
    assert before is not None and after is not None
    assert after.selectors[:2] == before.selectors[:2]
    assert after.selectors[2].bound is not None


def test_a_wave_that_is_prepared_and_changed_is_looked_at_again(running: World) -> None:
    running.tick()
    assert running.row().state.wave("middle").status is WaveStatus.PREPARING
    waves = [WAVES[0], {"wave": "middle", "devices": {"share": "10%"}}, WAVES[2]]
    running.now += timedelta(minutes=1)
    applied(running, *files(waves))
    wave = running.row().state.wave("middle")
    assert (wave.status, wave.asked_at, wave.granted_at) == (WaveStatus.PREPARING, None, running.now)
    running.tick()
    assert running.row().state.wave("middle").asked_at == running.now
    holds(running)


def test_what_waited_for_a_wave_that_is_gone_is_forgotten(running: World) -> None:
    """Its look at deltas stands in the outbox when the wave is removed: the tick lets it go."""
    running.tick()
    applied(running, *files([WAVES[0], WAVES[2]]))
    ticked = running.ticker.tick(running.now)
    assert ticked.problems == ()
    with running.store.reading() as r:
        assert [each for each in r.effects() if each.wave == "middle"] == []


# ------------------------------------------------------------------------------------------------- refused

WIDER: dict[str, Mapping[str, Any]] = {
    "bake.at_least": {**POLICY, "bake": {"at_least": "1h", "at_most": "48h"}},
    "bake.reports": {**POLICY, "bake": {"at_least": "12h", "at_most": "48h", "reports": "50%"}},
    "bake.at_most": {**POLICY, "bake": {"at_least": "12h", "at_most": "96h"}},
    "pace.in_flight": {**POLICY, "pace": {"in_flight": 500}},
    "tolerate": {**POLICY, "tolerate": {"failed": "8%", "download_failed": "5%"}},
    "silent_after": {**POLICY, "silent_after": "72h"},
    "slices.first": {**POLICY, "slices": {"first": 50, "growth": 2}},
    "slice_at_most": {**POLICY, "slice_at_most": "2h"},
    "reach": {**POLICY, "reach": "30d"},
    "budget failed": {**POLICY, "budget": {"failed": 60}},
}


@pytest.mark.parametrize("key", WIDER)
def test_loosening_a_wave_that_has_begun_needs_a_persons_word(running: World, key: str) -> None:
    both = files(policy=WIDER[key])
    before = running.row()
    with pytest.raises(Refused) as refused:
        applied(running, *both)
    assert f"{key} of wave canary" in refused.value.message
    assert refused.value.remedy is not None and "--allow-wider canary --reason TEXT" in refused.value.remedy
    with pytest.raises(InvalidInput, match="needs a reason"):
        applied(running, *both, allow_wider=["canary"])
    with pytest.raises(InvalidInput, match="has no wave nosuch"):
        applied(running, *both, allow_wider=["nosuch"], reason="x")
    assert running.row() == before
    found = applied(running, *both, allow_wider=["canary"], reason="meant")
    assert found.edited is not None and key in {each.key for each in found.edited.wider}
    assert journal(running)[-1].facts["wider"] == [str(each) for each in found.edited.wider]
    holds(running)


@pytest.mark.parametrize("key", ["tolerate", "silent_after", "budget failed"])
def test_what_passed_waves_have_shown_is_not_loosened_without_a_word(running: World, key: str) -> None:
    """Nothing is open; but the devices of the wave that has passed are evidence, and watched on."""
    manual = {**POLICY, "promote": "manual"}
    assert applied(running, *files(policy=manual)).written
    running.rollouts.complete(NAME, by="bo", wave="canary", reason="x")
    running.tick()
    assert running.row().state.wave("canary").status is WaveStatus.PASSED
    both = files(policy={**WIDER[key], "promote": "manual"})
    with pytest.raises(Refused) as refused:
        applied(running, *both)
    assert f"{key} of wave canary" in refused.value.message
    assert applied(running, *both, allow_wider=["canary"], reason="meant").written
    bake = {**manual, "bake": {"at_least": "1h", "at_most": "48h"}, "tolerate": both[1].document()["tolerate"]}
    assert applied(running, *files(policy={**WIDER[key], **bake})).written, "what has passed bakes no more"
    holds(running)


def test_tightening_needs_no_word(running: World) -> None:
    tighter = {
        **POLICY,
        "bake": {"at_least": "24h", "at_most": "48h", "reports": "99%"},
        "pace": {"in_flight": 100},
        "tolerate": {"failed": "4%", "download_failed": "5%"},
        "silent_after": "12h",
        "window": {"days": "daily", "hours": "09:00-16:00", "timezone": "UTC"},
        "offer_window": {"days": "daily", "hours": "09:00-16:00", "timezone": "UTC"},
    }
    found = applied(running, *files(policy=tighter))
    assert found.written and found.edited is not None and found.edited.wider == ()


FIXED: dict[str, Callable[[], tuple[RolloutFile, Policy]]] = {
    "`target` was fixed": lambda: files(target=43),
    "`supersedes` was fixed": lambda: files(supersedes="old"),
    "The devices of wave canary are fixed": lambda: files([{"wave": "canary", "devices": {"count": 60}}, *WAVES[1:]]),
    "Wave canary is open and stays": lambda: files(WAVES[1:]),
    "it cannot come after middle": lambda: files(
        [{**WAVES[0], "after": ["middle"]}, {**WAVES[1], "after": []}, {**WAVES[2], "after": ["canary"]}]
    ),
    "decides which devices that wave has": lambda: files(
        [{"wave": "first", "devices": {"count": 5}, "after": ["canary"]}, {**WAVES[0], "after": []}, *WAVES[1:]]
    ),
}


@pytest.mark.parametrize("why", FIXED)
def test_what_has_begun_is_fixed(running: World, why: str) -> None:
    running.target(43)
    before = running.row()
    with pytest.raises(Refused) as refused:
        applied(running, *FIXED[why](), allow_wider=["canary"], reason="meant")
    assert why in refused.value.message and refused.value.remedy
    assert running.row() == before


def _stopped(world: World) -> None:
    """Its downloads fail: the class holds, and its monitor has crossed."""
    devices = [f"dev-{number:04d}" for number in range(1, 241)]
    waiting = [each for each in devices if _offered(world, each)]
    for device in waiting:
        world.report(device, "download_failed")
    assert world.row().state.status is RolloutStatus.HELD
    assert [m.monitor for m in world.facts().monitors if m.crossed_at] == ["rollout/download_failed"]


def _offered(world: World, device: str) -> bool:
    with world.store.reading() as r:
        key = r.device(device)
        row = r.rollout(NAME)
        assert key is not None and row is not None
        update = r.update(row.key, key.key)
    return update is not None and not update.update.resolved


UNHALTING: dict[str, Mapping[str, Any]] = {
    "a tolerance above what was found": {**POLICY, "tolerate": {"failed": "5%", "download_failed": "90%"}},
    "a class that is only counted": {
        **POLICY,
        "tolerate": {"failed": "5%", "download_failed": {"at_most": "5%", "then": "count"}},
    },
}


@pytest.mark.parametrize("how", UNHALTING)
def test_a_crossed_monitor_is_never_uncrossed(running: World, how: str) -> None:
    """Not even with a person's word for wider rules: what stands against it is accepted by name."""
    _stopped(running)
    both = files(policy=UNHALTING[how])
    with pytest.raises(Refused) as refused:
        applied(running, *both, allow_wider=["canary"], reason="meant")
    assert "It would un-stop lmp-42" in refused.value.message
    assert "--accept rollout/download_failed" in (refused.value.remedy or "")
    running.rollouts.resume(NAME, by="anna", accept=["rollout/download_failed"], reason="a proxy was down")
    assert applied(running, *both, allow_wider=["canary"], reason="meant").written
    holds(running)


def test_a_reached_budget_is_not_raised_out_of_the_way(running: World) -> None:
    applied(running, *files(policy={**POLICY, "budget": {"failed": 1}}))
    for larger in (5, 100):
        with pytest.raises(Refused, match="budget/failed stands against it"):
            applied(
                running, *files(policy={**POLICY, "budget": {"failed": larger}}), allow_wider=["canary"], reason="x"
            )
    running.tick()
    assert running.row().state.status is RolloutStatus.HALTED
    with pytest.raises(WrongState, match="only one that is running, paused or held"):
        applied(running, *files())


@pytest.mark.parametrize("end", ["halt", "cancel", "complete"])
def test_one_that_has_stopped_or_ended_is_not_changed(running: World, end: str) -> None:
    getattr(running.rollouts, end)(NAME, by="anna")
    with pytest.raises(WrongState) as refused:
        applied(running, *files(policy={**POLICY, "tolerate": {"failed": "3%", "download_failed": "5%"}}))
    assert ("resume" in (refused.value.remedy or "")) == (end == "halt")


def test_another_live_rollout_keeps_its_devices(running: World) -> None:
    """A wave that is changed may not reach for devices that another rollout claims; nor is its own name in its way."""
    applied(running, *files([*WAVES[:2], {"wave": "most", "devices": {"share": "90%"}}, WAVES[2]]))
    holds(running)


def test_a_class_by_error_code_counts_from_the_edit_on_under_its_name(running: World) -> None:
    """What was counted as failed stays so. A new class begins its monitor from the reserve; that failures go there now
    loosens a wave that is open, so a person must mean it."""
    own = {"modem": {"match": ["NET-*"], "at_most": "10%", "then": "hold"}}
    both = files(policy={**POLICY, "tolerate": {**POLICY["tolerate"], "codes": own}})
    with pytest.raises(Refused, match=r"tolerate\.codes of wave canary: none becomes NET-\* in modem"):
        applied(running, *both)
    edited = applied(running, *both, allow_wider=["canary"], reason="the modems are known").edited
    assert edited is not None and "rollout/modem" in edited.begins
    key = running.row().key
    with running.store.reading() as r:
        begun = [name for name, each in r.list_updates(key) if not each.update.resolved]
    running.tick()
    running.report(begun[0], running.event("failed", code="NET-4"))
    canary = running.facts().waves[0]
    assert {each: canary.bad(each) for each in canary.bad_classes} == {"failed": 1, "modem": 1}
    with running.store.reading() as r:
        assert not r.check()
