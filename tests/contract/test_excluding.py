"""Excluded segments in the store: evidence and tallies of the rest, and back; what is broken, the recount finds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.evidence.crossing import recount
from orchestrator.core.evidence.left_out import LeftOut
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import RolloutState
from orchestrator.core.fleet import Device
from orchestrator.core.journal import Entry
from orchestrator.core.offers import place_in
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.slices import slice_of
from orchestrator.core.states import Reason, ReasonKind
from orchestrator.core.transitions import exclude, include
from orchestrator.core.update import EventKind, UpdateStatus, counted, on_event
from orchestrator.services.check_in import another
from orchestrator.services.records import CourseRow, DeviceFilter, Effect, EffectKind, Moved, RolloutRow, UpdateRow
from orchestrator.services.tallies import Tallies
from tests.contract.building import (
    DAY,
    HOUR,
    NOW,
    PATIENCE,
    WEEK_AGO,
    device,
    monitor,
    offered,
    rollout,
    undone,
)

DIMENSIONS = ("hardware_id", "source_version", "label:site")
IMX8, BERLIN = "hardware_id=imx8", "label:site=berlin"
BECAUSE = Reason(ReasonKind.ORDERED, "Excluded by ann: dark screens.")
SCOPES = ("rollout", "wave:all", f"segment:{IMX8}", f"segment:{BERLIN}", "segment:source_version=41")
FEW = settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)


def fleet(many: int, dice: random.Random) -> list[Device]:
    """A third is imx8, half of all are in berlin."""
    return [
        device(
            f"d{n}",
            hardware_id=dice.choice(["rpi4", "rpi4", "imx8"]),
            labels={"site": dice.choice(["berlin", "paris"])} if dice.random() < 0.9 else {},
            version=dice.choice([40, 41, 41]),
        )
        for n in range(many)
    ]


def begun(
    w: SqlWriting, many: int, dice: random.Random, slices: int = 3, apart: int = 0
) -> tuple[RolloutRow, list[UpdateRow]]:
    """A rollout whose wave has some slices open, and whose members have all been offered. ``apart``: every so many-th
    was unhealthy before and is left out of the count."""
    w.enroll([(one, None) for one in fleet(many, dice)], now=NOW)
    row = w.add_rollout(rollout())
    w.add_monitors(row.key, [monitor(name) for name in SCOPES], from_places={})
    for number in range(slices):
        more(w, row, many // 4, now=NOW + number * HOUR)
    return row, offers(w, row, apart)


def more(w: SqlWriting, row: RolloutRow, size: int, *, now: datetime):
    assert row.scope is not None
    return w.open_slice(row, row.scope, "all", size=size, seen_since=WEEK_AGO, dimensions=DIMENSIONS, now=now)


def offers(w: SqlWriting, row: RolloutRow, apart: int = 0) -> list[UpdateRow]:
    """Every member of a slice that has none is offered the Target."""
    assert row.scope is not None
    opened, (selector,) = w.slices(row.key), row.scope.selectors
    tallies = Tallies(NOW)
    made = []
    for person in w.devices(DeviceFilter(), limit=10_000):
        place = place_in(opened, selector, person.device, DIMENSIONS)
        if place is None or not row.scope.eligible(person.device):
            continue
        update = offered(
            row,
            person.key,
            slice=place.slice,
            places=place.places,
            segment_places=msgspec.json.encode(dict(place.segments)).decode(),
            hardware_id=person.device.hardware_id,
            from_version=person.device.version,
            apart=bool(apart) and person.key % apart == 0,
        )
        if w.add_update(update):
            tallies.count(update, counted(update.update))
            made.append(update)
    tallies.write(w)
    return made


def report(w: SqlWriting, rows: Sequence[UpdateRow], kind: EventKind = EventKind.FAILED) -> None:
    """These devices say so, in one transaction, as it stands in the store."""
    tallies = Tallies(NOW)
    stored: dict[int, CourseRow] = (
        w.load_courses(rows[0].rollout_key, [each.device_key for each in rows]) if rows else {}
    )
    for key in sorted(stored):
        tallies.step(stored[key], on_event(stored[key].update, kind, patience=PATIENCE, now=NOW))
    tallies.write(w)


def without(w: SqlWriting, row: RolloutRow, segment: str, *, now: datetime = NOW + DAY) -> RolloutRow:
    """As the machine excludes it: state, scope, evidence, and what the outbox does."""
    return settled(w, replace(row, state=exclude(row.state, segment, 9, BECAUSE, now, "ann")))


def settled(w: SqlWriting, row: RolloutRow) -> RolloutRow:
    row = ordered(w, row, row.state)
    w.leave_out(row)
    return row


def ordered(w: SqlWriting, row: RolloutRow, state: RolloutState) -> RolloutRow:
    """As the order leaves it, before the outbox has come to it."""
    row = replace(row, state=state)
    assert row.scope is not None
    out = tuple(sorted(row.state.excluded_segments))
    entry = Entry(row.journal_seq + 1, NOW, "excluded", "ann", "So.", before=row.journal_hash or "0" * 64).sealed()
    row = replace(row, scope=replace(row.scope, excluded=out), journal_seq=entry.seq, journal_hash=entry.hash)
    row = w.save_rollout(row)
    w.append_journal(row, [entry])
    w.count_again(row)
    return row


def wrong(w: SqlWriting) -> list[str]:
    """What the recount finds."""
    return [one.what for one in w.check()]


def evidence(w: SqlWriting, row: RolloutRow) -> dict[str, tuple[int, tuple[int, int] | None]]:
    return {one.spec.key: (one.bad, one.crossed_at) for one in w.monitors(row.key)}


@FEW
@given(seed=st.integers(0, 2**32), excluded=st.sets(st.sampled_from([IMX8, "hardware_id=rpi4", BERLIN]), min_size=1))
def test_whenever_the_exclusion_comes_the_end_is_the_same(store: SqlStore, seed: int, excluded: set[str]) -> None:
    """Failures before, failures after, in any order: the trees are those of a recount, and the tallies of the rest, and
    of those apart."""
    ends = []
    for when in (0, 1, 2):
        with undone(store) as w:
            dice = random.Random(seed)
            row, rows = begun(w, 80, dice, apart=4)
            failing = [each for each in rows if dice.random() < 0.4]
            random.Random(when).shuffle(failing)
            cut = len(failing) * when // 2
            report(w, failing[:cut])
            for segment in sorted(excluded):
                row = without(w, row, segment)
            report(w, failing[cut:])
            assert wrong(w) == []
            left_out = LeftOut(w.slices(row.key), row.state.excluded_segments)
            for one in w.monitors(row.key):
                places = w.bad_places(row, [one])[one.key]
                found = recount(places, staircase(one.spec.tolerance, one.spec.alpha))
                assert one.bad == len(places)
                assert (one.crossed_at is None) == (found is None)
            assert left_out.excluded == excluded
            pieces = w.facts(row, now=NOW).waves[0].slices
            bad = {key: many for key, (many, _) in evidence(w, row).items()}
            ends.append((bad, [(p.members, p.excluded, p.offered, dict(p.bad), p.apart) for p in pieces]))
    assert ends[0][0] == ends[1][0] == ends[2][0]
    assert ends[0][1] == ends[1][1] == ends[2][1]


CHANGING = ["source_version=40", "source_version=41", IMX8, "hardware_id=rpi4", BERLIN]


@FEW
@given(seed=st.integers(0, 2**32), excluded=st.sets(st.sampled_from(CHANGING), min_size=1))
def test_devices_that_change_between_opening_and_offer_move_nobody_below_the_true_rank(
    store: SqlStore, seed: int, excluded: set[str]
) -> None:
    """Some slices open; then, at the very moment of the last opening, devices say another version, board or site. All
    that have a place are offered the Target and half of them fail; then the segments are excluded."""
    with undone(store) as w:
        dice = random.Random(seed)
        w.enroll([(one, None) for one in fleet(90, dice)], now=NOW)
        row = w.add_rollout(rollout())
        w.add_monitors(row.key, [monitor(name) for name in SCOPES], from_places={})
        for number in range(3):
            more(w, row, 25, now=NOW + number * HOUR)
        last = NOW + 2 * HOUR
        for person in w.devices(DeviceFilter(), limit=1_000):
            if (fate := dice.random()) < 0.2:
                version = dice.choice([40, 41])
                w.save_device(person.key, replace(person.device, version=version))
            elif fate < 0.3:
                board = replace(person.device, hardware_id=dice.choice(["rpi4", "imx8"]))
                assert another(person.device, board) == (board != person.device)
                since = w.after_slices(last) if another(person.device, board) else board.since_at
                w.save_device(person.key, replace(board, since_at=since))
            elif fate < 0.4:
                w.set_label([person.device.id], "site", dice.choice(["berlin", "paris"]), now=last)
        rows = offers(w, row)
        failing = [each for each in rows if dice.random() < 0.5]
        report(w, failing)
        for segment in sorted(excluded):
            row = without(w, row, segment)
        assert wrong(w) == []
        left_out, seats = w.left_out(row), w.seats(row, [each.device_key for each in rows])
        rest = [each for each in rows if excluded.isdisjoint(each.segments)]
        rest.sort(key=lambda each: (each.slice, seats[each.device_key].position))
        whole = monitor("rollout")
        for rank, each in enumerate(rest, start=1):
            place = left_out.place(whole, 0, seats[each.device_key])
            assert place is not None and place >= rank
        for piece in w.facts(row, now=NOW).waves[0].slices:
            assert piece.reachable >= sum(each.slice == piece.number for each in rest)


def test_a_slice_whose_devices_changed_version_is_not_taken_for_empty(store: SqlStore) -> None:
    """All twenty ran 40 when the slice opened. Before any was offered anything nineteen came to run 41, and then 40 is
    excluded: nineteen are still to come. Were they all waited for, nobody had been there before."""
    with undone(store) as w:
        w.enroll([(device(f"d{n}", version=40), None) for n in range(20)], now=NOW)
        row = w.add_rollout(rollout())
        more(w, row, 20, now=NOW)
        for person in w.devices(DeviceFilter(), limit=100)[1:]:
            w.save_device(person.key, replace(person.device, version=41))
        row = without(w, row, "source_version=40")
        (piece,) = w.facts(row, now=NOW).waves[0].slices
        assert (piece.members, piece.excluded, piece.reachable) == (20, 1, 19)
        assert wrong(w) == []


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_leaving_out_goes_in_steps_and_after_each_of_them_the_tallies_agree(store: SqlStore, limit: int) -> None:
    """Between two steps a device reports; then the steps begin anew, as after a crash; then they go back."""
    with undone(store) as w:
        row, rows = begun(w, 60, random.Random(9))
        report(w, rows[::5])
        assert w.unstarted(row.key, IMX8) == sum(IMX8 in each.segments for each in rows if each not in rows[::5])
        waiting = w.unstarted(row.key, IMX8)
        row = ordered(w, row, exclude(row.state, IMX8, 9, BECAUSE, NOW, "ann"))
        w.add_effects([Effect(EffectKind.LEAVE_OUT, row.state.rollout)])
        first = w.leave_out(row, limit=limit)
        assert wrong(w) == []
        report(w, rows[1::5], EventKind.INSTALLING)
        started = sum(IMX8 in each.segments for each in rows[1::5])
        assert wrong(w) == []
        steps, moved = 1, w.leave_out(row, limit=limit)
        withdrawn = first.withdrawn + moved.withdrawn
        while moved.after is not None:
            assert wrong(w) == []
            moved = w.leave_out(row, after=moved.after, limit=limit)
            steps, withdrawn = steps + 1, withdrawn + moved.withdrawn
        assert steps == -(-(len(rows) + 1) // limit) if limit < len(rows) else steps == 1
        assert waiting - started <= withdrawn <= waiting
        (effect,) = w.effects()
        w.finish_effect(effect.key)
        assert wrong(w) == []


def test_a_failing_segment_is_in_no_figure_of_the_rest(store: SqlStore) -> None:
    with undone(store) as w:
        row, rows = begun(w, 120, random.Random(4))
        report(w, [each for each in rows if IMX8 in each.segments])
        report(w, [each for each in rows if IMX8 not in each.segments], EventKind.INSTALLING)
        assert evidence(w, row)["rollout/failed"][1] is not None
        row = without(w, row, IMX8)
        found = evidence(w, row)
        assert found["rollout/failed"] == found["wave:all/failed"] == found[f"segment:{BERLIN}/failed"] == (0, None)
        assert found[f"segment:{IMX8}/failed"][0] == sum(IMX8 in each.segments for each in rows)
        (wave,) = w.facts(row, now=NOW).waves
        rest = [each for each in rows if IMX8 not in each.segments]
        assert (wave.reachable, wave.offered, wave.standing, wave.in_flight) == (len(rest),) * 4
        assert wave.bad(OutcomeClass.FAILED) == 0
        whole = next(one for one in w.facts(row, now=NOW).monitors if one.monitor == "rollout/failed")
        assert whole.places == len(rest)


def test_offers_that_have_not_started_are_withdrawn_and_started_ones_may_finish(store: SqlStore) -> None:
    with undone(store) as w:
        row, rows = begun(w, 60, random.Random(8))
        mine = [each for each in rows if IMX8 in each.segments]
        started, waiting = mine[::2], mine[1::2]
        report(w, started, EventKind.INSTALLING)
        row = without(w, row, IMX8)
        assert w.leave_out(row) == Moved(0, None), "once is enough"
        now = {each.device_key: update for each in mine if (update := w.update(row.key, each.device_key)) is not None}
        assert all(now[each.device_key].update.status is UpdateStatus.WITHDRAWN for each in waiting)
        assert all(now[each.device_key].update.status is UpdateStatus.INSTALLING for each in started)
        assert all(each.excluded for each in now.values())
        report(w, started)
        assert evidence(w, row)["rollout/failed"] == (0, None)
        assert evidence(w, row)[f"segment:{IMX8}/failed"][0] == len(started)
        assert wrong(w) == []


def test_no_later_slice_has_them_and_back_in_they_wait_for_one(store: SqlStore) -> None:
    with undone(store) as w:
        row, _ = begun(w, 80, random.Random(15), slices=1)
        row = without(w, row, IMX8, now=NOW + HOUR)
        later = more(w, row, 200, now=NOW + DAY)
        assert later is not None and IMX8 not in later.ranks
        assert row.scope is not None
        selector = row.scope.selectors[0]
        people = w.devices(DeviceFilter(hardware_id="imx8"), limit=1_000)
        passed_over = [one for one in people if w.update(row.key, one.key) is None]
        assert passed_over
        moved = w.let_back_in(row, IMX8, since=NOW + HOUR, now=NOW + 2 * DAY)
        assert moved == len(passed_over)
        row = settled(w, replace(row, state=include(row.state, IMX8)))
        assert wrong(w) == []
        opened = w.slices(row.key)
        for one in w.devices(DeviceFilter(hardware_id="imx8"), limit=1_000):
            place = place_in(opened, selector, one.device, DIMENSIONS)
            assert (place is None) == (one.key in {each.key for each in passed_over})
        third = more(w, row, 200, now=NOW + 3 * DAY)
        assert third is not None and third.members == len(passed_over)
        assert slice_of(w.slices(row.key), 0, NOW - 2 * DAY) is not None


def test_back_in_all_is_as_it_was(store: SqlStore) -> None:
    with undone(store) as w:
        row, rows = begun(w, 80, random.Random(16))
        report(w, rows[::3])
        before = evidence(w, row), list(w.facts(row, now=NOW).waves[0].slices)
        row = without(w, row, BERLIN)
        assert evidence(w, row) != before[0]
        row = settled(w, replace(row, state=include(row.state, BERLIN)))
        after = w.facts(row, now=NOW).waves[0].slices
        assert evidence(w, row) == before[0]
        assert [(p.members, p.excluded, p.offered, p.resolved, p.bad) for p in after] == [
            (p.members, 0, p.offered, p.resolved, p.bad) for p in before[1]
        ]
        assert sum(p.withdrawn for p in after) > 0, "withdrawn they stay, and are offered anew when they ask"
        assert wrong(w) == []


BROKEN = [
    ("UPDATE slice SET excluded = excluded + 1 WHERE number = 1", "members of excluded segments"),
    ("UPDATE slice SET offered = offered + 1 WHERE number = 2", "slice 2: offered"),
    (
        "UPDATE device_update SET slice_key = (SELECT t.key FROM slice_key t, slice_key s WHERE s.key = "
        "device_update.slice_key AND t.number = s.number AND t.wave = s.wave AND t.excluded = 0)",
        "updates of excluded segments",
    ),
    ("UPDATE monitor SET bad = bad + 1 WHERE name = 'rollout/failed'", "monitor rollout/failed (attempt 1): bad"),
    (f"UPDATE monitor SET bad = 0 WHERE name = 'segment:{IMX8}/failed'", f"monitor segment:{IMX8}/failed"),
    ("UPDATE monitor SET crossed_bad = 2, crossed_place = 2 WHERE name = 'wave:all/failed'", "crossing"),
    ("UPDATE rollout SET scope = replace(scope, 'hardware_id=imx8', 'hardware_id=rpi4')", "its scope leaves out"),
]


@pytest.mark.parametrize(("sql", "told"), BROKEN, ids=[told for _, told in BROKEN])
def test_whatever_is_broken_on_purpose_the_recount_finds(store: SqlStore, sql: str, told: str) -> None:
    with undone(store) as w:
        row, rows = begun(w, 80, random.Random(23))
        report(w, [each for each in rows if IMX8 in each.segments][:5])
        without(w, row, IMX8)
        assert wrong(w) == []
        w.link.run(sql, ())
        assert any(told in what for what in wrong(w)), wrong(w)


def test_while_the_outbox_has_not_come_to_it_the_recount_waits(store: SqlStore) -> None:
    with undone(store) as w:
        row, _ = begun(w, 40, random.Random(42))
        assert row.scope is not None
        state = exclude(row.state, IMX8, 9, BECAUSE, NOW, "ann")
        row = w.save_rollout(replace(row, state=state, scope=replace(row.scope, excluded=(IMX8,))))
        w.add_effects([Effect(EffectKind.LEAVE_OUT, row.state.rollout)])
        w.count_again(row)
        assert wrong(w) == []
        (effect,) = w.effects()
        w.finish_effect(effect.key)
        assert any("excluded segments" in what for what in wrong(w))
