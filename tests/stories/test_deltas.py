"""Stories of deltas: no wave opens before those of its devices are there, unless the policy says so."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.facts import DeltaFacts
from orchestrator.core.states import WaveStatus
from orchestrator.services.delta_provider import DeltaPair
from tests.stories.content import commit_of
from tests.stories.devices import Habits
from tests.stories.simulator import BY, Simulation

QUICK = Habits(every=timedelta(hours=2))
FOR_EVER = 10**9


def two_versions(seconds: float = 600.0) -> Simulation:
    """Sixty devices on 41 and twenty on 40."""
    sim = Simulation()
    sim.content.seconds = seconds
    sim.enroll(60, habits=QUICK)
    sim.enroll(20, prefix="old", version=40, habits=QUICK)
    sim.release(42)
    return sim


def deltas(sim: Simulation) -> DeltaFacts:
    found = sim.wave("all").deltas
    assert found is not None
    return found


def test_a_wave_waits_for_its_deltas() -> None:
    """Two deltas, two hours each: the wave is prepared at once, and opens when the second is there. Nobody loads it
    whole."""
    sim = two_versions(seconds=7_200)
    sim.begin(
        {"all": "all"}, policy="accelerated", own={"deltas": {"cover": "100%", "within": "1d", "otherwise": "hold"}}
    )
    sim.run(hours=3.9)
    assert not sim.offers and deltas(sim).ready == 1 and "deltas" in sim.waiting("all")
    sim.run(days=3, until=sim.is_("completed")).check()
    assert all(offer.by_delta for offer in sim.offers) and len(sim.content.built) == 2


def test_the_next_wave_is_prepared_while_this_one_bakes() -> None:
    """The old devices are in the second wave. Their delta is begun when the first wave opens, and there when it
    passes."""
    sim = two_versions(seconds=3_600)
    sim.begin(
        {"first": {"count": 10}, "rest": {"devices": "all"}},
        policy="accelerated",
        own={"deltas": {"otherwise": "hold"}},
    )
    sim.run(hours=12, until=sim.wave_is("first", "passed"))
    assert len(sim.content.built) == 2
    sim.run(hours=1, until=sim.wave_is("rest", "open")).check()


def test_late_deltas_hold() -> None:
    """A build takes a day, the policy waits six hours: the wave holds for a person. The delta comes; one resume opens
    it."""
    sim = two_versions(seconds=86_400)
    sim.begin({"all": "all"}, own={"window": None})
    sim.run(days=3, until=sim.held("all"))
    sim.to_day(2.5).check()
    assert not sim.offers
    sim.rollouts.resume("r42", by=BY, wave="all")
    sim.run(days=3, until=sim.is_("completed")).check()
    assert all(offer.by_delta for offer in sim.offers)


def test_late_deltas_full() -> None:
    """The same under ``otherwise: full``: after two hours the wave opens, and who has no delta loads it whole."""
    sim = two_versions(seconds=86_400)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(hours=3)
    assert sim.wave_status("all") is WaveStatus.OPEN
    sim.run(days=3, until=sim.is_("completed")).check()
    assert not any(offer.by_delta for offer in sim.offers[:20])


def test_late_deltas_skip() -> None:
    """Under ``otherwise: skip`` the wave opens with those that have a delta; the others come when theirs is ready,
    without anybody's word."""
    sim = two_versions(seconds=14_400)
    sim.begin(
        {"all": "all"}, policy="accelerated", own={"deltas": {"cover": "100%", "within": "5h", "otherwise": "skip"}}
    )
    sim.run(hours=6)
    assert sim.wave_status("all") is WaveStatus.OPEN
    sim.run(hours=1.5)
    assert sim.offers and not any(offer.device.startswith("old") for offer in sim.offers)
    sim.run(days=3, until=sim.is_("completed")).check()
    assert all(offer.by_delta for offer in sim.offers) and len(sim.running(42)) == 80


def test_a_build_that_fails_for_ever() -> None:
    """The delta from 40 kills its builder each time. Three tries, then it is given up; the wave holds and says so; a
    person completes it with ``--now``, and the old ones load it whole."""
    sim = two_versions()
    sim.content.failures[commit_of("rpi4", 40)] = FOR_EVER
    sim.begin({"all": "all"}, own={"window": None})
    sim.run(days=2, until=sim.held("all")).check()
    assert not sim.offers and deltas(sim).failed == 1
    sim.rollouts.complete("r42", by=BY, at_once=True)
    sim.run(days=2).check()
    assert len(sim.running(42)) == 80
    assert not any(offer.by_delta for offer in sim.offers if offer.device.startswith("old"))


def test_a_build_that_fails_twice() -> None:
    """Out of memory at the first two tries; the third succeeds, and nobody has noticed."""
    sim = two_versions()
    sim.content.failures[commit_of("rpi4", 40)] = 2
    sim.begin({"all": "all"}, policy="accelerated", own={"deltas": {"otherwise": "hold"}})
    sim.run(days=2, until=sim.is_("completed")).check()
    assert all(offer.by_delta for offer in sim.offers)


def test_a_delta_that_is_lost_is_built_again() -> None:
    """Somebody cleans up the disk between two waves: the look before the second one finds the delta gone, has it
    built again, and opens the wave only then."""
    sim = two_versions()
    sim.begin({"first": {"count": 5}, "rest": "all"}, policy="manual", own={"bake": {"at_least": "1h"}})
    sim.run(days=1, until=sim.wave_is("first", "passed"))
    pair = DeltaPair(commit_of("rpi4", 41), commit_of("rpi4", 42))
    sim.content.drop(pair)
    sim.run(hours=3)
    assert sim.content.built.count(pair) == 2
    sim.rollouts.promote("r42", "rest", by=BY)
    sim.run(days=5, until=sim.is_("completed")).check()


def test_devices_on_a_commit_that_nobody_knows() -> None:
    """Ten devices run something of a developer's. By default they load it whole; nobody waits for a delta that cannot
    be."""
    sim = two_versions()
    own = sim.enroll(10, prefix="dev", version=7, habits=QUICK)
    sim.content.known.discard(commit_of("rpi4", 7))
    sim.begin({"all": "all"}, policy="accelerated", own={"deltas": {"otherwise": "hold"}})
    sim.run(days=3, until=sim.is_("completed")).check()
    assert all(device.version == 42 for device in own)


def test_a_from_commit_that_turns_up_after_the_opening() -> None:
    """The wave is open when ten devices come out of a box with 39 on them. Under ``otherwise: hold`` each waits for
    its delta, which is built because they came by."""
    sim = two_versions()
    sim.begin({"all": "all"}, policy="accelerated", own={"deltas": {"otherwise": "hold"}})
    sim.run(hours=3)
    late = sim.enroll(10, prefix="late", version=39, habits=QUICK, known=False)
    sim.run(days=3).check()
    assert all(device.version == 42 for device in late), sim.told()
    assert all(offer.by_delta for offer in sim.offers)
