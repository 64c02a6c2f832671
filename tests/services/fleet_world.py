"""A small world for tests of the device path: the real store in memory, real orders and ticks, and a clock by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.facts import Facts
from orchestrator.core.fleet import Device, Target
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.update import UpdateStatus
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.devices import Devices, Heard
from orchestrator.services.messages import CheckIn, Offer, Received, ReportedEvent
from orchestrator.services.records import DeltaNeed, RolloutRow, UpdateRow
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.settings import Settings
from orchestrator.services.settling import settle
from orchestrator.services.tick import Ticker

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
HARDWARE = "rpi4"
TAG = "promoted"


def commit_of(version: int, hardware_id: str = HARDWARE) -> str:
    return f"{hardware_id.encode().hex()}{version:04d}".rjust(64, "0")


@dataclass
class World:
    """Days in it pass by ``later``. ``pokes`` counts how often the ticker was woken."""

    url: str = "sqlite://"
    store: SqlStore = field(init=False)
    now: datetime = START
    pokes: int = 0
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    tokens: dict[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    needs: dict[str, list[DeltaNeed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = open_store(self.url)
        self.devices = self.another()
        self.rollouts = Rollouts(self.store, self.clock)
        self.ticker = Ticker(self.store, self.devices.expire, self._ensure, changed=self.devices.refresh)

    def another(self, **options: Any) -> Devices:
        """The device services once more, as another process would have them."""
        return Devices(self.store, self.settings, self.clock, settle=settle, poke=self._poke, **options)

    def close(self) -> None:
        self.devices.close()
        self.store.close()

    def clock(self) -> datetime:
        return self.now

    def _poke(self) -> None:
        self.pokes += 1

    def _ensure(self, row: RolloutRow, wave: str, *, now: datetime) -> None:
        assert row.scope is not None
        with self.store.writing() as w:
            count = w.look(row.scope, wave, seen_since=now - timedelta(days=7))
            w.set_needs(row.key, wave, count, self.needs.get(wave, []), now=now)

    # ------------------------------------------------------------------------------------- the operator

    def target(self, version: int, *, hardware: tuple[str, ...] = (HARDWARE,)) -> None:
        with self.store.writing() as w:
            for each in hardware:
                name = f"{each}-{version}"
                w.add_target(Target(name, version, commit_of(version, each), (each,), (TAG,)), now=self.now)

    def enroll(self, count: int, **more: Any) -> list[str]:
        fresh = [f"dev-{next(self.ids):04d}" for _ in range(count)]
        devices = [Device(**{"id": each, "hardware_id": HARDWARE, "tag": TAG, **more}) for each in fresh]
        self.tokens.update((name, token or "") for name, token in self.devices.enroll(devices, tokens=True))
        return fresh

    def fleet(self, count: int, version: int = 41) -> list[str]:
        """Enrolled devices that have been seen running a version, and the Targets 41 and 42."""
        for target in (version, 42):
            self.target(target)
        found = self.enroll(count)
        for device in found:
            self.check_in(device, version)
        return found

    def apply(
        self,
        *,
        waves: Sequence[Mapping[str, Any]] | None = None,
        policy: Mapping[str, Any] | None = None,
        name: str = "lmp-42",
        target: int = 42,
        start: bool = True,
        **spec: Any,
    ) -> str:
        """A rollout of one wave of all, unless told otherwise, started and ticked; deltas are not required."""
        waves = waves or [{"wave": "all", "devices": "all"}]
        file = RolloutFile.parse(
            {"rollout": name, "target": target, "tag": TAG, "policy": "test", "waves": waves, **spec}
        )
        relaxed = {"policy": "test", "deltas": {"within": "0s", "otherwise": "full"}, **(policy or {})}
        self.rollouts.apply(file, Policy.parse(relaxed), by="anna")
        if start:
            self.rollouts.start(name, by="anna")
            self.tick()
        return name

    def tick(self) -> None:
        self.ticker.tick(self.now)
        self.devices.refresh()

    def later(self, by: timedelta, *, tick: bool = True) -> None:
        self.now += by
        if tick:
            self.tick()

    def delta(self, before: int, after: int = 42) -> DeltaRecord:
        pair = DeltaPair(commit_of(before), commit_of(after))
        record = DeltaRecord(pair, "deltas/ab/cdef", parts=1, bytes=1000, fallbacks=1, fallback_bytes=24)
        with self.store.writing() as w:
            w.record_delta(record, now=self.now)
        self.devices.refresh()
        return record

    # ------------------------------------------------------------------------------------- devices

    def said(self, runs: int | None, **more: Any) -> CheckIn:
        commit = None if runs is None else commit_of(runs)
        return CheckIn(**{"commit": commit, "version": runs, "hardware_id": HARDWARE, "tag": TAG, **more})

    def answer(self, device: str, runs: int | None = 41, *, by: Devices | None = None, **more: Any) -> Heard:
        found = (by or self.devices).check_in(device, self.tokens[device], self.said(runs, **more))
        return found.result(10) if isinstance(found, Future) else found

    def check_in(self, device: str, runs: int | None = 41, **more: Any) -> Offer | None:
        return self.answer(device, runs, **more).offer

    def event(self, event: str, *, rollout: str = "lmp-42", target: int = 42, **more: Any) -> ReportedEvent:
        return ReportedEvent(
            **{"id": f"event-{next(self.ids)}", "rollout": rollout, "target": target, "event": event, **more}
        )

    def report(self, device: str, *events: str | ReportedEvent) -> Received:
        items = [self.event(each) if isinstance(each, str) else each for each in events]
        return self.devices.report(device, self.tokens[device], items).result(10)

    def update(self, device: str, rollout: str = "lmp-42") -> UpdateRow:
        with self.store.reading() as r:
            row, known = r.rollout(rollout), r.device(device)
            assert row is not None and known is not None
            found = r.update(row.key, known.key)
        assert found is not None
        return found

    def status(self, device: str, rollout: str = "lmp-42") -> UpdateStatus:
        return self.update(device, rollout).update.status

    def facts(self, rollout: str = "lmp-42") -> Facts:
        with self.store.reading() as r:
            row = r.rollout(rollout)
            assert row is not None
            return r.facts(row, now=self.now)

    def row(self, rollout: str = "lmp-42") -> RolloutRow:
        with self.store.reading() as r:
            row = r.rollout(rollout)
        assert row is not None
        return row
