"""Stories of outcome classes: failures told apart by their error codes, each with its own tolerance and answer; what is
never overturned and what is, once; devices that were unhealthy before."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.render import explain
from orchestrator.cli.render.rollout import rollout as status_page
from orchestrator.core.evidence.log import Line, parsed
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import UpdateStatus
from orchestrator.services.records import UpdateRow
from orchestrator.services.replaying import Replayer
from tests.stories.content import commit_of
from tests.stories.devices import Fate, Habits, SimDevice, by_chance
from tests.stories.fleets import WAVES, company
from tests.stories.simulator import Simulation

FORGIVING: dict[str, Any] = {"failed": "20%", "rolled_back": "20%"}
"""Tolerances that these stories' failures never go over."""

UNLIMITED = {"failed": "90%", "rolled_back": "90%"}


def modem(then: str, at_most: str = "1%") -> dict[str, Any]:
    return {"modem": {"match": ["NET-*", "E17"], "at_most": at_most, "then": then}}


def under(codes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tolerate": {**FORGIVING, "codes": codes}, "budget": UNLIMITED, **more}


def coded(sim: Simulation, code: str) -> Simulation:
    for device in sim.fleet.values():
        device.code = code
    return sim


def fleet(**habits: Any) -> Simulation:
    """300 devices that ask every hour."""
    sim = Simulation(seed=5)
    sim.enroll(300, habits=Habits(every=timedelta(hours=1), **habits))
    return sim


TWO: dict[str, Any] = {"first": {"share": "40%"}, "rest": "all"}
"""Waves large enough that one in three may fail."""


def updates(sim: Simulation) -> dict[str, UpdateRow]:
    with sim.store.reading() as r:
        row = r.rollout("r42")
        assert row is not None
        return dict(r.list_updates(row.key, limit=10_000))


def log(sim: Simulation) -> list[Line]:
    with sim.store.reading() as r:
        row = r.rollout("r42")
        assert row is not None
        return [parsed(line) for _, line in r.evidence_lines(row.key, limit=100_000)]


def pages(sim: Simulation) -> str:
    """What ``wave status`` and ``wave explain`` print."""
    out = io.StringIO()
    console = Console(file=out, width=200, color_system=None)
    for page in (status_page, explain.rollout):
        console.print(page(sim.view(), sim.now))
    return out.getvalue()


# ------------------------------------------------------------------------------------------------- by error code


def failing_with_net_7(codes: dict[str, Any]) -> Simulation:
    sim = coded(fleet(), "NET-7")
    sim.release(42, by_chance(fails=0.1))
    sim.begin(TWO, policy="accelerated", own=under(codes))
    return sim


def test_a_class_of_the_operators_own_holds_where_failed_would_not() -> None:
    """One device in ten says NET-7. With a class for it that tolerates 1 % and holds, the rollout waits for a person
    before half of the fleet has it; as mere failures, of which 20 % are tolerated, all waves pass."""
    sim = failing_with_net_7(modem("hold"))
    sim.run(days=4, until=sim.is_("held"))
    sim.check()
    (held,) = sim.journal(event="held")
    assert "modem within the first" in held.sentence and "tolerance of 1 %" in held.sentence
    monitor = next(each for each in held.facts["monitors"] if each["monitor"] == "rollout/modem")
    assert monitor["outcomes"] == ["modem"] and monitor["bad"] >= 2
    assert len(sim.offers) < 150
    shown = pages(sim)
    assert "rollout/modem" in shown and "own_1" not in shown
    assert "--accept rollout/modem" in shown

    plain = failing_with_net_7({})
    plain.run(days=4, until=plain.is_("completed"))
    assert not plain.journal(event="held") and not plain.journal(event="halted")


def test_a_person_accepts_a_class_by_its_name() -> None:
    sim = failing_with_net_7(modem("hold"))
    sim.run(days=4, until=sim.is_("held"))
    accepted = [
        *(each.monitor for each in sim.view().monitors if each.crossed_at is not None),
        *(f"budget/{each.name}" for each in sim.view().budgets if each.reached),
    ]
    assert "rollout/modem" in accepted
    sim.rollouts.resume("r42", by="ann", accept=accepted, reason="the modems are known")
    assert sim.status() is RolloutStatus.RUNNING
    sim.run(days=1).check()


def test_a_class_that_halts_stops_the_rollout_by_its_name() -> None:
    sim = coded(company(), "E17")
    sim.release(42, Fate.FAILS)
    sim.begin(WAVES, own=under(modem("halt")))
    sim.run(days=2, until=sim.is_("halted"))
    sim.check()
    assert "modem" in sim.journal(event="halted")[0].sentence
    assert sum(device.failed for device in sim.fleet.values()) <= 20


def test_a_class_that_only_counts_stops_nothing() -> None:
    """A third of the fleet fails with a code that the operator only counts: every wave passes, and the count is
    shown."""
    sim = coded(fleet(), "E17")
    sim.release(42, by_chance(fails=0.3))
    sim.begin(TWO, policy="accelerated", own={"tolerate": {"codes": modem("count")}})
    sim.run(days=4, until=sim.is_("completed"))
    sim.check()
    assert not sim.journal(event="held") and not sim.journal(event="halted")
    bad = Counter(each for row in updates(sim).values() for each in row.update.bad)
    assert bad["modem"] > 60 and bad[OutcomeClass.FAILED] == 0
    assert f"{sum(wave.facts.bad('modem') for wave in sim.view().waves)}" == f"{bad['modem']}"
    assert any("modem" in entry.sentence for entry in sim.journal(event="passed"))


def test_a_budget_by_the_classes_name_stops_it() -> None:
    sim = coded(company(), "NET-1")
    sim.release(42, by_chance(fails=0.3))
    sim.begin(WAVES, own=under(modem("count"), budget={**UNLIMITED, "codes": {"modem": 4}}))
    sim.run(days=3, until=sim.is_("halted"))
    sim.check()
    assert "counted as modem" in sim.journal(event="halted")[0].sentence


def test_downloads_by_code_are_no_end_and_the_device_tries_again() -> None:
    """The first download of each breaks with NET-9, the second works: counted in the class, and confirmed."""
    sim = coded(company(), "NET-9")
    sim.release(42, Fate.SHAKY_NETWORK)
    sim.begin({"all": "all"}, own=under(modem("count")))
    sim.run(days=6).check()
    rows = [row.update for row in updates(sim).values() if row.update.confirmed_at is not None]
    assert rows and all(update.bad == {"modem"} and update.counts_as_confirmed for update in rows)
    assert sum(wave.facts.confirmed for wave in sim.view().waves) == len(rows)


@pytest.mark.parametrize("named", [True, False])
def test_a_failed_verification_is_a_class_where_it_is_named(named: bool) -> None:
    sim = company()
    sim.release(42, Fate.VERIFY_FAILS)
    sim.begin(WAVES, own={"tolerate": {"verify_failed": "0.5%"}} if named else {})
    sim.run(days=2, until=sim.is_("halted"))
    sim.check()
    of = "verify_failed" if named else "failed"
    assert {each for row in updates(sim).values() for each in row.update.bad} == {of}
    assert of.replace("_", " ") in sim.journal(event="halted")[0].sentence


def test_another_policy_judges_what_it_does_not_tell_apart_as_failed() -> None:
    """Replayed under ``standard``, which knows no modem: those failures are failures, and halt."""
    sim = coded(fleet(), "E17")
    sim.release(42, by_chance(fails=0.3))
    sim.begin(TWO, policy="accelerated", own={"tolerate": {"codes": modem("count")}})
    sim.run(days=2)
    other = Policy.parse({"policy": "other"})
    found = Replayer(sim.store).replay("r42", policy=other)
    assert found.stopped is None and found.would_stop is not None
    assert "failed within the first" in found.would_stop.sentence


# ------------------------------------------------------------------------------------------------- overturned or not


def test_a_confirmation_is_overturned_once_by_a_later_rollback() -> None:
    """They run 42 for a day and say so; then they fall back with E17, and send each report twice in any order."""
    sim = coded(company(habits=Habits(twice=True)), "E17")
    sim.release(42, Fate.ROLLS_BACK_LATER)
    sim.begin({"all": "all"}, own=under(modem("count")))
    sim.run(days=5).check()
    back = {name: row for name, row in updates(sim).items() if row.update.status is UpdateStatus.ROLLED_BACK}
    assert len(back) >= 20
    for row in back.values():
        assert row.update.bad == {"modem"} and row.update.confirmed_at is not None
        assert not row.update.counts_as_confirmed
    of_each = Counter((line.device_key, line.outcome) for line in log(sim))
    assert set(of_each.values()) == {1}, "each outcome of a device is counted once"
    keys = {row.device_key for row in back.values()}
    assert all(of_each[key, "confirmed"] == of_each[key, "modem"] == 1 for key in keys)
    confirmed = sum(row.update.counts_as_confirmed for row in updates(sim).values())
    assert sum(wave.facts.confirmed for wave in sim.view().waves) == confirmed


def test_a_failure_is_never_overturned() -> None:
    """They fail with E17; a technician writes 42 onto each all the same. It runs, and the failure stays."""
    sim = coded(company(), "E17")
    sim.release(42, Fate.FAILS)
    sim.begin(WAVES, own=under(modem("count")))
    sim.run(days=1)
    broken = [device for device in sim.fleet.values() if device.failed]
    for device in broken:
        device.commit, device.version = commit_of(device.hardware_id, 42), 42
    sim.run(days=1).check()
    found = updates(sim)
    assert len(broken) >= 20
    for device in broken:
        update = found[device.id].update
        assert update.status is UpdateStatus.FAILED and update.bad == {"modem"}
        assert update.recovered_at is not None and not update.counts_as_confirmed
    assert sum(wave.facts.confirmed for wave in sim.view().waves) == 0


# ------------------------------------------------------------------------------------------------- unhealthy before


def ailing(devices: Iterable[SimDevice]) -> set[str]:
    """Every third says at each check-in that it is not well, and will fail."""
    sick = [device for number, device in enumerate(devices) if number % 3 == 0]
    for device in sick:
        device.healthy = False
    return {device.id for device in sick}


def with_sick_devices(rule: str) -> tuple[Simulation, set[str]]:
    sim = fleet()
    sick = ailing(sim.fleet.values())
    sim.release(42, lambda device, attempt: Fate.FAILS if device.id in sick else Fate.WELL)
    sim.begin(TWO, policy="accelerated", own={"unhealthy_before": rule})
    return sim, sick


def test_who_was_unhealthy_before_is_not_counted_where_the_policy_says_so() -> None:
    """Every third device was unhealthy before and fails. None of that is the release's doing: all waves pass, no
    monitor and no budget has moved, and how many there were is said apart."""
    sim, sick = with_sick_devices("exclude")
    sim.run(days=4, until=sim.is_("completed"))
    sim.run(days=1).check()
    view, found = sim.view(), updates(sim)
    failed = [row for name, row in found.items() if name in sick and OutcomeClass.FAILED in row.update.bad]
    assert len(failed) > 60 and all(row.apart and row.unhealthy_before for row in failed)
    assert all(monitor.bad == 0 for monitor in view.monitors) and all(budget.bad == 0 for budget in view.budgets)
    assert all(wave.facts.bad_in_all == 0 for wave in view.waves)
    assert view.apart.bad == {OutcomeClass.FAILED: len(failed)} and view.apart.offered >= len(failed)
    assert {line.outcome for line in log(sim)} == {"confirmed", "apart/failed"}
    said = f"{view.apart.offered} devices were unhealthy before and are not counted: {len(failed)} failed"
    assert pages(sim).count(said) == 2
    assert any("unhealthy before and" in entry.sentence for entry in sim.journal(event="passed"))
    looks = [entry.facts["waves"] for entry in sim.journal() if "decided" in entry.facts]
    seen = sum(piece["apart"]["bad"].get("failed", 0) for piece in looks[-1][0]["slices"])
    assert seen == view.waves[0].facts.apart.bad[OutcomeClass.FAILED]


def test_they_count_like_all_others_where_it_does_not() -> None:
    sim, sick = with_sick_devices("count")
    sim.run(days=2, until=sim.is_("halted"))
    sim.check()
    assert all(not row.apart for row in updates(sim).values())
    assert any(row.unhealthy_before for name, row in updates(sim).items() if name in sick)


def test_the_door_does_not_wait_for_them() -> None:
    """Every third was unhealthy before and is never heard of again: the others alone decide, and all waves pass."""
    sim = fleet()
    sick = ailing(sim.fleet.values())
    sim.release(42, lambda device, attempt: Fate.BRICKS if device.id in sick else Fate.WELL)
    sim.begin(TWO, policy="accelerated", own={"unhealthy_before": "exclude"})
    sim.run(days=6, until=sim.is_("completed"))
    sim.run(days=1)
    sim.check()
    assert sim.view().apart.bad.get(OutcomeClass.SILENT, 0) > 20


def test_where_all_were_unhealthy_nobody_is_at_risk_unseen() -> None:
    """Nothing of them is counted, and still no second slice opens before three in four of the first had an
    outcome: a fault in what finds them unhealthy must not give the release to everybody at once."""
    sim = company()
    for device in sim.fleet.values():
        device.healthy = False
    sim.release(42, Fate.BRICKS)
    sim.begin({"all": "all"}, own={"unhealthy_before": "exclude", "silent_after": "4d"})
    sim.run(days=3).check()
    assert len(sim.offers) == 20
    assert "all unhealthy before" in pages(sim) or sim.journal(event="wave_held")


def test_one_that_recovers_before_its_offer_counts() -> None:
    """What it said at the offer holds, not what it says later."""
    sim = company()
    lab = [device for device in sim.fleet.values() if device.group == "lab"]
    for device in lab:
        device.healthy = False
    sim.release(42)
    sim.begin(WAVES, own={"unhealthy_before": "exclude"})
    for device in lab[:12]:
        device.healthy = True
    sim.run(days=1)
    for device in lab:
        device.healthy = not device.healthy
    sim.run(days=1).check()
    found = updates(sim)
    assert {device.id for device in lab if found[device.id].apart} == {device.id for device in lab[12:]}
