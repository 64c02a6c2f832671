"""The device path and people's orders on PostgreSQL, where two gateways, a ticker and people write at once.

What SQLite promises by having one writer, here the locks must: no offer commits after a halt, a cap holds among
gateways, each event counts once, every order is carried out, and nobody waits for another in a circle
(``postgres_url`` looks at that after each test).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.states import RolloutStatus
from orchestrator.errors import WaveError, WrongState
from orchestrator.services.devices import Devices
from orchestrator.services.messages import Received, ReportedEvent
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.settling import settle
from orchestrator.services.tick import Ticker
from tests.contract.test_transactions import together
from tests.services.fleet_world import World
from tests.services.test_reports import tallies_equal_a_recount
from tests.waiting import until

pytestmark = pytest.mark.postgres

HOUR = timedelta(hours=1)
LENIENT = {"slices": {"first": 200}, "tolerate": {"ignored": {"at_most": "15%", "then": "count"}}}


@dataclass
class Gateways(World):
    """A world whose gateways have stores of their own and keep nothing of a device, as processes on PostgreSQL do.
    ``devices`` is the first gateway, ``other`` the second."""

    stores: list[SqlStore] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.other = self.another()

    def another(self, **options: Any) -> Devices:
        store = open_store(self.url)
        self.stores.append(store)
        return Devices(store, self.settings, self.clock, settle=settle, poke=self._poke, most_kept=0, **options)

    @property
    def gateways(self) -> tuple[Devices, Devices]:
        return self.devices, self.other

    def tick(self) -> None:
        super().tick()
        self.other.refresh()

    def tell(self, by: Devices, device: str, *events: ReportedEvent) -> Received:
        return by.report(device, self.tokens[device], events).result(30)

    def events_of(self, event: str) -> int:
        """How many entries of the journal say so."""
        with self.store.reading() as r:
            row = r.rollout("lmp-42")
            assert row is not None
            return sum(1 for entry in r.journal(row.key) if entry.event == event)

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.close()
        super().close()
        for store in self.stores:
            store.close()


@pytest.fixture
def world(postgres_url: str) -> Iterator[Gateways]:
    world = Gateways(postgres_url)
    yield world
    world.close()


class Crowd:
    """Devices that check in at both gateways until they are told to stop; what was offered, and what went wrong."""

    def __init__(self, world: Gateways, devices: list[str], runs: int = 41) -> None:
        self.world, self.devices, self.runs = world, devices, runs
        self.offered: list[str] = []
        self.problems: list[BaseException] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(gateway, devices[start::4]))
            for start in range(4)
            for gateway in (world.gateways[start % 2],)
        ]

    def _ask(self, by: Devices, mine: list[str]) -> None:
        try:
            while not self._stopping.is_set():
                for device in mine:
                    if self.world.answer(device, self.runs, by=by).offer is not None:
                        self.offered.append(device)
        except BaseException as problem:
            self.problems.append(problem)

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        assert self.problems == []


class TestAHalt:
    @pytest.mark.parametrize("cap", [None, 7])
    def test_no_offer_commits_after_it_and_the_cap_holds_between_gateways(
        self, world: Gateways, cap: int | None
    ) -> None:
        """Two gateways offer as fast as they can; failures come in by both, until one of them proves the halt."""
        fleet = world.fleet(120)
        world.apply(policy={**LENIENT, **({} if cap is None else {"pace": {"in_flight": cap}})})
        most: list[int] = []
        at_halt: list[int] = []
        took: list[float] = []

        def counting(run: Callable[..., Any]) -> Callable[..., Any]:
            def counted(batch: Any, arrivals: Any) -> Any:
                found = run(batch, arrivals)
                row = batch.w.rollout("lmp-42")
                most.append(sum(wave.in_flight for wave in batch.w.facts(row, now=batch.now).waves))
                return found

            return counted

        def watching(w: Any, key: int, *, now: Any) -> bool:
            stopped = settle(w, key, now=now)
            if stopped:
                at_halt.append(sum(wave.offered for wave in w.facts(w.rollout_by_key(key), now=now).waves))
            return stopped

        for gateway in world.gateways:
            object.__setattr__(gateway._check_ins, "run", counting(gateway._check_ins.run))
            gateway.reports.settle = watching
        with Crowd(world, fleet) as crowd:
            failed: set[str] = set()
            while world.row().state.status is not RolloutStatus.HALTED:
                device = next((each for each in list(crowd.offered) if each not in failed), None)
                if device is None:
                    continue
                failed.add(device)
                began = time.monotonic()
                world.tell(world.gateways[len(failed) % 2], device, world.event("failed"))
                took.append(time.monotonic() - began)
            time.sleep(0.2)
        assert at_halt == [sum(wave.offered for wave in world.facts().waves)]
        assert world.events_of("halted") == 1
        assert cap is None or max(most) <= cap
        assert max(took) < 1  # promise 2's second: nobody waited for a deadlock to be found
        tallies_equal_a_recount(world)

    def test_two_gateways_may_prove_it_at_once(self, world: Gateways) -> None:
        """Each has half of the failures, and its half proves a halt: it is halted once, and both halves count."""
        fleet = world.fleet(40)
        world.apply(policy=LENIENT)
        for device in fleet:
            assert world.check_in(device)

        def fail(by: Devices, mine: list[str]) -> None:
            for device in mine:
                assert world.tell(by, device, world.event("failed")).accepted == 1

        together(lambda: fail(world.devices, fleet[::2]), lambda: fail(world.other, fleet[1::2]))
        assert world.row().state.status is RolloutStatus.HALTED
        assert world.events_of("halted") == 1
        assert sum(piece.resolved for wave in world.facts().waves for piece in wave.slices) == 40
        tallies_equal_a_recount(world)

    def test_devices_that_go_back_prove_it_beside_reports_and_silences(self, world: Gateways) -> None:
        """Check-ins count outcomes too, and so does the clock: all three at once, on the same rollout."""
        fleet = world.fleet(60)
        world.apply(policy=LENIENT)
        for device in fleet:
            assert world.check_in(device)
        for device in fleet[:40]:
            world.report(device, "installing")
        world.now += 25 * HOUR

        def go_back() -> None:
            for device in fleet[:20]:
                world.answer(device, 41, by=world.other)

        def fail() -> None:
            for device in fleet[20:40]:
                world.tell(world.devices, device, world.event("failed"))

        together(go_back, fail, lambda: world.ticker.tick(world.now))
        assert world.row().state.status is RolloutStatus.HALTED
        assert world.events_of("halted") == 1
        tallies_equal_a_recount(world)


class TestEvents:
    def test_an_event_sent_to_both_gateways_counts_once(self, world: Gateways) -> None:
        fleet = world.fleet(30)
        world.apply(policy=LENIENT)
        for device in fleet:
            assert world.check_in(device)
        sent = {device: [world.event(kind) for kind in ("downloading", "installing")] for device in fleet}
        found: list[Received] = []

        def send(by: Devices, order: list[str]) -> None:
            waiting: list[Future[Received]] = [by.report(each, world.tokens[each], sent[each]) for each in order]
            found.extend(each.result(30) for each in waiting)

        together(lambda: send(world.devices, fleet), lambda: send(world.other, fleet[::-1]))
        assert sum(each.accepted for each in found) == sum(each.duplicates for each in found) == 60
        assert sum(piece.started for wave in world.facts().waves for piece in wave.slices) == 30
        tallies_equal_a_recount(world)

    def test_two_rollouts_are_reported_on_in_either_order(self, world: Gateways) -> None:
        """A batch locks all its rollouts by rising key, whatever comes first in it."""
        fleet = world.fleet(30)
        world.devices.set_group(fleet[::2], "a")
        world.devices.set_group(fleet[1::2], "b")
        world.now += HOUR
        for name, group in (("lmp-42", "a"), ("second", "b")):
            waves = [{"wave": "all", "devices": {"group": group}}]
            world.apply(policy=LENIENT, name=name, waves=waves, excluded="others")
        for device in fleet:
            assert world.check_in(device)

        def send(by: Devices, order: list[str]) -> None:
            for kind in ("downloading", "installing", "failed"):
                waiting = []
                for device in order:
                    rollout = "lmp-42" if device in fleet[::2] else "second"
                    waiting.append(by.report(device, world.tokens[device], [world.event(kind, rollout=rollout)]))
                assert all(each.result(30).accepted for each in waiting)

        together(lambda: send(world.devices, fleet), lambda: send(world.other, fleet[::-1]))
        for rollout in ("lmp-42", "second"):
            assert world.row(rollout).state.status is RolloutStatus.HALTED
            tallies_equal_a_recount(world, rollout)


class TestOrders:
    """Each is carried out, however many devices are at it meanwhile; what it refuses it refuses for its own reasons."""

    def test_a_freeze_waits_for_an_offer_that_found_no_frost(self, world: Gateways) -> None:
        """The offer holds its rollout and then asks for frost; the freeze comes in between."""
        world.fleet(1)
        world.apply()
        offering, told = threading.Event(), []

        def offer() -> None:
            with world.stores[1].writing() as w:
                w.lock_rollout(world.row().key)
                offering.set()
                time.sleep(0.3)
                told.append(w.frozen())

        def freeze() -> None:
            offering.wait(10)
            world.rollouts.freeze(by="anna", reason="certificate expired")

        together(offer, freeze)
        assert told == [None]
        with world.store.reading() as r:
            assert r.frozen() is not None

    def test_frost_comes_and_goes_while_devices_ask(self, world: Gateways) -> None:
        fleet = world.fleet(80)
        world.apply(policy=LENIENT)
        with Crowd(world, fleet) as crowd:
            for _ in range(5):
                world.rollouts.freeze(by="anna", reason="to look at it")
                for gateway in world.gateways:
                    gateway.refresh()
                with world.store.reading() as r:
                    row = r.rollout("lmp-42")
                    assert row is not None
                    given = sum(wave.offered for wave in r.facts(row, now=world.now).waves)
                time.sleep(0.02)
                assert sum(wave.offered for wave in world.facts().waves) == given
                world.rollouts.unfreeze(by="anna")
                for gateway in world.gateways:
                    gateway.refresh()
            until("all have it", lambda: len(set(crowd.offered)) == len(fleet), within=30)
        assert (world.events_of("frozen"), world.events_of("unfrozen")) == (5, 5)
        tallies_equal_a_recount(world)

    def test_every_order_is_carried_out_while_devices_ask_and_report(self, world: Gateways) -> None:
        """Pause, resume, retry, halt, resume, complete, cancel: at once with offers, failures and ticks."""
        fleet = world.fleet(80)
        tolerate = {
            each: {"at_most": "15%", "then": "count"} for each in ("failed", "rolled_back", "silent", "ignored")
        }
        world.apply(policy={"slices": {"first": 200}, "tolerate": tolerate, "budget": {}})
        stopping = threading.Event()
        problems: list[BaseException] = []

        def ticks() -> None:
            while not stopping.is_set():
                ticked = world.ticker.tick(world.now)
                problems.extend(AssertionError(what) for what in ticked.problems)

        def reports(crowd: Crowd) -> None:
            told: set[str] = set()
            while not stopping.is_set():
                for device in set(crowd.offered) - told:
                    told.add(device)
                    kind = "failed" if len(told) % 20 == 0 else "installing"
                    try:
                        world.tell(world.gateways[len(told) % 2], device, world.event(kind))
                    except BaseException as problem:
                        problems.append(problem)

        with Crowd(world, fleet) as crowd:
            beside = [threading.Thread(target=ticks), threading.Thread(target=reports, args=(crowd,))]
            for thread in beside:
                thread.start()
            try:
                orders = world.rollouts
                for _ in range(4):
                    orders.pause("lmp-42", by="anna")
                    orders.resume("lmp-42", by="anna", dry_run=True)
                    orders.resume("lmp-42", by="anna")
                    orders.retry("lmp-42", by="anna")
                    orders.halt("lmp-42", by="anna")
                    orders.resume("lmp-42", by="anna", reason="it was fine")
                orders.complete("lmp-42", by="anna", dry_run=True)
                orders.complete("lmp-42", by="anna")
                orders.cancel("lmp-42", by="anna")
            finally:
                stopping.set()
                for thread in beside:
                    thread.join(30)
        assert problems == []
        world.tick()
        assert world.row().state.status is RolloutStatus.CANCELLED
        assert [world.events_of(each) for each in ("paused", "retried", "halted", "resumed")] == [4, 4, 4, 8]
        assert (world.events_of("completed"), world.events_of("cancelled")) == (1, 1)
        tallies_equal_a_recount(world)

    def test_a_start_that_supersedes_another_beside_its_devices_and_its_tick(self, world: Gateways) -> None:
        """The new one has the lower key: it is applied first. Both are locked by rising key all the same, also when it
        is the clock that starts it."""
        fleet = world.fleet(40)
        world.target(43)
        begins = world.now + 2 * HOUR
        world.apply(name="new", target=43, start=False, supersedes="lmp-42", start_at=begins.isoformat())
        world.apply(policy=LENIENT)
        world.rollouts.start("new", by="anna")
        with Crowd(world, fleet) as crowd:
            until("all have it", lambda: len(set(crowd.offered)) == len(fleet), within=30)
            world.now = begins
            for _ in range(3):
                world.tick()
            until("it is cancelled", lambda: world.row().state.status is RolloutStatus.CANCELLED, within=30)
        assert world.row("new").state.status is RolloutStatus.RUNNING
        assert world.events_of("cancelled") == 1
        tallies_equal_a_recount(world)

    def test_an_order_given_twice_at_once_is_carried_out_once(self, world: Gateways) -> None:
        world.fleet(10)
        world.apply()
        told: list[WaveError] = []

        def pause(store: SqlStore) -> None:
            try:
                Rollouts(store, world.clock).pause("lmp-42", by="anna")
            except WaveError as error:
                told.append(error)

        together(lambda: pause(world.stores[0]), lambda: pause(world.stores[1]))
        assert [type(error) for error in told] == [WrongState]
        assert world.events_of("paused") == 1


def test_deadlines_are_moved_beside_reports_and_check_ins(world: Gateways) -> None:
    """A gateway comes back after a while and forgives the silence, while devices are at the other one."""
    fleet = world.fleet(60)
    world.apply(policy=LENIENT)
    for device in fleet:
        assert world.check_in(device)

    def forgive() -> None:
        for _ in range(20):
            with world.stores[1].writing() as w:
                w.postpone_deadlines(HOUR, now=world.now)

    def talk() -> None:
        waiting: list[Future[Any]] = []
        for device in fleet[::-1]:
            waiting.append(world.devices.report(device, world.tokens[device], [world.event("downloading")]))
            asked = world.devices.check_in(device, world.tokens[device], world.said(41))
            waiting += [asked] if isinstance(asked, Future) else []
        for each in waiting:
            each.result(30)

    together(forgive, talk)
    tallies_equal_a_recount(world)


def test_two_ticks_at_once_decide_once(world: Gateways) -> None:
    """``wave tick --once`` by cron beside the server: wave after wave, each opened and passed once."""
    fleet = world.fleet(12)
    waves: list[dict[str, Any]] = [{"wave": "first", "devices": {"share": "50%"}}, {"wave": "rest", "devices": "all"}]
    waves[1]["after"] = ["first"]
    world.apply(waves=waves, policy={"bake": {"at_least": "1m"}})
    tickers = [Ticker(store, world.devices.expire, world._ensure) for store in world.stores]
    for _ in range(30):
        world.now += timedelta(minutes=20)
        together(*(lambda ticker=ticker: ticker.tick(world.now) for ticker in tickers))
        for gateway in world.gateways:
            gateway.refresh()
        for device in fleet:
            offer = world.answer(device, 41, by=world.other).offer
            if offer is not None:
                world.answer(device, 42)
                fleet = [each for each in fleet if each != device]
        if world.row().state.status is RolloutStatus.COMPLETED:
            break
    assert world.row().state.status is RolloutStatus.COMPLETED
    assert (world.events_of("opened"), world.events_of("passed"), world.events_of("completed")) == (2, 2, 1)
    tallies_equal_a_recount(world)
