"""Stories of segments: a board that fails is left out and named while the rest arrives; people do it by hand too."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import pytest

from orchestrator.core.offers import NoOfferKind
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import ReasonKind, RolloutStatus
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import InvalidInput, NotFound, Refused, WrongState
from orchestrator.services.records import EffectKind
from tests.stories.devices import Behaviour, Fate, Habits
from tests.stories.simulator import BY, Simulation

CM4 = "hardware_id=cm4"
WAVES = {"canary": {"share": "30%"}, "rest": "all"}
OFTEN = Habits(every=timedelta(hours=2))


class _Died(Exception):
    """The process, right after the commit."""


def half_of(board: str, seed: int) -> Behaviour:
    """Half of this board's devices cannot install; who, the seed says."""
    return lambda device, attempt: (
        Fate.FAILS if device.hardware_id == board and Random(f"{seed} {device.id}").random() < 0.5 else Fate.WELL
    )


def mixed(seed: int = 3, *, cm4: int = 40, habits: Habits | None = None, check_daily: bool = True) -> Simulation:
    """400 devices, of which so many are cm4 that half of them fail."""
    sim = Simulation(seed=seed, check_daily=check_daily)
    sim.enroll(400 - cm4, habits=habits)
    sim.enroll(cm4, hardware_id="cm4", habits=habits)
    sim.release(42, half_of("cm4", seed))
    return sim


def excluded(sim: Simulation) -> bool:
    return bool(sim.view().excluded)


def test_a_board_that_fails_is_left_out_and_the_rest_arrives() -> None:
    """Day 0: the canary opens; some cm4 fail and the board is left out by the report that proves it. Day 1: the canary
    passes without it. Day 2: all others run the Target, and no further cm4 was offered anything."""
    sim = mixed()
    sim.begin(WAVES)
    sim.run(days=1, until=lambda: excluded(sim))
    (entry,) = sim.journal(event="excluded")
    assert entry.by == "policy" and entry.sentence.startswith("Segment hardware_id=cm4 with its 40 devices is excluded")
    sim.run(days=5, until=sim.is_("completed")).check()
    assert {device.hardware_id for device in sim.running(41)} == {"cm4"}
    assert len([device for device in sim.running(42) if device.hardware_id == "rpi4"]) == 360
    board = [offer for offer in sim.offers if sim.fleet[offer.device].hardware_id == "cm4"]
    assert all(offer.at <= entry.at for offer in board) and len(board) <= 20
    for wave in ("canary", "rest"):
        assert sim.wave(wave).bad(OutcomeClass.FAILED) == 0, "the rest's figures are the rest's"
    (left_out,) = sim.view().excluded
    assert (left_out.segment, left_out.devices, left_out.standing.reason.kind) == (CM4, 40, ReasonKind.SEGMENT)
    someone = next(device for device in sim.running(41) if device.id not in sim.offered())
    (why,) = sim.queries.device(someone.id).rollouts
    assert why.kind == NoOfferKind.EXCLUDED and CM4 in why.sentence


