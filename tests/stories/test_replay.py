"""A past rollout is decided again: the same way when nothing was touched, and visibly another way when something was or
when another policy judges.

(Every other story is replayed too, each day of it: see ``invariants``.)
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.files.library import Library
from orchestrator.core.evidence.crossing import recount
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.evidence.log import Line, parsed
from orchestrator.core.journal import Entry
from orchestrator.core.policy import Policy
from orchestrator.errors import InvalidInput, NotFound
from orchestrator.services.replayed import Replayed
from orchestrator.services.replaying import Replayer
from tests.stories.devices import Behaviour, Fate, Habits
from tests.stories.simulator import Simulation, merged

DEVICES = 300
LENIENT: dict[str, Any] = {
    "tolerate": {"failed": {"at_most": "20%", "then": "halt"}},
    "budget": {"failed": "50%"},
}


def every(number: int) -> Behaviour:
    """Every so many-th device that takes the update fails, for good."""
    seen: dict[str, bool] = {}

    def fate(device: Any, attempt: int) -> Fate:
        seen.setdefault(device.id, len(seen) % number == number - 1)
        return Fate.FAILS if seen[device.id] else Fate.WELL

    return fate


def played(fate: Fate | Behaviour, *, days: float = 4, devices: int = DEVICES, **keys: Any) -> Simulation:
    sim = Simulation(seed=5, check_daily=False)
    sim.enroll(devices, habits=Habits(every=timedelta(hours=1)))
    sim.release(42, fate)
    sim.begin({"first": {"share": "20%"}, "rest": "all"}, policy="accelerated", **keys)
    return sim.run(days=days)


@pytest.fixture(scope="module")
def lenient() -> Simulation:
    """300 devices of which one in twelve fails, under a policy that does not mind. Nothing stops it."""
    sim = played(every(12), own=LENIENT)
    assert sim.status() == "completed" and not sim.journal(event="halted")
    return sim


@pytest.fixture(scope="module")
def halted() -> Simulation:
    """The same under the shipped policy, which halts it."""
    sim = played(every(6))
    assert sim.status() == "halted"
    return sim


def again(sim: Simulation, policy: Policy | None = None) -> Replayed:
    return Replayer(sim.store).replay("r42", policy=policy)


def lines(sim: Simulation) -> list[Line]:
    with sim.store.reading() as r:
        row = r.rollout("r42")
        assert row is not None
        return [parsed(line) for _, line in r.evidence_lines(row.key, limit=100_000)]


def writing(sim: Simulation) -> Any:
    """A session whose statements go past the port."""
    return sim.store.writing()


def forged(sim: Simulation, change: Callable[[Entry], Entry]) -> None:
    """Every entry as ``change`` makes it, the chain sealed anew and the rollout's head with it: a forger who thinks of
    everything but the evidence."""
    with writing(sim) as w:
        row = w.rollout("r42")
        assert row is not None
        chain: list[Entry] = []
        for entry in w.journal(row.key, limit=100_000):
            chain.append(replace(change(entry), before=chain[-1].hash if chain else entry.before).sealed())
        for trigger in ("journal_keeps", "journal_stays"):
            w.link.script(f"DROP TRIGGER IF EXISTS {trigger}")
        w.link.run("DELETE FROM journal WHERE rollout_key = ?", (row.key,))
        w.append_journal(row, chain)
        w.link.run("UPDATE rollout SET journal_hash = ? WHERE key = ?", (chain[-1].hash, row.key))


def tampered(sim: Simulation, sql: str) -> None:
    with writing(sim) as w:
        assert w.link.run(sql)


# ------------------------------------------------------------------------------------------------- the same


@pytest.mark.parametrize("which", ["lenient", "halted"])
def test_the_same_policy_decides_the_same(which: str, request: pytest.FixtureRequest) -> None:
    sim = request.getfixturevalue(which)
    found = again(sim)
    assert found.same and found.divergences == ()
    assert found.entries == len(sim.journal()) and found.outcomes == len(lines(sim))
    assert found.looks == sum("decided" in entry.facts for entry in sim.journal()) >= 3
    assert found.decisions > found.looks


def test_the_policy_it_was_bound_to_given_as_another_diverges_nowhere(halted: Simulation) -> None:
    """The monitors are shared out again from the sizes in the journal, and the stop is found in the log."""
    found = again(halted, Library().policy("accelerated"))
    assert found.same
    assert found.stopped is not None and found.would_stop is not None
    assert (found.stopped.at, found.stopped.evidence) == (found.would_stop.at, found.would_stop.evidence)
    assert found.would_stop.sentence in found.stopped.sentence


def test_a_halt_that_a_person_accepted_is_replayed_across_it() -> None:
    """Two attempts: monitors of the second begin with the places given later, budgets with what was accepted."""
    sim = played(every(6), days=2)
    while sim.status() == "halted" and len(sim.journal(event="resumed")) < 3:
        stopped = [m.monitor for m in sim.view().monitors if m.crossed_at and not m.accepted]
        stopped += [f"budget/{b.name}" for b in sim.view().budgets if b.reached]
        sim.rollouts.resume("r42", by="ann", accept=stopped, reason="known")
        sim.run(days=2)
    assert len(sim.journal(event="halted")) >= 2
    assert again(sim).same
    sim.check()


def test_a_small_fleet_with_its_pooled_monitor_is_replayed() -> None:
    """Devices that fail in two ways count once in what is pooled; the first bad device of a small wave holds."""
    sim = Simulation(seed=2, check_daily=False)
    sim.enroll(60, habits=Habits(every=timedelta(hours=1)))
    sim.release(42, every(5))
    sim.begin({"lab": {"count": 6}, "rest": "all"}, policy="accelerated")
    for _ in range(6):
        sim.run(days=1)
        if sim.status() in ("held", "halted"):
            view = sim.view()
            stopped = [m.monitor for m in view.monitors if m.crossed_at and not m.accepted]
            stopped += [f"budget/{b.name}" for b in view.budgets if b.reached]
            if view.summary.standing.reason.kind == "first_bad":
                stopped.append("small-wave/first_bad")
            sim.rollouts.resume("r42", by="ann", accept=stopped, reason="known")
    assert sim.journal(event="held") or sim.journal(event="halted")
    assert again(sim).same


# ------------------------------------------------------------------------------------------------- touched


def test_a_changed_fact_differs_at_its_entry(lenient: Simulation) -> None:
    """Whoever changes what a look saw, and seals the whole journal anew, meets the evidence log."""
    looks = [entry.seq for entry in lenient.journal() if "decided" in entry.facts and entry.facts.get("monitors")]
    with lenient.store.reading() as r:
        row = r.rollout("r42")
        assert row is not None
        whole = list(r.journal(row.key, limit=100_000))
    try:
        forged(lenient, lambda e: e if e.seq != looks[3] else replace(e, facts=_bad_less(e.facts)))
        found = again(lenient)
        assert not found.same
        assert {(each.what, each.entry) for each in found.divergences} == {("facts", looks[3])}
        assert found.divergences[0].recorded.startswith("monitor rollout/failed: ")
    finally:
        forged(lenient, lambda e: whole[e.seq - 1])
    assert again(lenient).same


def _bad_less(facts: Any) -> Any:
    copy = json.loads(json.dumps(facts))
    failed = next(each for each in copy["monitors"] if each["monitor"] == "rollout/failed")
    failed["bad"] += 3
    return copy


def test_a_decision_that_the_facts_do_not_bear_differs() -> None:
    """An entry that says a wave passed hours before it could: its time is moved, and all is sealed anew."""
    sim = played(Fate.WELL, days=1)
    passed = sim.journal(event="passed")[0]
    forged(sim, lambda e: e if e.seq != passed.seq else replace(e, at=e.at - timedelta(hours=1)))
    found = again(sim)
    assert (found.divergences[0].what, found.divergences[0].entry) == ("decision", passed.seq)
    assert {each.what for each in found.divergences[1:]} <= {"record"}
    assert "pass first" in found.divergences[0].recorded and "pass" not in found.divergences[0].replayed


def test_outcomes_that_were_turned_bad_differ_where_they_would_have_stopped_it() -> None:
    """Twelve confirmations become failures in the log. The first look after them saw others; and had they been, the
    rollout would have been stopped."""
    sim = played(Fate.WELL, days=2)
    turned = [line.seq for line in lines(sim) if line.outcome == "confirmed"][:12]
    tampered(sim, f"UPDATE evidence SET outcome = 'failed' WHERE seq IN ({', '.join(map(str, turned))})")
    found = again(sim)
    kinds = [each.what for each in found.divergences]
    assert "facts" in kinds and "stop" in kinds
    stop = next(each for each in found.divergences if each.what == "stop")
    assert stop.evidence in turned and (stop.recorded, stop.replayed) == ("nothing", "halt")


def test_a_removed_outcome_differs(halted: Simulation) -> None:
    sim = played(every(6), days=2)
    first = next(line for line in lines(sim) if line.outcome == "failed")
    tampered(sim, f"DELETE FROM evidence WHERE seq = {first.seq}")
    found = again(sim)
    assert found.divergences and found.divergences[0].what == "facts"
    assert any("monitor rollout/failed" in each.recorded for each in found.divergences)


def test_an_entry_that_was_changed_and_not_sealed_is_told_too() -> None:
    sim = played(Fate.WELL, days=1)
    with writing(sim) as w:
        w.link.script("DROP TRIGGER journal_keeps")
        w.link.run("UPDATE journal SET by = 'mallory' WHERE seq = 2")
    found = again(sim)
    assert [(each.what, each.entry) for each in found.divergences] == [("journal", 2)]


# ------------------------------------------------------------------------------------------------- another policy


def test_a_stricter_policy_halts_earlier_at_the_report_that_proves_it(lenient: Simulation) -> None:
    """The lenient record never stopped. The shipped policy would have: at the very outcome at which a plain recount of
    the places so far crosses its staircase for the first time, or reaches its budget."""
    strict = Library().policy("accelerated")
    found = again(lenient, strict)
    assert found.stopped is None and found.would_stop is not None
    (stop,) = [each for each in found.divergences if each.what == "stop"]
    assert (stop.recorded, stop.replayed) == ("nothing", "halt")
    assert stop.at == found.would_stop.at and stop.evidence == found.would_stop.evidence

    sizes = next(e.facts["watched"]["sizes"] for e in lenient.journal() if "watched" in e.facts)
    assert sum(sizes.values()) == DEVICES
    specs = _monitors(lenient, strict, sizes)
    assert found.would_stop.evidence == _first_stop(lines(lenient), specs)


def _monitors(sim: Simulation, policy: Policy, sizes: dict[str, int]) -> Sequence[Any]:
    from orchestrator.core.evidence.allowance import WaveSize, allot

    waves = [WaveSize("first", sizes["first"], 0), WaveSize("rest", sizes["rest"], sizes["first"])]
    return allot(tolerate=policy.tolerances, false_halt=policy.false_halt, waves=waves, devices=DEVICES)


def _first_stop(log: Sequence[Line], specs: Sequence[Any]) -> int:
    """By brute force: after each row, every monitor from scratch."""
    for end in range(1, len(log) + 1):
        for spec in specs:
            places = [
                line.rollout_place if spec.wave is None else line.wave_place
                for line in log[:end]
                if line.outcome in spec.outcomes and spec.wave in (None, line.wave)
            ]
            if spec.answer == "halt" and recount(places, staircase(spec.tolerance, spec.alpha)) is not None:
                return log[end - 1].seq
    raise AssertionError("nothing stops it")


def test_after_it_would_have_stopped_it_decides_nothing_more(lenient: Simulation) -> None:
    found = again(lenient, Library().policy("accelerated"))
    at = next(n for n, each in enumerate(found.divergences) if each.what == "stop")
    rest = found.divergences[at + 1 :]
    assert rest and all(each.replayed == "nothing" and "stopped before" in each.why for each in rest)
    assert [each.at for each in found.divergences] == sorted(each.at for each in found.divergences)


def test_a_laxer_policy_would_not_have_stopped(halted: Simulation) -> None:
    lax = Policy.parse(merged(Library().policy("accelerated").document(), LENIENT))
    found = again(halted, lax)
    assert found.stopped is not None and found.would_stop is None
    assert found.divergences[-1].recorded == "halt" and found.divergences[-1].replayed != "halt"
    (entry,) = halted.journal(event="halted")
    assert found.stopped.at == entry.at and found.stopped.sentence in entry.sentence


def test_a_stricter_policy_would_have_left_a_segment_out() -> None:
    """A tenth of the fleet is a board of which a third fails; its policy bears that. A stricter one would have left the
    board out, and gone on without it: the devices of the log have their segments and places by their offers."""
    sim = Simulation(seed=3, check_daily=False)
    often = Habits(every=timedelta(hours=1))
    sim.enroll(360, habits=often)
    sim.enroll(40, hardware_id="cm4", habits=often)
    some = every(3)
    sim.release(42, lambda device, attempt: some(device, attempt) if device.hardware_id == "cm4" else Fate.WELL)
    own = {"segments": ["hardware_id"]}
    sim.begin({"first": {"share": "30%"}, "rest": "all"}, policy="accelerated", own=LENIENT | own)
    sim.run(days=4)
    assert not sim.view().excluded and not sim.journal(event="halted")
    found = again(sim, Policy.parse(merged(Library().policy("accelerated").document(), own)))
    assert [each.replayed for each in found.divergences if each.replayed.startswith("exclude")] == [
        "exclude hardware_id=cm4"
    ]
    assert found.would_stop is None


def test_a_policy_that_bakes_longer_would_have_waited(lenient: Simulation) -> None:
    longer = Policy.parse(
        merged(Library().policy("accelerated").document(), {**LENIENT, "bake": {"at_least": "10d", "at_most": "12d"}})
    )
    found = again(lenient, longer)
    first = found.divergences[0]
    assert (first.what, first.replayed) == ("decision", "nothing")
    assert "pass first" in first.recorded and "at least 10 d" in first.why


def test_who_there_is_not_and_what_does_not_fit_is_refused(lenient: Simulation) -> None:
    with pytest.raises(NotFound):
        Replayer(lenient.store).replay("nobody")
    sim = Simulation(check_daily=False)
    sim.enroll(30)
    sim.release(42)
    sim.begin({"all": {"devices": "all", "policy": {"bake": {"at_least": "30h"}}}})
    short = Policy.parse(merged(Library().policy("standard").document(), {"bake": {"at_least": "1h", "at_most": "2h"}}))
    with pytest.raises(InvalidInput, match="Wave all of r42 does not fit policy standard"):
        again(sim, short)


def test_memory_does_not_grow_with_the_log() -> None:
    """Two hundred thousand confirmations more in the log cost the replay next to nothing to hold."""
    sim = played(Fate.WELL, days=1)
    with writing(sim) as w:
        row = w.rollout("r42")
        assert row is not None
        line = lines_of_one(w, row.key)
        w.link.many(
            "INSERT INTO evidence (rollout_key, device_key, received_at, outcome, wave, slice_number, rollout_place, "
            "wave_place) VALUES (?, ?, ?, 'confirmed', ?, 1, 1, 1)",
            [(row.key, line.device_key, line.at, line.wave)] * 200_000,
        )
    told: list[int] = []
    tracemalloc.start()
    try:
        found = Replayer(sim.store).replay("r42", progress=lambda rollout, rows, of: told.append(rows))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.outcomes > 200_000 and len(told) == found.outcomes // 5_000
    assert most < 20_000_000


def lines_of_one(w: Any, key: int) -> Line:
    return parsed(w.evidence_lines(key, limit=1)[0][1])
