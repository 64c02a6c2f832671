"""Whatever is ordered, reported, killed and jumped: the versions a device sees never go down while its root stands,
every check fits together, and it is never shown a Target that it has not run and is not offered.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from orchestrator.core.editions import Lifetimes
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import WaveError
from orchestrator.services.devices import MOST_KEPT
from tests.gateway.aktualizr.client import Client, monotone
from tests.gateway.aktualizr.house import House, software
from tests.services.fleet_world import HARDWARE, TAG, World

DEVICES = 4
VERSIONS = (42, 43, 44)
WITHDRAWN = {UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED}
STANDS = {UpdateStatus.OFFERED, UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING, UpdateStatus.APPLIED}

some_device = st.integers(0, DEVICES - 1)
some_rollout = st.sampled_from(VERSIONS)


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World()
        lifetimes = Lifetimes(timestamp=timedelta(hours=6), targets=timedelta(days=4))
        self.house = House(self.folder / "tuf", self.world, lifetimes)
        self.house.tuf.init()
        ids = self.world.fleet(DEVICES)
        for version in VERSIONS:
            self.world.target(version)
        self.clients = [self.house.client(device) for device in ids]
        self.has_run = {client.device: {client.runs.name} for client in self.clients}
        self.others = [self.world.devices]

    def teardown(self) -> None:
        for devices in self.others:
            devices.close()
        self.world.close()
        shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------------- devices

    def _checked(self, client: Client) -> None:
        client.check()
        allowed = self.has_run[client.device] | self._standing(client)
        assert client.seen_targets[-1] <= allowed, (client.seen_targets[-1], allowed)

    def _standing(self, client: Client) -> set[str]:
        with self.world.store.reading() as r:
            row = r.device(client.device)
            assert row is not None
            updates = [(name, update) for name, update in r.updates_of_device(row.key)]
        return {f"{HARDWARE}-{name[4:]}" for name, update in updates if update.update.status in STANDS}

    @rule(which=some_device)
    def checks(self, which: int) -> None:
        self._checked(self.clients[which])

    @rule(which=some_device, good=st.booleans())
    def updates(self, which: int, good: bool) -> None:
        client = self.clients[which]
        target = client.check()
        client.event("MetadataUpdateCompleted", client.runs, success=True)
        if target is not None:
            client.begin(target)
            client.boot(good=good)
            self.has_run[client.device].add(client.runs.name)
        client.flush()
        self._checked(client)

    @rule(which=some_device)
    def only_begins(self, which: int) -> None:
        client = self.clients[which]
        target = client.check()
        if target is not None:
            client.event("EcuDownloadStarted", target)
            client.flush(keep=True)

    @rule(which=some_device)
    def asks_for_the_timestamp_and_goes_away(self, which: int) -> None:
        self.clients[which]._get("timestamp.json")

    @rule(which=some_device)
    def goes_back_by_hand(self, which: int) -> None:
        """A person puts the first version back on it: it runs what it has run."""
        self.clients[which].runs = software(41)

    @rule(which=some_device, tags=st.sampled_from([TAG, f"nobody,{TAG}", "lab", "nobody"]))
    def follows_another_tag(self, which: int, tags: str) -> None:
        self.clients[which].tags = tags

    @rule(which=some_device)
    def is_set_up_anew(self, which: int) -> None:
        """Its disk is new: it trusts on first use, and has seen nothing."""
        old = self.clients[which]
        monotone(old)
        self.clients[which] = self.house.client(old.device)
        self.clients[which].ids = old.ids

    # ------------------------------------------------------------------------------------------- people

    @rule(version=some_rollout)
    def applies(self, version: int) -> None:
        self._order(lambda: self.world.apply(name=f"lmp-{version}", target=version))

    @rule(version=some_rollout, what=st.sampled_from("halt cancel complete pause resume retry".split()))
    def orders(self, version: int, what: str) -> None:
        name, rollouts = f"lmp-{version}", self.world.rollouts
        orders: dict[str, Callable[[], object]] = {
            "halt": lambda: rollouts.halt(name, by="anna", reason="smoke"),
            "cancel": lambda: rollouts.cancel(name, by="anna", reason="enough"),
            "complete": lambda: rollouts.complete(name, by="anna"),
            "pause": lambda: rollouts.pause(name, by="anna"),
            "resume": lambda: rollouts.resume(name, by="anna", reason="fine"),
            "retry": lambda: rollouts.retry(name, by="anna"),
        }
        self._order(orders[what])

    def _order(self, order: Callable[[], object]) -> None:
        with contextlib.suppress(WaveError):
            order()
        self.world.tick()

    @rule(same=st.booleans())
    def rotates_the_root(self, same: bool) -> None:
        self.house.tuf.rotate(same_keys=same)

    # ------------------------------------------------------------------------------------------- the house

    @rule(kept=st.sampled_from([0, 1, MOST_KEPT]))
    def restarts(self, kept: int) -> None:
        """Another process serves from now on; with nothing kept as where several serve one database."""
        devices = self.world.another(most_kept=kept)
        self.others.append(devices)
        self.house.begin(devices, most_kept=kept)

    @rule(hours=st.sampled_from([0.01, 2, 5, 30, 100, -1, -50]))
    def time_passes_or_the_clock_jumps(self, hours: float) -> None:
        self.world.now += timedelta(hours=hours)
        if hours > 0:
            self.world.tick()

    @invariant()
    def versions_only_rise(self) -> None:
        for client in self.clients:
            monotone(client)


@pytest.mark.timeout(300)
def test_versions_never_go_down_and_nothing_is_shown_that_is_not_offered_or_run() -> None:
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
