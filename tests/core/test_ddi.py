"""hawkBit's numbers and words in ours."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.course import Course
from orchestrator.core.ddi import (
    MOST_ROLLOUTS,
    MOST_TRIES,
    Execution,
    Finished,
    Said,
    Standing,
    action_of,
    event_of,
    event_of_cancellation,
    linked,
    parts_of,
    standing,
)
from orchestrator.core.update import STOPPABLE, EventKind, UpdateStatus
from orchestrator.errors import Refused

KEYS, TRIES = st.integers(1, MOST_ROLLOUTS), st.integers(1, MOST_TRIES)
SAID = st.builds(
    Said, st.sampled_from(Execution), st.sampled_from(Finished), st.lists(st.text(), max_size=3), st.booleans()
)


@given(KEYS, TRIES, KEYS, TRIES)
def test_each_try_at_each_rollout_has_its_own_positive_number_of_31_bits(key: int, tries: int, k: int, t: int) -> None:
    action = action_of(key, tries)
    assert 0 < action < 2**31
    assert parts_of(action) == (key, tries)
    assert (action_of(k, t) == action) is ((k, t) == (key, tries))


@pytest.mark.parametrize(("key", "tries"), [(0, 1), (MOST_ROLLOUTS + 1, 1), (1, 0), (1, MOST_TRIES + 1)])
def test_numbers_that_are_used_up_are_refused(key: int, tries: int) -> None:
    with pytest.raises(Refused, match="used up"):
        action_of(key, tries)


FAILURES = [
    (["Failure in streaming", "x"], EventKind.FAILED),
    (["[ERROR] : Checksum does not match: calculated 12, expected 34"], EventKind.VERIFY_FAILED),
    (["Software: demo V1. Invalid checksum: 12 expected 34"], EventKind.VERIFY_FAILED),
    (["cannot parse", "Image invalid or corrupted. Not installing ..."], EventKind.VERIFY_FAILED),
    (["Download failed: HTTP response code said error (404)"], EventKind.DOWNLOAD_FAILED),
    (["", "Channel get operation failed (18): 'Transferred a partial file'"], EventKind.DOWNLOAD_FAILED),
    (["Channel operation returned HTTP error code 404."], EventKind.DOWNLOAD_FAILED),
    (["post.sh exited with 1", "Channel get operation failed (18): 'x'"], EventKind.FAILED),
    (["Channel get operation failed (23): 'Failed writing received data'"], EventKind.FAILED),
    ([], EventKind.FAILED),
]


@pytest.mark.parametrize(("details", "kind"), FAILURES)
def test_failures_are_told_apart_by_what_known_clients_say(details: list[str], kind: EventKind) -> None:
    assert event_of(Said(Execution.CLOSED, Finished.FAILURE, details)) is kind


@given(SAID)
def test_only_a_closed_action_applies_or_fails(said: Said) -> None:
    ends = {EventKind.APPLIED, EventKind.FAILED, EventKind.VERIFY_FAILED, EventKind.DOWNLOAD_FAILED}
    assert event_of(said) not in ends or said.execution is Execution.CLOSED
    if said.execution is Execution.CLOSED:
        assert (event_of(said) in ends - {EventKind.APPLIED}) is (said.finished is Finished.FAILURE)


@given(SAID)
def test_a_cancellation_ends_only_by_a_word_that_ends_it(said: Said) -> None:
    over = said.execution in (Execution.CLOSED, Execution.CANCELED)
    assert (event_of_cancellation(said) is EventKind.NOTED) is not over


def update(status: UpdateStatus, *, started: bool = False) -> Course:
    return Course(status, None, datetime(2026, 1, 1, tzinfo=UTC) if started else None)


@given(st.sampled_from(UpdateStatus), st.sampled_from(EventKind), st.booleans(), st.booleans())
def test_what_is_linked_takes_feedback_and_nothing_begins_in_a_stopped_rollout(
    status: UpdateStatus, kind: EventKind, stopped: bool, started: bool
) -> None:
    course = update(status, started=started)
    found = standing(course, kind, stopped=stopped)
    if linked(course) and not (stopped and status is UpdateStatus.OFFERED):
        assert found is Standing.TAKEN
    if status is UpdateStatus.OFFERED and stopped:
        assert found is Standing.GONE
    if found is Standing.TAKEN:
        assert status in STOPPABLE | {UpdateStatus.APPLIED, UpdateStatus.CONFIRMED, UpdateStatus.WITHDRAWN}
    if found is Standing.TAKEN and status is UpdateStatus.WITHDRAWN:
        assert started and kind is EventKind.APPLIED
