"""A small fleet on the real store in memory, with a running rollout: what the tests of deltas and Targets stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.core.policy import Policy
from orchestrator.core.protocols import DeviceProtocol, Spoken
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.services.deltas import Deltas
from orchestrator.services.records import RolloutRow
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.targets import Targets
from tests.services.fake_provider import FakeProvider, commit

DAY = timedelta(days=1)


@dataclass
class SmallFleet:
    """``now`` is set by the test; nothing else reads a clock."""

    folder: Path
    versions: tuple[int, ...] = (5, 6, 7, 9)
    now: datetime = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
    store: SqlStore = field(init=False)
    provider: FakeProvider = field(init=False)
    deltas: Deltas = field(init=False)
    targets: Targets = field(init=False)

    def __post_init__(self) -> None:
        self.store = open_store("sqlite://")
        self.provider = FakeProvider(self.folder, [commit(version) for version in self.versions])
        self.deltas = Deltas(self.store, self.provider, self.clock)
        self.targets = Targets(self.store, self.provider, self.clock)

    def clock(self) -> datetime:
        return self.now

    def target(self, version: int, *hardware_ids: str, of: str | None = None) -> None:
        self.targets.add(
            version=version, commit=of or commit(version), hardware_ids=hardware_ids or ("rpi4",), tags=["promoted"]
        )

    def devices(
        self,
        count: int,
        on: int | str | None,
        *,
        hardware_id: str = "rpi4",
        tag: str = "promoted",
        group: str | None = None,
        version: int | None = None,
        seen: timedelta = timedelta(0),
        status: DeviceStatus = DeviceStatus.ACTIVE,
    ) -> list[str]:
        """Enroll so many that run ``commit(on)``, or have not said (None); ids of them."""
        with self.store.writing() as w:
            ids = [
                f"{hardware_id}-{tag}-{on}-{version}-{status}-{number}".replace("None", "no") for number in range(count)
            ]
            w.enroll([(Device(one, hardware_id, tag, group=group), None) for one in ids], now=self.now)
            running = None if on is None else commit(on)
            for one in ids:
                row = w.device(one)
                assert row is not None
                seen_at = self.now - seen
                w.save_device(
                    row.key,
                    replace(row.device, commit=running, version=version, last_seen_at=seen_at, since_at=seen_at),
                )
            if status is not DeviceStatus.ACTIVE:
                w.set_device_status(ids, status, "a test", now=self.now)
        return ids

    def speaks(self, ids: Sequence[str], protocol: DeviceProtocol) -> None:
        with self.store.writing() as w:
            rows = [row for each in ids if (row := w.device(each)) is not None]
            w.set_spoken({row.key: Spoken(protocol, row.device.version) for row in rows})

    def rollout(
        self, target: int = 9, *, deltas: Mapping[str, Any] | None = None, name: str = "lmp-9", tag: str = "promoted"
    ) -> RolloutRow:
        """Start a rollout of one wave ``all``."""
        spec = {
            "rollout": name,
            "target": target,
            "tag": tag,
            "policy": "p",
            "waves": [{"wave": "all", "devices": "all"}],
        }
        policy = {"policy": "p", "tolerate": {"failed": "2%"}, "deltas": dict(deltas or {})}
        rollouts = Rollouts(self.store, self.clock)
        rollouts.apply(RolloutFile.parse(spec), Policy.parse(policy), by="test")
        rollouts.start(name, by="test")
        return self.row(name)

    def row(self, name: str = "lmp-9") -> RolloutRow:
        with self.store.reading() as r:
            row = r.rollout(name)
        assert row is not None
        return row
