"""Messages to people: asked for with the decision, sent once, tried for a day, and then seen to be dead.

The house is the real one on SQLite; time is the test's; the destination is a fake of ten lines.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.fleet import Target
from orchestrator.core.notices import Notice
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import NotFound, Unavailable
from orchestrator.services.notice_store import Post
from orchestrator.services.notices import GIVE_UP_AFTER, LEASE, Delivered, Notices, pause_after
from orchestrator.services.rollouts import Rollouts
from tests.contract.building import NEW, device

NOW = datetime(2026, 11, 24, 14, tzinfo=UTC)
FILE = {
    "rollout": "lmp-42",
    "target": 42,
    "tag": "promoted",
    "policy": "x",
    "waves": [{"wave": "all", "devices": "all"}],
}
ASKED = [{"to": "oncall", "on": ["halted", "paused"]}, {"to": "audit", "on": ["orders"]}]


@dataclass
class Destinations:
    """Take messages, or are down."""

    down: set[str] = field(default_factory=set)
    came: list[tuple[str, Notice]] = field(default_factory=list)
    links: set[str | None] = field(default_factory=set)
    known: Collection[str] = ("oncall", "audit")

    def names(self) -> Collection[str]:
        return self.known

    def send(self, destination: str, notice: Notice, *, link: str | None, at: datetime) -> None:
        if destination in self.down:
            raise Unavailable("The receiver answered 503.")
        self.came.append((destination, notice))
        self.links.add(link)


@dataclass
class World:
    store: SqlStore
    to: Destinations = field(default_factory=Destinations)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.rollouts = Rollouts(self.store, lambda: self.now, destinations=lambda: self.to.known)
        self.notices = Notices(self.store, self.to, lambda: self.now, "https://wave.example.com", lambda: 0.5)

    def begin(self) -> None:
        with self.store.writing() as w:
            w.add_target(Target("lmp", 42, NEW, ("rpi4",), ("main",)), now=NOW)
            w.enroll([(device("one"), None)], now=NOW)
        policy = Policy.parse({"policy": "x", "notify": ASKED})
        self.rollouts.apply(RolloutFile.parse(FILE), policy, by="ann")
        self.rollouts.start("lmp-42", by="ann")

    def told(self, to: str) -> list[str]:
        return [notice.event for name, notice in self.to.came if name == to]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(open_store("sqlite://"))
    made.begin()
    return made


def test_an_order_is_told_to_whoever_asked_once(world: World) -> None:
    world.rollouts.pause("lmp-42", by="ann", reason="lunch")
    assert world.notices.deliver() == Delivered(sent=4)
    assert world.told("oncall") == ["paused"] and world.told("audit") == ["applied", "started", "paused"]
    assert world.notices.deliver() == Delivered()
    assert world.to.came[-1][1].sentence == "Paused by ann: lunch" and world.to.links == {
        "https://wave.example.com/rollouts/lmp-42"
    }


def test_a_dry_run_and_a_refused_order_tell_nobody(world: World) -> None:
    world.notices.deliver()
    world.rollouts.pause("lmp-42", by="ann", dry_run=True)
    with pytest.raises(NotFound):
        world.rollouts.promote("lmp-42", "nowhere", by="ann")
    assert world.notices.next_at() is None


def test_a_policy_that_names_a_destination_nobody_knows_is_refused(world: World) -> None:
    world.to.known = ("audit",)
    policy = Policy.parse({"policy": "x", "notify": ASKED})
    with pytest.raises(NotFound, match="Policy x notifies oncall, and no destination is called so"):
        world.rollouts.apply(RolloutFile.parse({**FILE, "rollout": "lmp-43"}), policy, by="ann")


def test_a_service_that_is_down_for_an_hour_loses_nothing_and_gets_each_message_once(world: World) -> None:
    """14:00 down, three orders; 14:30 one more; 15:00 up again; each is there once by 16:00 at the latest."""
    world.to.down = {"audit"}
    tried = 0
    while world.now < NOW + timedelta(hours=2):
        if world.now == NOW + timedelta(minutes=30):
            world.rollouts.pause("lmp-42", by="ann")
        if world.now == NOW + timedelta(hours=1):
            world.to.down = set()
        done = world.notices.deliver()
        tried += done.failed
        next_at = world.notices.next_at()
        assert next_at is None or next_at > world.now
        world.now += timedelta(seconds=5)
    assert sorted(world.told("audit")) == ["applied", "paused", "started"] and world.told("oncall") == ["paused"]
    assert 20 <= tried <= 40  # ever more seldom: some ten tries in an hour for each
    assert {row.status for row in world.notices.list()} == {Post.SENT}


def test_after_a_day_it_is_dead_and_seen_and_a_person_may_revive_it(world: World) -> None:
    world.to.down = {"audit"}
    while (due_at := world.notices.next_at()) is not None:
        world.now = max(world.now, due_at)
        world.notices.deliver()
    assert world.now == NOW + GIVE_UP_AFTER
    dead = world.notices.list(statuses={Post.DEAD})
    assert len(dead) == 2 and {row.error for row in dead} == {"The receiver answered 503."}
    assert all(25 <= row.attempts <= 40 for row in dead)
    world.to.down = set()
    assert world.notices.retry([dead[0].key]) == 1 and world.notices.retry() == 2
    assert world.notices.deliver() == Delivered(sent=2)
    with pytest.raises(NotFound):
        world.notices.retry([dead[0].key])


def test_a_destination_that_is_down_keeps_no_other_waiting(world: World) -> None:
    world.to.down = {"audit"}
    world.rollouts.pause("lmp-42", by="ann")
    world.notices.deliver()
    assert world.told("oncall") == ["paused"]


def test_what_a_sender_that_died_had_taken_is_sent_by_another_after_its_lease(world: World) -> None:
    with world.store.writing() as w:
        taken = w.lease_notices(now=NOW, until=NOW + LEASE, limit=4)
    assert [row.attempts for row in taken] == [1]
    world.notices.deliver()
    assert world.told("audit") == ["started"] and world.notices.next_at() == NOW + LEASE
    world.now += LEASE
    world.notices.deliver()
    assert world.told("audit") == ["started", "applied"]
    with world.store.writing() as w:  # the dead one wakes up
        assert not w.end_notice(taken[0].key, 1, Post.DEAD, "late", at=world.now)


def test_two_senders_at_once_send_each_message_once(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'wave.db'}")
    world = World(store)
    world.begin()
    for _ in range(10):
        world.rollouts.pause("lmp-42", by="ann")
        world.rollouts.resume("lmp-42", by="ann")
    threads = [threading.Thread(target=world.notices.deliver) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    ids = [(to, notice.id) for to, notice in world.to.came]
    assert len(ids) == len(set(ids)) == 32
    store.close()


def test_the_pauses_grow_to_an_hour_and_are_spread() -> None:
    assert [pause_after(tries, 0.5).total_seconds() for tries in (1, 2, 3, 9, 30)] == [15, 30, 60, 3600, 3600]
    assert pause_after(1, 0.0) == timedelta(seconds=7.5) and pause_after(1, 0.999) < timedelta(seconds=22.5)


def test_a_fault_in_a_sender_is_told_by_its_kind_alone(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(destination: str, notice: Notice, *, link: str | None, at: datetime) -> None:
        raise ValueError("password=hunter2")

    monkeypatch.setattr(world.to, "send", send)
    assert world.notices.deliver().failed == 2
    assert {row.error for row in world.notices.list()} == {"a fault in sending: ValueError"}
    assert "hunter2" not in caplog.text


def test_a_test_is_sent_at_once_and_kept_nowhere(world: World) -> None:
    world.notices.deliver()
    world.notices.test("oncall")
    assert world.told("oncall") == ["test"] and len(world.notices.list()) == 2
