"""Two starts at once for one tag: the second sees the first, on every store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.fleet import Target
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import LIVE_ROLLOUT
from orchestrator.errors import Overlap
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.store import Writing
from orchestrator.services.tick import Ticker
from tests.behind import Behind
from tests.contract.building import HOUR, NEW, NOW, device, enroll

LONG = 0.5
"""Seconds that a transaction takes before it commits: the other one has looked by then, if nothing keeps it."""


class Slow(Behind):
    """A store whose transactions take long, and that says when one has done its work."""

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        with self.inner.writing() as w:
            yield w
            threading.Event().wait(LONG)


def rollouts(store: SqlStore, **more: Any) -> Rollouts:
    """Two drafts for everybody, ``a`` and ``b``."""
    orders = Rollouts(store, lambda: NOW)
    with store.writing() as w:
        enroll(w, device("d"))
        w.add_target(Target("rpi4-42", 42, NEW, ("rpi4",), ("promoted",)), now=NOW)
    for name in ("a", "b"):
        file = {"rollout": name, "target": 42, "tag": "promoted", "policy": "p", **more}
        spec = RolloutFile.parse({**file, "waves": [{"wave": "all", "devices": "all"}]})
        orders.apply(spec, Policy.parse({"policy": "p"}), by="ann")
    return orders


def both(one: Any, other: Any) -> list[BaseException]:
    """Run them at once; what they raised."""
    raised: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in (one, other)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    return raised


def live(store: SqlStore) -> list[str]:
    with store.reading() as r:
        return [row.state.rollout for row in r.rollouts(LIVE_ROLLOUT)]


@pytest.mark.parametrize("start_at", [None, (NOW + HOUR).isoformat()], ids=["now", "scheduled"])
def test_of_two_starts_at_once_one_is_refused(store: SqlStore, start_at: str | None) -> None:
    rollouts(store, **({} if start_at is None else {"start_at": start_at}))
    slow = Rollouts(Slow(store), lambda: NOW)
    raised = both(lambda: slow.start("a", by="ann"), lambda: slow.start("b", by="bob"))
    assert [type(error) for error in raised] == [Overlap]
    assert len(live(store)) == 1


def test_a_start_by_the_clock_and_one_by_a_person_at_once(store: SqlStore) -> None:
    """``a`` was scheduled and is being started by the tick, which finds that a person is just starting ``b``, or the
    other way round: ``b`` supersedes ``a``, so it may be started beside it. Whoever comes second sees the first."""
    orders = rollouts(store, start_at=(NOW + HOUR).isoformat())
    orders.start("a", by="ann")
    later = Rollouts(Slow(store), lambda: NOW + 2 * HOUR)
    ticker = Ticker(Slow(store), lambda w, row, now: 0, lambda row, wave, *, now: None)
    raised = both(lambda: ticker.tick(NOW + 2 * HOUR + timedelta(minutes=1)), lambda: later.start("b", by="bob"))
    assert [type(error) for error in raised] == [Overlap] and live(store) == ["a"]
