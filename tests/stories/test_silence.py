"""Silence by the fleet's own clock: what earlier releases teach, what bricks is stopped by, what is left alone.

Every story begins alike. Hour 0: 300 devices that ask every four minutes; version 42 comes to all of them, and from it
the clock of version 43 is learnt. Some hours later: version 43.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from orchestrator.core.states import ReasonKind, RolloutStatus
from orchestrator.errors import Refused
from tests.stories.devices import Behaviour, Fate, Habits, SimDevice, everywhere
from tests.stories.simulator import BY, Simulation

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SHIPPED = {"window": "always"}
"""The shipped ``standard`` but for its office hours."""
HABITS = Habits(every=4 * MINUTE, download=2 * MINUTE, install=4 * MINUTE, reboot=MINUTE)
OWN = {
    "tolerate": {"silent": {"at_most": "2%", "then": "halt"}},
    "silent_after": "2h",
    "bake": {"at_least": "10m", "at_most": "1d"},
    "window": "always",
}
WAVES = {"canary": {"count": 20}, "rest": "all"}


def fleet(*, history: bool = True, own: dict | None = None, habits: Habits = HABITS) -> Simulation:
    """300 devices, which 42 has brought up to date some hours ago, or which nobody has ever updated."""
    sim = Simulation(check_daily=False)
    sim.content.seconds = 1.0
    sim.enroll(300, habits=habits)
    if history:
        sim.release(42)
        sim.begin({"all": "all"}, own=own or OWN)
        sim.run(hours=12, until=sim.is_("completed"))
        sim.run(hours=3)
    return sim


def second(sim: Simulation, fate: Fate | Behaviour, own: dict | None = None) -> None:
    sim.release(43, everywhere(fate) if isinstance(fate, Fate) else fate)
    sim.begin(WAVES, name="r43", target=43, own=own or OWN)


def installing(sim: Simulation) -> list[datetime]:
    """When the devices of 43 began to install, as the server heard it."""
    with sim.store.reading() as r:
        row = r.rollout("r43")
        assert row is not None
        found = [update.update.installing_at for _, update in r.list_updates(row.key, limit=1_000)]
    return sorted(at for at in found if at is not None)


def ended(sim: Simulation) -> tuple[ReasonKind, str]:
    reason = sim.view("r43").summary.standing.reason
    return reason.kind, reason.sentence


# ------------------------------------------------------------------------------------------------- what it stops


def test_twenty_bricked_canaries_halt_within_a_quarter_of_an_hour_of_the_last_start() -> None:
    sim = fleet()
    second(sim, Fate.BRICKS)
    sim.run(hours=3, until=sim.is_("halted", "r43"))
    starts = installing(sim)
    assert len(starts) == 20
    assert sim.now - starts[-1] <= 15 * MINUTE
    kind, sentence = ended(sim)
    assert kind is ReasonKind.SILENCE
    assert "devices were not heard of" in sentence and "in earlier releases" in sentence and "(limit" in sentence
    (started,) = sim.journal("r43", "started")
    assert started.facts["clock"]["devices"] == 300
    assert len(started.facts["clock"]["digest"]) == 64
    (halted,) = sim.journal("r43", "halted")
    assert halted.facts["clock"]["seen"], "the journal keeps what it was decided from"
    sim.check()


def with_a_board(own: dict, fate: Behaviour) -> Simulation:
    """245 rpi4 and 55 cm4, which 42 has brought up to date; then comes 43, in one wave."""
    sim = Simulation(check_daily=False)
    sim.content.seconds = 1.0
    sim.enroll(245, habits=HABITS)
    sim.enroll(55, hardware_id="cm4", habits=HABITS)
    sim.release(42)
    sim.begin({"all": "all"}, own=own)
    sim.run(hours=12, until=sim.is_("completed"))
    sim.run(hours=3)
    sim.release(43, fate)
    sim.begin({"all": "all"}, name="r43", target=43, own=own)
    return sim


def bricks_cm4(device: SimDevice, attempt: int) -> Fate:
    return Fate.BRICKS if device.hardware_id == "cm4" else Fate.WELL


WATCHED = {**OWN, "segments": ["hardware_id"]}


def test_a_board_that_bricks_silently_is_left_out_and_the_rest_arrives() -> None:
    """Long before a cm4 is silent by the hard stop the fleet's clock crosses: all its evidence is the cm4's, so they
    are left out by it, and every rpi4 runs the Target that day."""
    sim = with_a_board(WATCHED, bricks_cm4)
    sim.run(hours=2, until=lambda: bool(sim.view("r43").excluded))
    (left_out,) = sim.view("r43").excluded
    assert left_out.segment == "hardware_id=cm4" and left_out.standing.reason.kind is ReasonKind.SEGMENT
    said = left_out.standing.reason.sentence
    assert said.startswith("Segment hardware_id=cm4 with its 55 devices is excluded; the rest goes on.")
    assert "15 of 88 devices were not heard of 14 min after installing began" in said and "(limit 15)" in said
    assert "Segment hardware_id=cm4 carries the failures: 15 of 15 devices silent after 14 min" in said
    bricked = {device.id for device in sim.fleet.values() if device.hardware_id == "cm4"} & set(sim.offered("r43"))
    assert len(bricked) < 55, "who was not offered it yet never is"
    sim.run(hours=24, until=sim.is_("completed", "r43")).check()
    assert len([device for device in sim.running(43) if device.hardware_id == "rpi4"]) == 245
    (entry,) = sim.journal("r43", "excluded")
    assert dict(entry.facts["clock"]["boards"])["cm4"] == 55


@pytest.mark.parametrize(
    "own", [{**WATCHED, "on_segment": "halt"}, {**WATCHED, "escalate_over": "5%"}, {**OWN, "segments": []}]
)
def test_where_the_board_may_not_be_left_out_the_halt_names_it(own: dict) -> None:
    sim = with_a_board(own, bricks_cm4)
    sim.run(hours=2, until=sim.is_("halted", "r43"))
    kind, sentence = ended(sim)
    assert kind is ReasonKind.SILENCE
    assert "Segment hardware_id=cm4 carries the failures:" in sentence
    assert ("more than the 5 % that may be excluded" in sentence) == ("escalate_over" in own)
    sim.check()


def test_a_release_that_bricks_everything_halts_however_many_boards_are_watched() -> None:
    sim = with_a_board(WATCHED, everywhere(Fate.BRICKS))
    sim.run(hours=3, until=sim.is_("halted", "r43"))
    assert not sim.view("r43").excluded
    assert ended(sim)[0] is ReasonKind.SILENCE and "carries" not in ended(sim)[1]


def test_what_bricks_is_held_where_the_policy_says_so() -> None:
    own = {**OWN, "tolerate": {"silent": {"at_most": "2%", "then": "hold"}}}
    sim = fleet(own=own)
    second(sim, Fate.BRICKS, own)
    sim.run(hours=3, until=sim.is_("held", "r43"))
    assert ended(sim)[0] is ReasonKind.SILENCE
    with pytest.raises(Refused, match="clock/silent"):
        sim.rollouts.resume("r43", by=BY)


def test_a_person_accepts_the_silence_and_it_begins_anew() -> None:
    """The 20 stay dark, and are no evidence any more."""
    sim = fleet()
    second(sim, Fate.BRICKS)
    sim.run(hours=3, until=sim.is_("halted", "r43"))
    with pytest.raises(Refused, match="clock/silent"):
        sim.rollouts.resume("r43", by=BY)
    sim.rollouts.resume("r43", by=BY, accept=["clock/silent"], reason="They were unplugged.")
    sim.run(hours=1)
    assert sim.status("r43") is RolloutStatus.RUNNING, sim.told()
    sim.check()


def test_the_shipped_standard_halts_for_twenty_bricked_canaries_within_a_quarter_of_an_hour() -> None:
    """It does not name silence: once the clock is learnt, that is a third class that halts."""
    sim = fleet()
    sim.run(hours=30)
    second(sim, Fate.BRICKS, SHIPPED)
    sim.run(hours=3, until=sim.is_("halted", "r43"))
    starts = installing(sim)
    assert len(starts) == 20
    assert sim.now - starts[-1] <= 15 * MINUTE
    assert ended(sim)[0] is ReasonKind.SILENCE
    (started,) = sim.journal("r43", "started")
    clock = started.facts["clock"]
    assert (clock["tolerance"], clock["answer"]) == (0.02, "halt")
    assert 0.0 < clock["dark"]["fleet"] <= clock["dark"]["segment"] < 0.05
    view = sim.view("r43")
    watching = {each.monitor: each for each in view.monitors if each.wave is None and each.segment is None}
    assert {name for name, each in watching.items() if each.answer is Answer.HALT} == {
        "rollout/failed",
        "rollout/rolled_back",
        "rollout/silent",
    }
    silent = watching["rollout/silent"]
    assert silent.tolerance == Tolerance(0.02).over(clock["dark"]["fleet"]).at_most
    assert silent.alpha == watching["rollout/failed"].alpha
    assert view.clock is not None and view.clock.dark == clock["dark"]["fleet"]
    sim.check()


def test_what_a_policy_names_is_enforced_on_top_of_what_was_learnt() -> None:
    own = {**OWN, "tolerate": {"silent": {"at_most": "3%", "then": "hold"}}}
    sim = fleet(own=own)
    second(sim, Fate.WELL, own)
    clock = sim.journal("r43", "started")[0].facts["clock"]
    (silent,) = [each for each in sim.view("r43").monitors if each.monitor == "rollout/silent"]
    assert silent.answer is Answer.HOLD
    assert silent.tolerance == Tolerance(0.03).over(clock["dark"]["fleet"]).at_most
    (before,) = [each for each in sim.view("r42").monitors if each.monitor == "rollout/silent"]
    assert before.tolerance == 0.03, "then nothing was learnt yet"


# ------------------------------------------------------------------------------------------------- what it leaves alone


def test_a_fleet_of_which_a_part_is_always_dark_gets_a_good_release() -> None:
    """One device in 33 never comes back from an update, whatever the version: each time another one."""

    def losing(rest: int) -> Behaviour:
        return lambda device, attempt: Fate.BRICKS if int(device.id[-4:]) % 33 == rest else Fate.WELL

    sim = Simulation(check_daily=False)
    sim.content.seconds = 1.0
    sim.enroll(300, habits=HABITS)
    sim.release(42, losing(7))
    own = {key: value for key, value in OWN.items() if key != "tolerate"}
    own["bake"] = {"at_least": "3h", "at_most": "1d"}  # so that the hard stop has come before a wave passes
    sim.begin({"all": "all"}, own=own)
    sim.run(hours=12, until=sim.is_("completed"))
    sim.run(hours=3)
    second(sim, losing(20), own)
    sim.run(hours=24, until=sim.is_("completed", "r43"))
    assert sim.status("r43") is RolloutStatus.COMPLETED, sim.told()
    assert not sim.journal("r43", "halted") and not sim.journal("r43", "held")
    assert sum(wave.facts.bad(OutcomeClass.SILENT) for wave in sim.view("r43").waves) >= 9
    sim.check()


def test_a_release_that_reports_half_as_slow_again_is_not_halted() -> None:
    sim = fleet()
    for device in sim.fleet.values():
        device.habits = Habits(every=4 * MINUTE, download=3 * MINUTE, install=6 * MINUTE, reboot=1.5 * MINUTE)
    second(sim, Fate.WELL)
    sim.run(hours=12, until=sim.is_("completed", "r43"))
    assert not sim.journal("r43", "halted") and not sim.journal("r43", "held")
    sim.check()


def test_an_outage_that_darkens_untouched_devices_too_holds_and_does_not_halt() -> None:
    """The power of three sites in four fails while the canaries install; all of them stand there."""
    sim = fleet()
    second(sim, Fate.WELL)
    sim.run(hours=2, until=lambda: len(installing(sim)) >= 5)
    dark = (sim.now, sim.now + HOUR)
    chosen = set(sim.offered("r43"))
    for n, device in enumerate(sim.fleet.values()):
        if device.id in chosen or n % 4:
            device.away.append(dark)
    sim.run(hours=2, until=sim.is_("held", "r43"))
    kind, sentence = ended(sim)
    assert kind is ReasonKind.ENVIRONMENT
    assert "have gone dark in the same" in sentence
    # The power is back, the others report: what was missed is not held against the release.
    sim.run(hours=3)
    assert sim.status("r43") is RolloutStatus.HELD
    sim.rollouts.resume("r43", by=BY)
    sim.run(hours=12, until=sim.is_("completed", "r43"))
    sim.check()


def test_a_gateway_that_is_down_is_nobodys_silence() -> None:
    """Nobody answers for four hours, from when the first canaries install."""
    sim = fleet()
    second(sim, Fate.WELL)
    sim.run(hours=2, until=lambda: len(installing(sim)) >= 5)
    sim.down.append((sim.now, sim.now + 4 * HOUR))
    sim.run(hours=24, until=sim.is_("completed", "r43"))
    assert not sim.journal("r43", "halted") and not sim.journal("r43", "held")
    sim.check()


# ------------------------------------------------------------------------------------------------- without history


def test_without_history_only_the_hard_stop_speaks() -> None:
    sim = fleet(history=False)
    second(sim, Fate.BRICKS)
    sim.run(hours=1)
    assert sim.view("r43").clock is None
    assert "clock" not in sim.journal("r43", "started")[0].facts
    assert sim.status("r43") is RolloutStatus.RUNNING
    sim.run(hours=3, until=sim.is_("halted", "r43"))
    assert sim.now - installing(sim)[0] >= 2 * HOUR
    assert ended(sim)[0] is not ReasonKind.SILENCE


def test_without_history_the_shipped_standard_holds_at_the_hard_stop() -> None:
    sim = fleet(history=False)
    second(sim, Fate.BRICKS, SHIPPED)
    sim.run(hours=40, until=sim.is_("held", "r43"))
    assert not sim.journal("r43", "halted")
    assert sim.now - installing(sim)[0] >= 24 * HOUR
    assert ended(sim)[0] is not ReasonKind.SILENCE


def test_without_history_and_without_a_word_of_the_policy_silence_holds() -> None:
    own = {key: value for key, value in OWN.items() if key != "tolerate"}
    sim = fleet(history=False)
    second(sim, Fate.BRICKS, own)
    sim.run(hours=6, until=sim.is_("held", "r43"))
    assert not sim.journal("r43", "halted")
