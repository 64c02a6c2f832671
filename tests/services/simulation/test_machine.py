"""The remembered steps are those of the update machine, whenever they are taken."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.update import (
    Counts,
    EventKind,
    Patience,
    Step,
    Update,
    counted,
    offer,
    on_check_in,
    on_deadline,
    on_event,
    retry,
    withdraw,
)
from orchestrator.services.simulation.machine import COUNTED, Happening, Machine

BEGIN = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
PATIENCE = Patience(timedelta(hours=24), timedelta(minutes=5))
EVENTS = {
    Happening.INSTALLING: EventKind.INSTALLING,
    Happening.APPLIED: EventKind.APPLIED,
    Happening.FAILED: EventKind.FAILED,
    Happening.ROLLED_BACK: EventKind.ROLLED_BACK,
    Happening.DOWNLOAD_FAILED: EventKind.DOWNLOAD_FAILED,
}


def really(update: Update, happening: Happening, now: datetime) -> Step[Update]:
    if happening in EVENTS:
        return on_event(update, EVENTS[happening], patience=PATIENCE, now=now)
    if happening in (Happening.ON_TARGET, Happening.ON_OLD):
        running = "new" if happening is Happening.ON_TARGET else "old"
        return on_check_in(update, running=running, patience=PATIENCE, now=now)
    if happening is Happening.DEADLINE:
        return on_deadline(update, last_seen_at=None, patience=PATIENCE, now=update.deadline_at or now)
    return retry(update, patience=PATIENCE, now=now) if happening is Happening.RETRIED else withdraw(update)


@given(st.lists(st.tuples(st.sampled_from(sorted(set(Happening) - {Happening.OFFERED_AGAIN})), st.integers(1, 90_000))))
def test_a_remembered_path_counts_what_the_real_machine_counts(path: list[tuple[Happening, int]]) -> None:
    machine = Machine()
    standing, told = machine.first.standing, Counter(dict(machine.first.gains))
    now = BEGIN
    update = offer(from_commit="old", to_commit="new", patience=PATIENCE, now=now).update
    for happening, seconds in path:
        now += timedelta(seconds=seconds)
        update = really(update, happening, now).update
        taken = machine.step(standing, happening)
        standing = taken.standing
        told.update(dict(taken.gains))
    kept = machine.standings[standing]
    assert (kept.status, kept.resolved, kept.bad, kept.check_ins, kept.tries) == (
        update.status,
        update.resolved,
        update.bad,
        update.check_ins,
        update.tries,
    )
    counts: Counts = counted(update)
    assert {name: told[n] for n, name in enumerate(COUNTED)} == {name: getattr(counts, name) for name in COUNTED}
