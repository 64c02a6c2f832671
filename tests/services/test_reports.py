"""Reports: each event once, bad items named, the halt in the transaction that proves it, silence in its time."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.evidence.log import Digesting, parsed
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import EventKind, UpdateStatus, counted
from orchestrator.errors import Unauthorized
from orchestrator.services.messages import Received
from orchestrator.services.room import LOOK_AFTER, MOST_KEPT
from tests.services.fleet_world import START, World

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LONG_BAKE = {"bake": {"at_least": "20d", "at_most": "30d"}}


@pytest.fixture
def offered(world: World) -> list[str]:
    """Twenty devices that have the offer."""
    fleet = world.fleet(20)
    world.apply()
    for device in fleet:
        assert world.check_in(device)
    return fleet


def tallies_equal_a_recount(world: World, rollout: str = "lmp-42") -> None:
    """The stored tallies are the sum of what the updates as they stand count."""
    with world.store.reading() as r:
        row = r.rollout(rollout)
        assert row is not None
        updates = [each for _, each in r.list_updates(row.key, limit=100_000)]
        facts = r.facts(row, now=world.now)
        assert not r.check()
    for wave in facts.waves:
        for piece in wave.slices:
            mine = [each for each in updates if (each.wave, each.slice) == (wave.wave, piece.number)]
            total = [counted(each.update) for each in mine]
            for name in ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "left"):
                assert getattr(piece, name) == sum(getattr(each, name) for each in total), name
            assert piece.bad == Counter(bad for each in total for bad in each.bad)


class TestWhatIsTaken:
    def test_good_items_are_kept_and_bad_ones_named(self, world: World, offered: list[str]) -> None:
        world.target(43)
        world.apply(name="other", target=43, start=False)
        items = [
            world.event("downloading"),
            world.event("downloading", rollout="no-such"),
            world.event("downloading", rollout="no\0such"),
            world.event("downloading", target=41),
            world.event("exploded"),
            world.event("installing", rollout="other", target=43),
            world.event("installing", id=""),
            world.event("installing", id="x" * 200),
            world.event("installing"),
        ]
        received = world.report(offered[0], *items)
        assert (received.accepted, received.duplicates) == (2, 0)
        assert [(each.index, each.kind) for each in received.refused] == [
            (1, "unknown_rollout"),
            (2, "unknown_rollout"),
            (3, "other_target"),
            (4, "unknown_event"),
            (5, "not_offered"),
            (6, "bad_id"),
            (7, "bad_id"),
        ]
        assert all(each.message.endswith(".") for each in received.refused)
        assert world.status(offered[0]) is UpdateStatus.INSTALLING

    def test_a_device_that_was_never_offered_is_refused(self, world: World) -> None:
        fleet = world.fleet(1)
        world.apply()
        assert [each.kind for each in world.report(fleet[0], "failed").refused] == ["not_offered"]

    def test_an_event_counts_once_however_often_it_is_sent(self, world: World, offered: list[str]) -> None:
        event = world.event("failed")
        assert world.report(offered[0], event, event) == Received(1, 1)
        assert world.report(offered[0], event) == Received(0, 1)
        assert world.facts().waves[0].bad(OutcomeClass.FAILED) == 1

    def test_the_same_id_of_another_device_is_another_event(self, world: World, offered: list[str]) -> None:
        event = world.event("downloading")
        assert [world.report(device, event).accepted for device in offered[:2]] == [1, 1]

    def test_texts_of_a_device_are_shown_and_cut_but_never_believed(self, world: World, offered: list[str]) -> None:
        event = world.event("failed", at="2999-01-01T00:00:00Z", code="x\0y" * 100, message="m" * 100_000)
        world.report(offered[0], event)
        with world.store.reading() as r:
            (logged,) = r.events(device=offered[0])
        assert (logged.received_at, logged.device_at) == (world.now, "2999-01-01T00:00:00Z")
        assert logged.code is not None and logged.message is not None
        assert (len(logged.code) <= 128, len(logged.message), "\0" in logged.code) == (True, 2000, False)
        assert world.update(offered[0]).update.started_at == world.now

    @pytest.mark.parametrize("order", ["pause", "halt", "cancel"])
    def test_started_devices_are_heard_whatever_the_status(self, world: World, offered: list[str], order: str) -> None:
        world.report(offered[0], "downloading")
        getattr(world.rollouts, order)("lmp-42", by="anna")
        world.tick()
        assert world.report(offered[0], "installing", "applied", "failed").accepted == 3
        assert world.status(offered[0]) is UpdateStatus.FAILED
        assert world.row().state.status.value in {"paused", "halted", "cancelled"}
        tallies_equal_a_recount(world)

    def test_a_withdrawn_device_that_had_started_after_all_counts_again(self, world: World, offered: list[str]) -> None:
        world.rollouts.halt("lmp-42", by="anna")
        world.tick()
        world.report(offered[0], "installing")
        assert world.status(offered[0]) is UpdateStatus.INSTALLING
        assert world.facts().waves[0].slices[0].withdrawn == 19

    def test_the_token_is_asked_first(self, world: World, offered: list[str]) -> None:
        with pytest.raises(Unauthorized):
            world.devices.report(offered[0], world.tokens[offered[1]], [world.event("failed")])

    def test_nothing_to_tell_is_told(self, world: World, offered: list[str]) -> None:
        assert world.report(offered[0]) == Received(0, 0)

    def test_ten_thousand_events_at_once(self, world: World, offered: list[str]) -> None:
        events = [world.event("downloading") for _ in range(10_000)]
        assert world.report(offered[0], *events) == Received(10_000, 0)
        assert world.report(offered[0], *events[:MOST_KEPT]) == Received(0, MOST_KEPT)

    def test_what_is_counted_for_metrics(self, world: World, offered: list[str]) -> None:
        event = world.event("downloading")
        world.report(offered[0], event, event, world.event("exploded"))
        reports = world.devices.reports
        assert (reports.accepted, reports.duplicates, reports.refused) == (1, 1, 1)
        assert world.devices.check_ins.offers == 20


class TestHowMuchIsKept:
    """A device that says very much of one update fills no store, is not told to say it again, and is heard."""

    def kept(self, world: World, device: str) -> list[str]:
        with world.store.reading() as r:
            return [each.kind for each in r.events(device=device, limit=10_000)]

    def test_beyond_so_many_only_what_moves_the_update_is_kept(self, world: World, offered: list[str]) -> None:
        device = offered[0]
        for _ in range(6):
            assert world.report(device, *["noted"] * 300) == Received(300, 0)
        assert len(self.kept(world, device)) == MOST_KEPT
        assert world.report(device, "downloading", "downloading", "noted", "installing") == Received(4, 0)
        assert self.kept(world, device)[MOST_KEPT:] == ["downloading", "installing"]
        failure = world.event("failed")
        assert world.report(device, failure) == Received(1, 0)
        assert world.report(device, failure) == Received(0, 1)
        assert world.status(device) is UpdateStatus.FAILED
        assert world.facts().waves[0].bad(OutcomeClass.FAILED) == 1
        assert len(self.kept(world, device)) == MOST_KEPT + 3
        assert world.report(offered[1], "downloading") == Received(1, 0) and self.kept(world, offered[1])
        tallies_equal_a_recount(world)

    def test_a_download_that_fails_for_ever_is_heard_and_not_kept_for_ever(
        self, world: World, offered: list[str]
    ) -> None:
        world.report(offered[0], "download_failed", *["noted"] * MOST_KEPT)
        before = world.update(offered[0]).update.deadline_at
        world.later(HOUR)
        assert world.report(offered[0], "download_failed") == Received(1, 0)
        after = world.update(offered[0]).update.deadline_at
        assert before is not None and after == before + HOUR
        assert len(self.kept(world, offered[0])) == MOST_KEPT

    @pytest.mark.parametrize("progress", ["downloading", "installing"])
    def test_who_goes_on_and_stops_again_and_again_is_heard_and_not_kept_for_ever(
        self, world: World, progress: str
    ) -> None:
        device, *_ = world.fleet(20)
        world.apply(policy={"on_halt": ["withdraw", "cancel"]})
        world.check_in(device)
        world.report(device, progress)
        world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        world.tick()
        for _ in range(3):
            assert world.report(device, *[progress, "cancelled"] * 200) == Received(400, 0)
        assert world.status(device) is UpdateStatus.WITHDRAWN
        assert len(self.kept(world, device)) == MOST_KEPT
        world.report(device, progress)
        assert world.status(device).value == progress
        world.report(device, "failed")
        assert self.kept(world, device)[MOST_KEPT:] == ["failed"]
        tallies_equal_a_recount(world)

    def test_another_process_counts_what_is_kept_already(self, world: World, offered: list[str]) -> None:
        world.report(offered[0], *["noted"] * MOST_KEPT)
        other = world.another()
        for _ in range(3):
            items = [world.event("noted") for _ in range(LOOK_AFTER)]
            assert other.report(offered[0], world.tokens[offered[0]], items).result(10).accepted == LOOK_AFTER
        assert len(self.kept(world, offered[0])) == MOST_KEPT + LOOK_AFTER


class TestTheHalt:
    """RULES 1.4: the transaction that counts the crossing report sets the halt."""

    def test_it_is_committed_with_the_report_that_proves_it(self, world: World, offered: list[str]) -> None:
        failed = 0
        while world.row().state.status is RolloutStatus.RUNNING:
            world.report(offered[failed], "failed")
            failed += 1
        assert world.row().state.status is RolloutStatus.HALTED
        assert failed <= 5
        assert world.facts().waves[0].bad(OutcomeClass.FAILED) == failed
        assert world.pokes
        assert [world.check_in(device) for device in offered] == [None] * 20
        tallies_equal_a_recount(world)

    def test_settling_is_asked_once_for_each_rollout_of_a_batch(self, world: World, offered: list[str]) -> None:
        asked: list[int] = []

        def note(w, key, *, now):
            asked.append(key)
            return False

        world.devices.reports.settle = note
        world.report(offered[0], *["failed"] * 5, "rolled_back")
        assert len(asked) == 1
        world.report(offered[0], "failed", "downloading")
        assert len(asked) == 1, "nothing new is bad"

    def test_a_batch_that_is_lost_leaves_nothing(self, world: World, offered: list[str]) -> None:
        def broken(*args: object, **more: object) -> bool:
            raise ZeroDivisionError

        world.devices.reports.settle = broken
        event = world.event("failed")
        with pytest.raises(ZeroDivisionError):
            world.report(offered[0], event)
        assert world.facts().waves[0].slices[0].started == 0
        with world.store.reading() as r:
            assert not r.events()


class TestSilence:
    def test_it_is_counted_when_its_time_has_come(self, world: World, offered: list[str]) -> None:
        world.check_in(offered[0], 42)
        world.later(23 * HOUR)
        assert world.facts().waves[0].bad(OutcomeClass.SILENT) == 0
        world.later(2 * HOUR)
        assert world.facts().waves[0].bad(OutcomeClass.SILENT) == 20
        tallies_equal_a_recount(world)

    def test_devices_that_are_heard_of_are_not_silent(self, world: World, offered: list[str]) -> None:
        world.later(23 * HOUR)
        for device in offered:
            world.check_in(device)
        world.later(2 * HOUR)
        assert world.facts().waves[0].bad(OutcomeClass.SILENT) == 0

    def test_a_release_that_bricks_after_some_hours_is_seen(self, world: World) -> None:
        """Hour 0 all confirm; they ask every hour until hour 30, then a fifth of them is dark for good."""
        fleet = world.fleet(20)
        world.apply(policy=LONG_BAKE)
        for hour in range(56):
            for device in fleet if hour < 30 else fleet[4:]:
                world.check_in(device, 41 if hour == 0 else 42)
            world.devices.writer._touch_only()
            world.later(HOUR)
            assert world.facts().waves[0].bad(OutcomeClass.SILENT) == (4 if hour >= 53 else 0)
        tallies_equal_a_recount(world)

    def test_a_week_without_the_gateway_makes_nobody_silent(self, world: World) -> None:
        """They ask every eight hours. The gateway stops half an hour before all of them are looked at and is away for a
        week."""
        fleet = world.fleet(20)
        for hours in (8, 8, 8, 8, 8, 7.5):
            world.later(hours * HOUR)
            for device in fleet[: 0 if hours < 8 else 20]:
                world.check_in(device, 42 if "lmp-42" in world.devices.board.snapshot.by_name else 41)
            if world.now == START + 24 * HOUR:
                world.apply(policy=LONG_BAKE)
                for device in fleet:
                    assert world.check_in(device) is not None
                    world.check_in(device, 42)
        world.devices.writer._touch_only()
        world.now += 7 * DAY
        with world.store.writing() as w:
            w.postpone_deadlines(7 * DAY, now=world.now)
        world.later(HOUR)
        assert world.facts().waves[0].bad(OutcomeClass.SILENT) == 0

    def test_more_than_a_batch_of_them(self, world: World) -> None:
        fleet = world.fleet(1200)
        world.apply(policy={"slices": {"first": 1200}, "tolerate": {"silent": {"at_most": "5%", "then": "count"}}})
        for device in fleet:
            world.check_in(device)
        world.now += 25 * HOUR
        with world.store.writing() as w:
            row = w.rollout("lmp-42")
            assert row is not None
            assert world.devices.expire(w, row, now=world.now) == 1200
        assert world.facts().waves[0].bad(OutcomeClass.SILENT) == 1200


# ------------------------------------------------------------------------------------------------- whatever comes

_STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([*map(str, EventKind), "again", "runs 41", "runs 42", "runs 40", "halt", "resume", "a day"]),
    ),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(_STEPS)
def test_tallies_equal_a_recount_whatever_is_sent_and_done(steps: list[tuple[int, str]]) -> None:
    world = World()
    try:
        fleet = world.fleet(4)
        world.apply(policy={"tolerate": {each.value: {"at_most": "15%", "then": "count"} for each in OutcomeClass}})
        sent = [world.event("downloading")]
        for number, what in steps:
            device = fleet[number]
            if what.startswith("runs"):
                world.check_in(device, int(what[5:]))
            elif what == "again":
                world.report(device, sent[-1], sent[0])
            elif what == "halt" and world.row().state.status is RolloutStatus.RUNNING:
                world.rollouts.halt("lmp-42", by="anna")
                world.tick()
            elif what == "resume" and world.row().state.status is RolloutStatus.HALTED:
                world.rollouts.resume("lmp-42", by="anna", reason="Again.")
                world.tick()
            elif what == "a day":
                world.later(25 * HOUR)
            elif what in set(EventKind):
                sent.append(world.event(what))
                world.report(device, sent[-1])
        tallies_equal_a_recount(world)
    finally:
        world.close()


# ------------------------------------------------------------------------------------------------- races


@pytest.mark.parametrize("cap", [None, 7])
def test_no_offer_commits_after_the_halt_and_the_cap_holds_among_many_threads(tmp_path: Path, cap: int | None) -> None:
    """P6: eight threads check in 200 devices as fast as they can, while failures are reported until the halt."""
    world = World(f"sqlite:///{tmp_path / 'wave.db'}")
    devices = world.fleet(200)
    pace = {} if cap is None else {"pace": {"in_flight": cap}}
    tolerate = {"ignored": {"at_most": "15%", "then": "count"}}
    world.apply(policy={"slices": {"first": 200}, "tolerate": tolerate, **pace})
    commits: list[tuple[str, int]] = []
    stopping = threading.Event()
    answered: list[str] = []
    run = world.devices.check_ins.run

    def watched(batch, arrivals):  # the order of commits is the order of this list: there is one writer
        found = run(batch, arrivals)
        flying = sum(wave.in_flight for wave in batch.w.facts(batch.w.rollout("lmp-42"), now=batch.now).waves)
        given = world.devices.check_ins.offers
        batch.after.append(lambda: commits.append(("offers", world.devices.check_ins.offers - given)))
        assert cap is None or flying <= cap
        return found

    object.__setattr__(world.devices._check_ins, "run", watched)
    settle = world.devices.reports.settle

    def watched_settle(w, key, *, now):
        stopped = settle(w, key, now=now)
        if stopped:
            commits.append(("halt", 1))
        return stopped

    world.devices.reports.settle = watched_settle

    def asks(mine: list[str]) -> None:
        while not stopping.is_set():
            for device in mine:
                found = world.devices.check_in(device, world.tokens[device], world.said(41))
                answer = found.result(20) if isinstance(found, Future) else found
                if answer.offer is not None:
                    answered.append(device)

    threads = [threading.Thread(target=asks, args=(devices[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    try:
        failed: set[str] = set()
        while len(failed) < 100 and world.row().state.status is not RolloutStatus.HALTED:
            device = next((each for each in list(answered) if each not in failed), None)
            if device is not None:
                failed.add(device)
                world.report(device, "failed")
        halted_with = world.facts().waves[0].offered
        for _ in range(20):
            world.report(devices[0], "downloading")
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)
    assert world.row().state.status is RolloutStatus.HALTED
    assert world.facts().waves[0].offered == halted_with
    halt = commits.index(("halt", 1))
    assert all(given == 0 for what, given in commits[halt + 1 :] if what == "offers")
    tallies_equal_a_recount(world)
    world.close()


class TestEvidenceLog:
    """RULES 9.1: every outcome that counted, in its order, with the places it counted at."""

    def test_it_holds_what_reports_and_check_ins_decided_and_each_once(self, world: World, offered: list[str]) -> None:
        world.report(offered[0], "installing", "failed", "failed")
        world.report(offered[1], "applied")
        world.check_in(offered[1], 42)
        world.check_in(offered[1], 41)
        key = world.row().key
        with world.store.reading() as r:
            rows, head, lines = r.outcomes(key), r.evidence_head(key), r.evidence_lines(key)
        assert [row.outcome for row in rows] == ["failed", "confirmed", "rolled_back"]
        update = world.update(offered[0])
        assert (rows[0].rollout_place, rows[0].wave_place, rows[0].wave) == (*update.places, update.wave)
        assert rows[0].received_at == world.now
        assert head == lines[-1][0] and [parsed(line).outcome for _, line in lines] == [row.outcome for row in rows]

    def test_a_journal_entry_names_its_last_row_and_digest(self, world: World, offered: list[str]) -> None:
        world.report(offered[0], "failed")
        key = world.row().key
        with world.store.reading() as r:
            log = Digesting()
            log.extend(r.evidence_lines(key))
        world.rollouts.pause("lmp-42", by="anna")
        with world.store.reading() as r:
            entry = r.journal(key)[-1]
        assert log.rows == 1 and entry.evidence_seq == log.seq
        assert entry.facts["evidence"] == log.covered()._asdict()