def test_the_report_that_proves_it_excludes_within_its_own_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tick comes between: a cm4 that asks in the same instant is told *none*, an rpi4 its offer."""
    sim = mixed(habits=OFTEN, check_daily=False)
    sim.begin({"all": "all"})
    report, asked = sim.report, []

    def reporting(device, events) -> None:
        before = excluded(sim)
        report(device, events)
        if excluded(sim) and not before:
            waits = [each for each in sim.fleet.values() if each.id not in sim.offered()]
            board = next(each for each in waits if each.hardware_id == "cm4")
            asked.append((sim.now, sim.check_in(board)))

    monkeypatch.setattr(sim, "report", reporting)
    sim.run(days=2, until=lambda: excluded(sim))
    (entry,) = sim.journal(event="excluded")
    assert asked == [(entry.at, None)]


def test_offers_of_the_segment_are_withdrawn_and_those_who_started_may_finish() -> None:
    sim = mixed(habits=OFTEN)
    sim.begin({"all": "all"})
    sim.run(days=2, until=lambda: excluded(sim))
    sim.run(hours=12).check()
    mine = [(name, row) for name, row in sim.queries.updates("r42", limit=500) if row.hardware_id == "cm4"]
    assert mine and all(row.excluded for _, row in mine)
    ended = {UpdateStatus.WITHDRAWN, UpdateStatus.FAILED, UpdateStatus.CONFIRMED}
    assert {row.update.status for _, row in mine} <= ended
    assert sum(wave.facts.offered for wave in sim.view().waves) == len(sim.offers) - len(mine)
    failed = next(name for name, row in mine if row.update.bad_outcome)
    with pytest.raises(Refused, match="is excluded"):
        sim.rollouts.retry("r42", [failed], by=BY)


def test_too_large_a_segment_halts_and_a_person_who_accepts_goes_on_with_it() -> None:
    """A quarter of the fleet: more than the fifth that may be excluded."""
    sim = mixed(seed=2, cm4=100)
    sim.release(43, Fate.WELL)
    sim.begin(WAVES, own={"tolerate": {"failed": "20%"}, "budget": {"failed": 300}})
    sim.run(days=4, until=sim.is_("halted"))
    standing = sim.view().summary.standing
    assert standing.reason.kind in (ReasonKind.SEGMENT, ReasonKind.MONITOR) and CM4 in standing.reason.sentence
    assert not sim.view().excluded
    crossed = [m.monitor for m in sim.view().monitors if m.crossed_at and not m.accepted]
    with pytest.raises(Refused, match="was stopped by"):
        sim.rollouts.resume("r42", by=BY)
    sim.rollouts.resume("r42", by=BY, accept=crossed, reason="seen on the bench, harmless")
    sim.run(hours=3).check()
    assert sim.view().attempt == 2


def test_the_policy_may_ask_for_a_halt_instead() -> None:
    sim = mixed()
    sim.begin(WAVES, own={"on_segment": "halt"})
    sim.run(days=3, until=sim.is_("halted"))
    assert CM4 in sim.view().summary.standing.reason.sentence and not sim.view().excluded


def test_without_segments_nothing_is_left_out() -> None:
    sim = mixed(check_daily=False)
    sim.begin(WAVES, own={"segments": []})
    sim.run(days=6)
    assert not sim.view().excluded and not any(m.segment for m in sim.view().monitors)
    sim.check()


def test_a_board_that_comes_later_is_watched_from_then_on() -> None:
    """Day 0: no cm4 exists. Day 1: thirty are delivered, and half of them fail."""
    sim = mixed(seed=5, cm4=0)
    sim.release(42, half_of("cm4", 5), hardware_ids=("cm4",))
    sim.begin({"canary": {"share": "10%"}, "rest": "all"}, own={"budget": {"failed": 100}})
    sim.run(days=1)
    sim.enroll(30, hardware_id="cm4", known=False)
    sim.run(days=9, until=lambda: excluded(sim) or sim.status() is not RolloutStatus.RUNNING)
    with sim.store.reading() as r:
        row = r.rollout("r42")
        assert row is not None
        newcomers = [m.spec for m in r.monitors(row.key) if m.spec.segment and not m.spec.devices]
    assert {spec.segment for spec in newcomers} >= {CM4}
    sim.check()


def test_a_wave_of_nobody_but_the_excluded_waits_for_a_person() -> None:
    """Its own board was left out by hand before it opened: it holds as empty, and the others go on around it."""
    sim = mixed(habits=OFTEN)
    sim.enroll(20, hardware_id="cm4", group="bench", habits=OFTEN)
    sim.release(42, Fate.WELL)
    sim.begin({"bench": {"group": "bench"}, "rest": {"devices": "all", "after": []}})
    sim.rollouts.exclude("r42", CM4, by=BY, reason="waits for its loader")
    sim.run(days=1, until=sim.held("bench")).check()
    hold = sim.view().waves[0].state.hold
    assert hold is not None and hold.reason.kind is ReasonKind.EMPTY
    sim.rollouts.skip("r42", "bench", by=BY)
    sim.run(days=5, until=sim.is_("completed")).check()
    assert {device.hardware_id for device in sim.running(41)} == {"cm4"}


def test_a_person_leaves_a_segment_out_and_takes_it_back_in() -> None:
    """Hour 3: cm4 is left out by hand, shown first. Day 3: the canary has passed without it; it is taken back in, and
    in the end every device runs the Target: who had a place comes back to it, who was passed over in a later slice."""
    sim = mixed(habits=OFTEN)
    sim.release(42, Fate.WELL)
    sim.begin(WAVES)
    sim.run(hours=3)
    shown = sim.rollouts.exclude("r42", CM4, by=BY, reason="dark screens in the field", dry_run=True)
    assert shown.sentence.startswith("Segment hardware_id=cm4 of rollout r42 is excluded: its 40 devices")
    assert "offers not started will be withdrawn" in shown.sentence
    assert not excluded(sim) and not sim.journal(event="excluded")
    sim.rollouts.exclude("r42", CM4, by=BY, reason="dark screens in the field")
    (entry,) = sim.journal(event="excluded")
    assert (entry.by, entry.sentence) == (BY, "Segment hardware_id=cm4 excluded by ann: dark screens in the field.")
    sim.run(days=3, until=sim.wave_is("canary", "passed")).check()
    offered = {device for device in sim.offered() if sim.fleet[device].hardware_id == "cm4"}
    back = sim.rollouts.include("r42", CM4, by=BY, reason="it was the cable")
    assert "is taken back in" in back.sentence and sim.view().attempt == 2
    sim.run(days=9, until=lambda: len(sim.running(42)) == 400).check()
    assert offered < {device for device in sim.offered() if sim.fleet[device].hardware_id == "cm4"}
    assert not excluded(sim) and sim.status() in (RolloutStatus.RUNNING, RolloutStatus.COMPLETED)


def test_what_cannot_be_left_out_is_refused_with_what_can() -> None:
    sim = mixed(check_daily=False)
    sim.apply(WAVES)
    with pytest.raises(WrongState, match="is draft"):
        sim.rollouts.exclude("r42", CM4, by=BY, reason="x")
    sim.rollouts.start("r42", by=BY)
    with pytest.raises(InvalidInput, match="needs a reason"):
        sim.rollouts.exclude("r42", CM4, by=BY, reason=" ")
    with pytest.raises(InvalidInput, match="is no segment of rollout r42"):
        sim.rollouts.exclude("r42", "cm4", by=BY, reason="x")
    with pytest.raises(InvalidInput, match="is no segment of rollout r42"):
        sim.rollouts.exclude("r42", "label:site=7", by=BY, reason="x")
    with pytest.raises(NotFound, match="has no device in hardware_id=cm5") as refused:
        sim.rollouts.exclude("r42", "hardware_id=cm5", by=BY, reason="x")
    assert "hardware_id=rpi4, hardware_id=cm4" in str(refused.value.remedy)
    with pytest.raises(WrongState, match="is not excluded; excluded: none"):
        sim.rollouts.include("r42", CM4, by=BY, reason="x")
    sim.rollouts.exclude("r42", CM4, by=BY, reason="x")
    with pytest.raises(WrongState, match="excluded already"):
        sim.rollouts.exclude("r42", CM4, by=BY, reason="x")
    sim.check()


def test_a_crash_between_the_exclusion_and_its_withdrawals_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox keeps what is to be done; until it is done the doors are no more open than before."""
    sim = mixed(habits=OFTEN, check_daily=False)
    sim.begin(WAVES)
    report = sim.report

    def dying(device, events) -> None:
        before = excluded(sim)
        report(device, events)
        if excluded(sim) and not before:
            sim.restart()
            raise _Died

    monkeypatch.setattr(sim, "report", dying)
    with pytest.raises(_Died):
        sim.run(days=2)
    monkeypatch.undo()
    with sim.store.reading() as r:
        assert EffectKind.LEAVE_OUT in {effect.kind for effect in r.effects()}
    asked: list[datetime] = []
    for device in [each for each in sim.fleet.values() if each.hardware_id == "cm4"]:
        if device.id not in sim.offered():
            assert sim.check_in(device) is None
            asked.append(sim.now)
    assert asked
    sim.run(days=5, until=sim.is_("completed")).check()


def test_a_small_canary_passes_without_the_devices_that_were_left_out() -> None:
    """A third of the canary of 20 is of a board that is left out while the wave bakes. The door then asks for four
    fifths of those that remain; the devices left out cannot confirm, and are not waited for."""
    sim = mixed(cm4=130, habits=OFTEN)
    sim.release(42, Fate.WELL)
    sim.begin({"canary": {"count": 20, "spread": "hardware_id"}, "rest": "all"})
    sim.run(days=2, until=sim.wave_is("canary", "baking"))
    sim.rollouts.exclude("r42", CM4, by=BY, reason="dark screens in the field")
    assert sim.wave("canary").reachable < 16 < sim.wave("canary").members
    sim.run(days=3, until=sim.wave_is("canary", "passed")).check()
