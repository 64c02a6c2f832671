"""The clock's counters in the store: what is added up there is what the cohorts say, whatever comes in what order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.adapters.sql.clocks import FOLDED_AT_ONCE
from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.evidence.clock import Clock, Learnt, Untouched, minute_of, reading, tally
from orchestrator.core.facts import Facts
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, Standing
from orchestrator.core.update import EventKind, on_check_in, on_deadline, on_event
from orchestrator.services.clocks import as_text
from orchestrator.services.records import RolloutRow
from orchestrator.services.tallies import Tallies
from tests.contract.building import DAY, HOUR, NEW, NOW, OLD, PATIENCE, device, enroll, offered, rollout, undone
from tests.core.evidence.clock_world import clock

MINUTE = timedelta(minutes=1)
CLOCK = clock(silent_after=timedelta(hours=3))


@contextmanager
def begun(
    store: SqlStore, devices: int, *, hardware: Sequence[str] = ("rpi4",), of: Clock = CLOCK
) -> Iterator[tuple[SqlWriting, RolloutRow, list[int]]]:
    """A rollout with a clock, and devices that have been offered its Target and began to download."""
    with undone(store) as w:
        keys = enroll(w, *(device(f"d{n:04}", hardware_id=hardware[n % len(hardware)]) for n in range(devices)))
        row = w.add_rollout(replace(rollout(), clock=as_text(of)))
        w.lock_rollout(row.key)
        for n, key in enumerate(keys):
            w.add_update(offered(row, key, hardware_id=hardware[n % len(hardware)]))
        yield w, row, keys


def tell(w: SqlWriting, row: RolloutRow, device_key: int, kind: EventKind, at: timedelta) -> None:
    """A report of one device, so long after ``NOW``."""
    tallies = Tallies(NOW + at)
    course = w.load_courses(row.key, [device_key])[device_key]
    tallies.step(course, on_event(course.update, kind, patience=PATIENCE, now=NOW + at))
    tallies.counts.clear()  # no slice was opened here
    tallies.counted.clear()
    tallies.write(w)


def seen(w: SqlWriting, row: RolloutRow, at: timedelta) -> Facts:
    return w.facts(row, now=NOW + at)


@pytest.mark.parametrize("seed", range(4))
def test_what_the_store_adds_up_is_what_the_cohorts_say(store: SqlStore, seed: int) -> None:
    """Two hardware ids, of which one has a curve of its own; devices begin over an hour, some are never heard of."""
    rng = random.Random(seed)
    own = Learnt(300, tuple(point._replace(minutes=point.minutes + 7) for point in CLOCK.of("")))
    told = replace(CLOCK, learnt={**CLOCK.learnt, "rpi4": own})
    with begun(store, 60, hardware=("rpi4", "imx8", "cm4"), of=told) as (w, row, keys):
        events = []
        for key in keys:
            start = rng.random() * 60
            events.append((start, key, EventKind.INSTALLING))
            if rng.random() < 0.7:
                events.append(
                    (start + rng.expovariate(1 / 30), key, rng.choice([EventKind.FAILED, EventKind.ROLLED_BACK]))
                )
        for minutes, key, kind in sorted(events):
            tell(w, row, key, kind, minutes * MINUTE)
            if rng.random() < 0.2:
                tell(w, row, key, kind, (minutes + 0.5) * MINUTE)  # said twice: it counts once
        assert sum(each.installed for each in w.cohorts(row.key)) == len(keys)
        for minutes in (0, 15, 61, 90, 150, 400):
            now = NOW + minutes * MINUTE
            # Cohorts later than the look are of no matter to it.
            facts = seen(w, row, minutes * MINUTE).clock
            assert facts is not None
            assert replace(facts, untouched=None) == tally(told, w.cohorts(row.key), now=now)
        assert not [each for each in w.check() if "clock" in each.what]


def test_cohorts_that_are_over_are_folded_and_nothing_else_changes(store: SqlStore) -> None:
    """A device each minute for two days: what is kept is what somebody is still looked at in, and one row more."""
    minutes = 2 * CLOCK.longest + 3 * FOLDED_AT_ONCE
    with begun(store, minutes // 4) as (w, row, keys):
        for n, key in enumerate(keys):
            tell(w, row, key, EventKind.INSTALLING, 4 * n * MINUTE)
            if n % 5:
                tell(w, row, key, EventKind.FAILED, (4 * n + 3) * MINUTE)
        cohorts = w.cohorts(row.key)
        assert len(cohorts) <= CLOCK.longest // 4 + FOLDED_AT_ONCE + 3 < len(keys)
        assert sum(each.installed for each in cohorts) == len(keys)
        facts = seen(w, row, (minutes + 2 * CLOCK.longest) * MINUTE).clock
        assert facts is not None
        assert {each.silent for each in facts.seen} == {len(range(0, len(keys), 5))}
        assert not [each for each in w.check() if "clock" in each.what]


def test_who_is_heard_of_after_the_last_look_changes_nothing(store: SqlStore) -> None:
    with begun(store, 5) as (w, row, keys):
        for key in keys:
            tell(w, row, key, EventKind.INSTALLING, 0 * MINUTE)
        late = (CLOCK.longest + 5) * MINUTE
        before = seen(w, row, late).clock
        tell(w, row, keys[0], EventKind.FAILED, late)
        assert seen(w, row, late).clock == before


def test_time_in_which_no_gateway_lived_is_nobodys_silence(store: SqlStore) -> None:
    """Ten devices begin, five are heard of. For two hours nobody can be; then the others have all their time anew."""
    first = CLOCK.of("rpi4")[0].minutes
    with begun(store, 10) as (w, row, keys):
        for key in keys:
            tell(w, row, key, EventKind.INSTALLING, 0 * MINUTE)
        for key in keys[:5]:
            tell(w, row, key, EventKind.FAILED, 2 * MINUTE)
        down = timedelta(hours=2)
        # While it is down the clock stands still.
        clock = w.facts(row, now=NOW + 3 * MINUTE + down, listened=NOW + 3 * MINUTE).clock
        assert clock is not None and clock.seen == ()
        w.postpone_deadlines(down, now=NOW + 3 * MINUTE + down)
        facts = seen(w, row, 3 * MINUTE + down).clock
        assert facts is not None
        assert sum(each.silent for each in facts.seen) == 0
        assert facts.next_at == NOW.replace(second=0, microsecond=0) + down + (first + 1) * MINUTE
        tell(w, row, keys[5], EventKind.FAILED, down + (first - 1) * MINUTE)
        after = seen(w, row, down + (first + 1) * MINUTE).clock
        assert after is not None
        assert [(each.silent, each.reported) for each in after.seen if each.number == 1] == [(4, 6)]
        assert not [each for each in w.check() if "clock" in each.what]


def test_a_hard_stop_a_retry_and_a_departure(store: SqlStore) -> None:
    """Counted silent, a device stays silent for the clock; one that left, or was failed and tries again, was heard."""
    with begun(store, 3) as (w, row, keys):
        for key in keys:
            tell(w, row, key, EventKind.INSTALLING, 0 * MINUTE)
        tallies = Tallies(NOW + MINUTE)
        courses = w.load_updates([(row.key, key) for key in keys])
        silent, left, _ = (courses[row.key, key] for key in keys)
        tallies.step(silent, on_deadline(silent.update, last_seen_at=None, patience=PATIENCE, now=NOW + 2 * DAY))
        tallies.step(left, on_check_in(left.update, running="c" * 64, patience=PATIENCE, now=NOW + MINUTE))
        tallies.counts.clear()
        tallies.counted.clear()
        tallies.write(w)
        facts = seen(w, row, HOUR).clock
        assert facts is not None
        assert [(each.silent, each.reported) for each in facts.seen if each.number == 1] == [(2, 1)]
        assert silent.update.bad == {OutcomeClass.SILENT}


def test_a_rollout_without_a_clock_counts_nothing(store: SqlStore) -> None:
    with undone(store) as w:
        (key,) = enroll(w, device("d"))
        row = w.add_rollout(rollout())
        w.add_update(offered(row, key))
        tell(w, row, key, EventKind.INSTALLING, 0 * MINUTE)
        assert w.cohorts(row.key) == []
        assert seen(w, row, HOUR).clock is None


def test_a_difference_is_found_by_recounting(store: SqlStore) -> None:
    with begun(store, 3) as (w, row, keys):
        for key in keys:
            tell(w, row, key, EventKind.INSTALLING, 0 * MINUTE)
        w.link.run("UPDATE cohort SET installed = installed + 1", ())
        assert [each.what for each in w.check() if "clock" in each.what] == ["rollout r, clock: installed"]
        w.link.run("UPDATE cohort SET installed = installed - 1", ())
        w.link.run("DELETE FROM clock_mark WHERE key = (SELECT min(key) FROM clock_mark)", ())
        found = {each.what for each in w.check() if "clock" in each.what}
        assert found == {"rollout r, clock: installed", "rollout r, clock: devices that install without a mark"}


# ------------------------------------------------------------------------------------------------- what is learnt


def test_delays_are_learnt_from_completed_rollouts_the_newest_first(store: SqlStore) -> None:
    """A device that confirmed and rolled back later was heard of when it confirmed; one that was never, never."""
    with undone(store) as w:
        keys = enroll(w, *(device(f"d{n}") for n in range(4)))
        old = w.add_rollout(replace(rollout("old"), created_at=NOW - DAY))
        open_slice(w, old)
        row = w.add_rollout(rollout("new"))
        open_slice(w, row)
        for each in (old, row):
            for key in keys:
                w.add_update(offered(each, key))
        _go(w, old, keys[0], 30)
        _go(w, row, keys[0], 4)
        _go(w, row, keys[1], 9, back=40)
        _go(w, row, keys[2], None)
        assert w.past_delays(rollouts=8, of_each=100, until=NOW + DAY) == [], "neither is completed"
        for each in (old, row):
            w.save_rollout(replace(each, state=replace(each.state, status=RolloutStatus.COMPLETED)))
        found = [(each.device, each.delay) for each in w.past_delays(rollouts=8, of_each=100, until=NOW + DAY)]
        assert found == [(keys[2], None), (keys[1], 9 * MINUTE), (keys[0], 4 * MINUTE), (keys[0], 30 * MINUTE)]
        assert {each.hardware_id for each in w.past_delays(rollouts=8, of_each=100, until=NOW + DAY)} == {"rpi4"}
        assert len(w.past_delays(rollouts=1, of_each=1, until=NOW + DAY)) == 1
        assert w.past_delays(rollouts=8, of_each=100, until=NOW - DAY) == [], "they began later"


def open_slice(w: SqlWriting, row: RolloutRow) -> None:
    assert row.scope is not None
    w.open_slice(row, row.scope, "all", size=20, seen_since=NOW - 7 * DAY, dimensions=(), now=NOW)


def _go(w: SqlWriting, row: RolloutRow, device_key: int, minutes: int | None, *, back: int | None = None) -> None:
    """One device installs, and confirms after so many minutes; ``back``: it rolls back then. None: it is dark."""
    steps = [(0, "installing"), *([(minutes, "confirmed")] if minutes is not None else [(2_000, "silent")])]
    for at, what in [*steps, *([(back, "back")] if back is not None else [])]:
        now = NOW + at * MINUTE
        tallies = Tallies(now)
        course = w.load_updates([(row.key, device_key)])[row.key, device_key]
        update = course.update
        if what == "installing":
            step = on_event(update, EventKind.INSTALLING, patience=PATIENCE, now=now)
        elif what == "silent":
            step = on_deadline(update, last_seen_at=None, patience=PATIENCE, now=now)
        else:
            step = on_check_in(update, running=NEW if what == "confirmed" else OLD, patience=PATIENCE, now=now)
        assert step.changed
        tallies.step(course, step)
        tallies.write(w)


# ------------------------------------------------------------------------------------------------- the untouched


def _dark(w: SqlWriting, row: RolloutRow, keys: list[int]) -> None:
    for key in keys:
        tell(w, row, key, EventKind.INSTALLING, 0 * MINUTE)


def test_untouched_devices_that_were_due_are_looked_at_when_the_clock_crosses(store: SqlStore) -> None:
    """30 that ask every three minutes: 20 of them not since the devices began to install, ten still do. One that asks
    once a day, one that has been away for a week, one of another tag and a retired one say nothing."""
    with begun(store, 20) as (w, row, keys):
        _dark(w, row, keys)
        gap = 3 * MINUTE
        enroll(w, *(device(f"u{n}", usual_gap=gap, last_seen_at=NOW - MINUTE) for n in range(20)))
        enroll(w, *(device(f"v{n}", usual_gap=gap, last_seen_at=NOW + 20 * MINUTE) for n in range(10)))
        enroll(
            w,
            device("daily", usual_gap=DAY, last_seen_at=NOW - MINUTE),
            device("gone", usual_gap=gap, last_seen_at=NOW - 7 * DAY),
            device("other", usual_gap=gap, last_seen_at=NOW - MINUTE, tag="lab"),
        )
        points = CLOCK.of("rpi4")
        early = seen(w, row, points[0].minutes * MINUTE).clock
        assert early is not None and early.untouched is None, "nothing has crossed yet"
        at = (points[1].minutes + 1) * MINUTE
        facts = seen(w, row, at).clock
        assert facts is not None
        found = reading(facts)
        assert found is not None and found.crossed
        assert facts.untouched == Untouched(30, 20, found.minutes)


@pytest.mark.parametrize(
    ("status", "kind"), [(RolloutStatus.HALTED, ReasonKind.SILENCE), (RolloutStatus.HELD, ReasonKind.ENVIRONMENT)]
)
def test_nobody_is_looked_at_once_it_has_stopped(store: SqlStore, status: RolloutStatus, kind: ReasonKind) -> None:
    with begun(store, 20) as (w, row, keys):
        _dark(w, row, keys)
        state = replace(row.state, status=status, standing=Standing(Reason(kind, "It stopped."), NOW, "policy"))
        facts = seen(w, replace(row, state=state), HOUR).clock
        assert facts is not None and facts.untouched is None


def test_only_what_began_after_a_person_accepted_it_is_evidence(store: SqlStore) -> None:
    with begun(store, 4) as (w, row, keys):
        _dark(w, row, keys[:2])
        since = minute_of(NOW) + 1
        for key in keys[2:]:
            tell(w, row, key, EventKind.INSTALLING, 2 * MINUTE)
        facts = seen(w, replace(row, state=replace(row.state, clock_from=since)), HOUR).clock
        assert facts is not None
        assert [each.silent for each in facts.seen if each.number == 1] == [2]
