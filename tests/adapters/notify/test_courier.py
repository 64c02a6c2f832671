"""The thread that sends: it looks by itself, goes on after a fault, and ends when it is told to."""

from __future__ import annotations

import threading
from datetime import datetime

from orchestrator.adapters.notify.courier import Courier
from orchestrator.adapters.sql.store import open_store
from orchestrator.core.notices import Notice
from orchestrator.services.notice_store import Wanted
from orchestrator.services.notices import Notices
from tests.contract.building import DAY, NOW, rollout
from tests.contract.test_notices import NOTICE


class Two:
    """One destination that hangs, and one that takes."""

    def __init__(self) -> None:
        self.hanging, self.go, self.took = threading.Event(), threading.Event(), threading.Event()

    def names(self) -> tuple[str, ...]:
        return ("hangs", "takes")

    def send(self, destination: str, notice: Notice, *, link: str | None, at: datetime) -> None:
        if destination == "hangs":
            self.hanging.set()
            self.go.wait(20)
        else:
            self.took.set()


def test_a_destination_that_hangs_keeps_neither_the_others_nor_the_end_waiting() -> None:
    store, to = open_store("sqlite://"), Two()
    with store.writing() as w:
        key = w.add_rollout(rollout()).key
        w.add_notices(Wanted(key, "one", NOTICE, NOW, NOW + DAY), ["hangs", "takes"])
    with Courier(Notices(store, to, lambda: NOW, None, lambda: 0.5), look_every=0.01):
        assert to.hanging.wait(20) and to.took.wait(20)
        to.go.set()
    with store.reading() as r:
        assert r.next_notice_at() is None
    store.close()


def test_a_fault_of_the_store_ends_nothing() -> None:
    store, to = open_store("sqlite://"), Two()
    looked = threading.Semaphore(0)

    class Faulty(Notices):
        def next_at(self) -> datetime | None:
            looked.release()
            raise ZeroDivisionError

    with Courier(Faulty(store, to, lambda: NOW, None, lambda: 0.5), look_every=0.001):
        assert all(looked.acquire(timeout=20) for _ in range(3))
    store.close()
