"""One device's update: what events, check-ins and the clock make of it; nothing is ever counted twice (P10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import methodcaller

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.course import Course, course_values
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.update import (
    IGNORED_AFTER,
    KINDS_OF_FAILURE,
    UPDATE_MEANING,
    Counts,
    EventKind,
    Patience,
    Step,
    Update,
    UpdateStatus,
    comes_back,
    counted,
    offer,
    offer_again,
    on_check_in,
    on_deadline,
    on_event,
    retire,
    retired,
    retry,
    withdraw,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATIENCE = Patience(24 * HOUR)
OLD, NEW, THIRD = "a" * 64, "b" * 64, "c" * 64


class Life:
    """An update with a clock, and everything it has counted."""

    def __init__(self, from_commit: str | None = OLD) -> None:
        self.now = NOW
        self.counted: list[Counts] = []
        self.seen_at = NOW
        self.take(offer(from_commit=from_commit, to_commit=NEW, patience=PATIENCE, now=NOW))

    def take(self, step: Step[Update], alone: Step[Course] | None = None) -> Life:
        """``alone``: what the same made of the course without what the offer said."""
        if alone is not None:
            assert alone == (Course(*course_values(step.update)), step.counts, step.changed)
        assert step.changed or not step.counts, "what is counted is written"
        self.update = step.update
        self.counted.append(step.counts)
        return self

    @property
    def course(self) -> Course:
        return Course(*course_values(self.update))

    @property
    def sum(self) -> Counts:
        return sum(self.counted[1:], self.counted[0])

    def event(self, *kinds: EventKind, outcome: str | None = None) -> Life:
        for kind in kinds:
            alone = on_event(self.course, kind, patience=PATIENCE, now=self.now, outcome=outcome)
            self.take(on_event(self.update, kind, patience=PATIENCE, now=self.now, outcome=outcome), alone)
        return self

    def runs(self, commit: str | None, *, repeated: bool = True) -> Life:
        self.seen_at = self.now
        return self.take(on_check_in(self.update, running=commit, patience=PATIENCE, now=self.now, repeated=repeated))

    def after(self, hours: float) -> Life:
        self.now += hours * HOUR
        alone = on_deadline(self.course, last_seen_at=self.seen_at, patience=PATIENCE, now=self.now)
        step = on_deadline(self.update, last_seen_at=self.seen_at, patience=PATIENCE, now=self.now)
        return self.take(step, alone)

    def withdrawn(self) -> Life:
        return self.take(withdraw(self.update))

    def again(self) -> Life:
        return self.take(offer_again(self.update, from_commit=OLD, patience=PATIENCE, now=self.now))

    def retired(self) -> Life:
        return self.take(retire(self.update))

    def retried(self) -> Life:
        return self.take(retry(self.update, patience=PATIENCE, now=self.now))


# ------------------------------------------------------------------------------------------------- P10

_RENEWED = (UpdateStatus.WITHDRAWN, UpdateStatus.LEFT, UpdateStatus.RETIRED)

_LIVE: dict[str, Callable[[Life], object]] = {
    **{kind.value: methodcaller("event", kind) for kind in EventKind},
    **{f"{kind.value} by code": methodcaller("event", kind, outcome="modem") for kind in KINDS_OF_FAILURE},
    "verify_failed by itself": methodcaller("event", EventKind.VERIFY_FAILED, outcome=OutcomeClass.VERIFY_FAILED),
    "runs old": lambda life: life.runs(OLD),
    "runs new": lambda life: life.runs(NEW),
    "runs third": lambda life: life.runs(THIRD),
    "cannot say": lambda life: life.runs(None),
    "asks in a pause": lambda life: life.runs(OLD, repeated=False),
    "an hour": lambda life: life.after(1),
    "a day": lambda life: life.after(25),
    "withdraw": lambda life: life.withdrawn(),
    "retire": lambda life: life.retired(),
    "again": lambda life: life.again() if life.update.status in _RENEWED else life,
    "retry": lambda life: life.retried() if life.update.bad_outcome else life,
}


@given(st.lists(st.sampled_from(sorted(_LIVE)), max_size=40), st.sampled_from([OLD, None]))
def test_whatever_comes_in_whatever_order_each_is_counted_at_most_once(happens: list[str], before: str | None) -> None:
    life = Life(before)
    for what in happens:
        bad, resolved = life.update.bad, life.update.resolved
        _LIVE[what](life)
        assert life.update.bad >= bad, "a bad outcome is never taken back"
        assert life.update.resolved >= resolved, "nor a resolution"
        total = life.sum
        assert replace(total, bad=()) == replace(counted(life.update), bad=()), (what, life.update)
        assert Counter(total.bad) == Counter(life.update.bad), "each class once"
        assert all(each in (0, 1) for each in _numbers(total)), total
        assert total.confirmed <= total.resolved
        assert total.left + total.withdrawn + total.retired + total.resolved <= 1 or life.update.resolved


def _numbers(counts: Counts) -> tuple[int, ...]:
    return (
        counts.offered,
        counts.withdrawn,
        counts.started,
        counts.applied,
        counts.resolved,
        counts.confirmed,
        counts.left,
        counts.retired,
    )


@given(st.lists(st.sampled_from(sorted(_LIVE)), max_size=40))
def test_every_started_try_comes_to_an_end_when_nothing_more_is_heard(happens: list[str]) -> None:
    life = Life()
    for what in happens:
        _LIVE[what](life)
    for _ in range(3):
        life.after(100)
    assert not life.update.under_way
    assert life.update.deadline_at is None


@given(st.lists(st.sampled_from(sorted(_LIVE)), max_size=30), st.sampled_from(sorted(EventKind)))
def test_the_same_report_twice_changes_nothing_more(happens: list[str], kind: EventKind) -> None:
    life = Life()
    for what in happens:
        _LIVE[what](life)
    once = life.event(kind).update
    twice = life.event(kind).update
    assert (twice.status, twice.bad, twice.resolved) == (once.status, once.bad, once.resolved)


# ------------------------------------------------------------------------------------------------- the rules


def test_a_success_event_means_applied_and_only_a_check_in_confirms() -> None:
    life = Life().event(EventKind.DOWNLOADING, EventKind.INSTALLING, EventKind.APPLIED)
    assert (life.update.status, life.sum) == (UpdateStatus.APPLIED, Counts(offered=1, started=1, applied=1))
    life.runs(NEW)
    assert life.update.status is UpdateStatus.CONFIRMED
    assert life.sum == Counts(offered=1, started=1, applied=1, resolved=1, confirmed=1)


def test_events_out_of_order_never_lead_back() -> None:
    life = Life().event(EventKind.APPLIED, EventKind.DOWNLOADING, EventKind.INSTALLING)
    assert life.update.status is UpdateStatus.APPLIED
    assert Life().event(EventKind.FAILED, EventKind.INSTALLING).update.status is UpdateStatus.FAILED


def test_a_failure_is_never_overturned() -> None:
    life = Life().event(EventKind.FAILED).runs(NEW)
    assert (life.update.status, life.update.recovered_at) == (UpdateStatus.FAILED, NOW)
    assert (life.sum.resolved, life.sum.confirmed, life.sum.bad) == (1, 0, (OutcomeClass.FAILED,))


@pytest.mark.parametrize("event", [EventKind.FAILED, EventKind.ROLLED_BACK])
def test_a_confirmation_is_overturned_once(event: EventKind) -> None:
    life = Life().runs(NEW).event(event)
    assert (life.sum.resolved, life.sum.confirmed, len(life.sum.bad)) == (1, 0, 1)


def test_a_confirmed_device_that_runs_the_old_one_again_has_rolled_back() -> None:
    assert Life().runs(NEW).runs(OLD).update.status is UpdateStatus.ROLLED_BACK


def test_a_confirmed_device_that_runs_something_else_has_left_and_stays_resolved() -> None:
    life = Life().runs(NEW).runs(THIRD)
    assert (life.update.status, life.sum.resolved, life.sum.left) == (UpdateStatus.LEFT, 1, 0)


def test_a_device_that_runs_neither_has_left_without_an_outcome_and_may_come_back() -> None:
    life = Life().event(EventKind.DOWNLOADING).runs(THIRD)
    assert (life.update.status, life.sum.left, life.sum.resolved) == (UpdateStatus.LEFT, 1, 0)
    life.runs(NEW)
    assert (life.update.status, life.sum.left, life.sum.resolved) == (UpdateStatus.CONFIRMED, 0, 1)


def test_three_check_ins_with_the_offer_and_no_start_are_ignoring_it() -> None:
    life = Life()
    for _ in range(IGNORED_AFTER - 1):
        assert life.runs(OLD).update.status is UpdateStatus.OFFERED
    assert life.runs(OLD).update.status is UpdateStatus.IGNORED


def test_a_device_that_cannot_say_what_it_runs_ignores_an_offer_as_others_do() -> None:
    life = Life(None)
    for _ in range(IGNORED_AFTER):
        life.runs(None)
    assert life.update.status is UpdateStatus.IGNORED


def test_looks_close_together_come_back_once() -> None:
    """The offer at 12:00, looks every minute, one asked for each hour: it has come back at 13:00, 14:00 and 15:00."""
    life = Life()
    back = []
    for minute in range(1, 200):
        life.now = NOW + minute * HOUR / 60
        if comes_back(life.update, HOUR, life.now):
            back.append(minute)
            life.runs(OLD)
    assert back == [60, 120, 180]
    assert life.update.status is UpdateStatus.IGNORED


def test_a_device_that_stops_when_it_is_told_to_has_no_outcome() -> None:
    life = Life().event(EventKind.DOWNLOADING, EventKind.INSTALLING, EventKind.CANCELLED)
    assert (life.update.status, life.update.deadline_at) == (UpdateStatus.WITHDRAWN, None)
    assert (life.sum.started, life.sum.withdrawn, life.sum.resolved, life.sum.bad) == (1, 1, 0, ())
    assert not life.runs(OLD).update.bad, "it runs what it had, as it was told to"
    assert life.again().event(EventKind.INSTALLING, EventKind.APPLIED).runs(NEW).sum.confirmed == 1


@pytest.mark.parametrize("before", [EventKind.APPLIED, EventKind.FAILED])
def test_what_is_written_or_over_is_not_cancelled(before: EventKind) -> None:
    life = Life().event(EventKind.INSTALLING, before)
    status = life.update.status
    assert life.event(EventKind.CANCELLED).update.status is status


@pytest.mark.parametrize("before", [(), (EventKind.DOWNLOADING,), (EventKind.INSTALLING, EventKind.APPLIED)])
def test_a_device_that_refuses_by_itself_ignores_the_offer_at_once(before: tuple[EventKind, ...]) -> None:
    life = Life().event(*before, EventKind.REFUSED)
    assert (life.update.status, life.update.bad) == (UpdateStatus.IGNORED, frozenset({OutcomeClass.IGNORED}))


def test_what_is_only_noted_is_no_start() -> None:
    life = Life().event(EventKind.NOTED)
    assert (life.update.status, life.update.started) == (UpdateStatus.OFFERED, False)


def test_a_device_ignores_nothing_while_nothing_is_offered() -> None:
    life = Life()
    for _ in range(10):
        life.runs(OLD, repeated=False)
    assert life.update.status is UpdateStatus.OFFERED


def test_silence_runs_from_installing_and_not_from_what_follows_it() -> None:
    life = Life().event(EventKind.INSTALLING)
    life.now += 20 * HOUR
    life.event(EventKind.APPLIED)
    assert life.update.deadline_at == NOW + 24 * HOUR


def test_silence_of_an_offered_device_that_is_heard_of_waits() -> None:
    life = Life()
    life.now += 20 * HOUR
    life.runs(OLD)
    assert life.after(5).update.status is UpdateStatus.OFFERED
    assert life.after(24).update.status is UpdateStatus.SILENT


def test_a_started_device_is_silent_although_it_still_asks() -> None:
    life = Life().event(EventKind.DOWNLOADING)
    life.now += 23 * HOUR
    life.runs(OLD)
    assert life.after(2).update.status is UpdateStatus.SILENT


def test_a_device_that_goes_dark_right_after_it_confirmed_is_silent() -> None:
    life = Life().runs(NEW).after(25)
    assert (life.update.status, life.sum.confirmed) == (UpdateStatus.SILENT, 0)


def test_a_confirmed_device_is_watched_until_its_rollout_ends() -> None:
    """Day 0 confirmed, then heard of every six hours; on day 3 it goes dark."""
    life = Life().runs(NEW)
    for _ in range(12):
        life.after(6)
        life.runs(NEW)
    assert life.update.status is UpdateStatus.CONFIRMED
    assert life.after(20).update.status is UpdateStatus.CONFIRMED
    assert life.after(5).update.status is UpdateStatus.SILENT
    assert (life.sum.resolved, life.sum.confirmed, life.sum.bad) == (1, 0, (OutcomeClass.SILENT,))


def test_a_confirmed_device_is_looked_at_once_in_a_patience() -> None:
    life, looks = Life().runs(NEW), 0
    for _ in range(10 * 24):
        life.now += HOUR
        life.runs(NEW)
        before = life.update
        looks += life.after(0).update is not before
    assert looks <= 10


def test_confirmed_devices_are_due_at_few_moments() -> None:
    lives = [Life() for _ in range(1_000)]
    for number, life in enumerate(lives):
        life.now += number * timedelta(minutes=1)
        life.runs(NEW)
    due = {life.update.deadline_at for life in lives}
    assert len(due) <= 1_000 / 14
    assert all(NOW + 24 * HOUR <= each <= NOW + 41 * HOUR for each in due if each is not None)


@pytest.mark.parametrize(("confirmed", "seen", "counts"), [(0, 0, False), (2, 2, True), (2, 3, False)])
def test_after_the_rollout_has_ended_only_updates_in_flight_are_watched(
    confirmed: int, seen: int, counts: bool
) -> None:
    """Completed after one hour: who had confirmed is left alone, who confirms later is looked at once."""
    life = Life()
    life.now += confirmed * HOUR
    update = life.runs(NEW).update
    step = on_deadline(
        update,
        last_seen_at=NOW + seen * HOUR,
        patience=PATIENCE,
        now=NOW + 30 * HOUR,
        ended_at=NOW + HOUR,
    )
    assert (step.update.status is UpdateStatus.SILENT, step.update.deadline_at) == (counts, None)


def test_who_comes_back_from_a_departure_is_watched_again() -> None:
    assert Life().runs(NEW).runs(THIRD).runs(NEW).after(25).update.status is UpdateStatus.SILENT


def test_patience_is_at_least_three_usual_gaps() -> None:
    assert Patience(24 * HOUR, 2 * HOUR).length == 24 * HOUR
    assert Patience(24 * HOUR, 24 * HOUR).length == 72 * HOUR


def test_a_withdrawn_offer_whose_device_starts_all_the_same_counts() -> None:
    life = Life().withdrawn()
    assert life.sum == Counts(offered=1, withdrawn=1)
    life.event(EventKind.INSTALLING)
    assert (life.update.status, life.sum) == (UpdateStatus.INSTALLING, Counts(offered=1, started=1))


def test_only_what_has_not_started_is_withdrawn() -> None:
    assert Life().event(EventKind.DOWNLOADING).withdrawn().update.status is UpdateStatus.DOWNLOADING


def test_a_failed_download_is_no_end_and_is_counted_once() -> None:
    life = Life().event(EventKind.DOWNLOAD_FAILED, EventKind.DOWNLOAD_FAILED)
    assert (life.update.status, life.sum.resolved) == (UpdateStatus.DOWNLOADING, 0)
    assert life.sum.bad == (OutcomeClass.DOWNLOAD_FAILED,)
    assert life.runs(NEW).sum.confirmed == 1


def test_whose_download_failed_in_a_hold_is_not_silent_as_long_as_it_is_seen() -> None:
    """Day 0: held; its download fails, and it asks every six hours and is offered nothing. Day 1: its offer is taken
    back, and it holds no part of the pace. Day 4: resumed, it is offered the Target anew and confirms."""
    life = Life().event(EventKind.DOWNLOADING, EventKind.DOWNLOAD_FAILED)
    for _ in range(16):
        life.after(6)
        life.runs(OLD, repeated=False)
    assert life.update.status is UpdateStatus.WITHDRAWN
    assert (life.sum.withdrawn, life.sum.resolved, life.sum.bad) == (1, 0, (OutcomeClass.DOWNLOAD_FAILED,))
    life.again().event(EventKind.DOWNLOADING, EventKind.INSTALLING).runs(NEW)
    assert (life.sum.withdrawn, life.sum.confirmed) == (0, 1)


def test_whose_downloads_go_on_failing_is_at_it_as_long_as_it_says_so() -> None:
    life = Life()
    for _ in range(10):
        life.after(20).event(EventKind.DOWNLOAD_FAILED)
    assert life.update.status is UpdateStatus.DOWNLOADING
    assert life.runs(OLD).after(23).update.status is UpdateStatus.DOWNLOADING
    assert life.runs(OLD).after(2).update.status is UpdateStatus.WITHDRAWN


def test_whose_download_failed_is_silent_when_it_is_seen_no_more_or_has_installed_since() -> None:
    assert Life().event(EventKind.DOWNLOAD_FAILED).after(25).update.status is UpdateStatus.SILENT
    life = Life().event(EventKind.DOWNLOAD_FAILED, EventKind.INSTALLING)
    life.now += 23 * HOUR
    life.runs(OLD)
    assert life.after(2).update.status is UpdateStatus.SILENT


def test_a_failed_download_after_the_withdrawal_leaves_the_offer_withdrawn() -> None:
    life = Life().withdrawn().event(EventKind.DOWNLOAD_FAILED).after(1000)
    assert (life.update.status, life.sum.bad) == (UpdateStatus.WITHDRAWN, (OutcomeClass.DOWNLOAD_FAILED,))


def test_an_offer_given_again_keeps_what_was_counted() -> None:
    life = Life().withdrawn().again()
    assert (life.update.status, life.sum) == (UpdateStatus.OFFERED, Counts(offered=1))


class TestRetry:
    """A new try for a device with a bad outcome: what was counted stays."""

    def test_it_succeeds(self) -> None:
        life = Life().event(EventKind.FAILED).retried().event(EventKind.APPLIED).runs(NEW)
        assert (life.update.status, life.update.recovered_at, life.update.tries) == (UpdateStatus.CONFIRMED, NOW, 2)
        assert (life.sum.resolved, life.sum.confirmed, life.sum.bad) == (1, 0, (OutcomeClass.FAILED,))

    def test_it_fails_the_same_way_again(self) -> None:
        life = Life().event(EventKind.FAILED).retried().event(EventKind.FAILED)
        assert (life.update.status, life.sum.bad) == (UpdateStatus.FAILED, (OutcomeClass.FAILED,))

    def test_it_succeeds_after_a_rollback(self) -> None:
        life = Life().runs(NEW).runs(OLD).retried().runs(OLD).runs(NEW)
        assert life.update.status is UpdateStatus.CONFIRMED

    def test_it_goes_dark(self) -> None:
        life = Life().event(EventKind.FAILED).retried().event(EventKind.INSTALLING).after(30)
        assert life.update.status is UpdateStatus.SILENT

    @pytest.mark.parametrize("first", [EventKind.FAILED, None])
    def test_it_ignores_the_second_offer(self, first: EventKind | None) -> None:
        life = Life()
        if first is not None:
            life.event(first)
        else:
            life.runs(OLD).runs(OLD).runs(OLD)
        life.retried().runs(OLD).runs(OLD)
        assert life.update.status is UpdateStatus.OFFERED
        life.runs(OLD)
        assert (life.update.status, life.update.deadline_at) == (UpdateStatus.IGNORED, None)
        assert (life.sum.started, life.sum.resolved) == (0 if first is None else 1, 1)

    def test_it_is_taken_back_before_it_starts(self) -> None:
        life = Life().event(EventKind.FAILED).retried().withdrawn()
        assert (life.update.status, life.update.deadline_at) == (UpdateStatus.WITHDRAWN, None)
        assert life.sum == Counts(offered=1, started=1, resolved=1, bad=(OutcomeClass.FAILED,))
        assert life.again().event(EventKind.APPLIED).runs(NEW).update.recovered_at == NOW


class TestRetirement:
    """The retired leave denominators (RULES 7.7)."""

    @pytest.mark.parametrize("before", [[], [EventKind.DOWNLOADING], [EventKind.INSTALLING], [EventKind.APPLIED]])
    def test_what_came_to_no_outcome_never_will(self, before: list[EventKind]) -> None:
        life = Life().event(*before).retired()
        assert (life.update.status, life.update.deadline_at, life.sum.retired) == (UpdateStatus.RETIRED, None, 1)
        life.event(EventKind.FAILED).runs(OLD).after(100)
        assert (life.update.status, life.sum.resolved, life.sum.bad) == (UpdateStatus.RETIRED, 0, ())

    def test_an_outcome_stays_and_is_not_watched_any_more(self) -> None:
        assert Life().runs(NEW).retired().after(1000).sum.confirmed == 1
        assert Life().event(EventKind.FAILED).retired().sum.bad == (OutcomeClass.FAILED,)

    def test_taken_back_it_goes_on_at_its_place(self) -> None:
        life = Life().event(EventKind.DOWNLOADING).retired().again()
        assert (life.update.status, life.sum) == (UpdateStatus.OFFERED, Counts(offered=1, started=1))

    def test_a_place_without_an_offer(self) -> None:
        step = retired(from_commit=OLD, to_commit=NEW, now=NOW)
        assert (step.update.status, step.counts) == (UpdateStatus.RETIRED, Counts(offered=1, retired=1))


def test_every_status_has_a_sentence() -> None:
    assert set(UPDATE_MEANING) == set(UpdateStatus)


def test_an_update_without_a_known_source_can_still_confirm_and_ignore() -> None:
    assert Life(None).runs(NEW).update.status is UpdateStatus.CONFIRMED
    life = Life(None)
    for _ in range(IGNORED_AFTER):
        life.runs(OLD)
    assert life.update.status is UpdateStatus.IGNORED


def test_before_its_deadline_nothing_is_silent() -> None:
    update: Update = Life().update
    assert not on_deadline(update, last_seen_at=None, patience=PATIENCE, now=NOW + 23 * HOUR).changed
