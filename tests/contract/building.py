"""Small things the contract tests are built from: a fleet, a rollout, an offer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.adapters.sql.store import SqlStore, SqlWriting, open_store
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.facts import RolloutState, WaveState
from orchestrator.core.fleet import Device, Scope
from orchestrator.core.membership import WaveSelector
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.position import wave_salt
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, Standing, WaveStatus
from orchestrator.core.update import Patience, offer
from orchestrator.services.records import RolloutRow, UpdateRow

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WEEK_AGO = NOW - 7 * DAY
OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
PATIENCE = Patience(silent_after=DAY)
STANDING = Standing(Reason(ReasonKind.STARTED, "Started."), NOW, "ann")


class Opener:
    """Opens one database as often as asked."""

    def __init__(self, url: str, ending: ExitStack) -> None:
        self.url = url
        self._ending = ending

    def __call__(self, **more: Any) -> SqlStore:
        store = open_store(self.url, **more)
        self._ending.callback(store.close)
        return store


class _Undo(Exception):
    pass


@contextmanager
def undone(store: SqlStore) -> Iterator[SqlWriting]:
    """A transaction that is rolled back at the end: a fresh database for each example, without making one."""
    try:
        with store.writing() as w:
            yield w
            raise _Undo
    except _Undo:
        pass


def device(name: str, **more: Any) -> Device:
    """A reachable device of the tag ``promoted`` on version 41."""
    known: dict[str, Any] = {"hardware_id": "rpi4", "tag": "promoted", "commit": OLD, "version": 41}
    known |= {"since_at": NOW - 2 * DAY, "last_seen_at": NOW - HOUR, "enrolled_at": NOW - 30 * DAY}
    return Device(name, **known | more)


def enroll(w: SqlWriting, *devices: Device) -> list[int]:
    """Their keys."""
    w.enroll([(one, None) for one in devices], now=NOW)
    rows = [w.device(one.id) for one in devices]
    return [row.key for row in rows if row is not None]


def selector(wave: str, **more: Any) -> WaveSelector:
    return WaveSelector(wave, wave_salt("salt", wave), **more)


def scope(*selectors: WaveSelector, **more: Any) -> Scope:
    known: dict[str, Any] = {"rollout": "r", "tag": "promoted", "version": 42, "commits": {"rpi4": NEW, "imx8": NEW}}
    return Scope(**known | {"selectors": selectors or (selector("all"),)} | more)


def rollout(name: str = "r", *, of: Scope | None = None, waves: Sequence[str] = ("all",), **more: Any) -> RolloutRow:
    """A running rollout that is not stored yet, its waves open."""
    state = RolloutState(
        rollout=name,
        status=RolloutStatus.RUNNING,
        standing=STANDING,
        epoch=1,
        waves=tuple(WaveState(wave, WaveStatus.OPEN, STANDING, opened_at=NOW) for wave in waves),
    )
    known: dict[str, Any] = {
        "spec": "{}",
        "policy": '{"policy":"standard"}',
        "spec_digest": "s",
        "policy_digest": "p",
        "salt": "salt",
    }
    known |= {"tag": "promoted", "target_version": 42, "created_at": NOW, "devices": 1000}
    return RolloutRow(key=0, version=0, state=state, scope=of or scope(), **known | more)


def offered(row: RolloutRow, device_key: int, *, place: int | None = None, wave: str = "all", **more: Any) -> UpdateRow:
    """An offer that is not stored yet; its places are the device's key where not given."""
    step = offer(from_commit=OLD, to_commit=NEW, patience=PATIENCE, now=NOW)
    where = device_key if place is None else place
    known: dict[str, Any] = {"slice": 1, "places": (where, where), "hardware_id": "rpi4", "from_version": 41}
    return UpdateRow(row.key, device_key, step.update, wave, **known | more)


def monitor(
    scope_name: str = "rollout", *outcomes: OutcomeClass, tolerance: float = 0.02, alpha: float = 0.045
) -> MonitorSpec:
    watched = outcomes or (OutcomeClass.FAILED,)
    name = "+".join(watched)
    return MonitorSpec(f"{scope_name}/{name}", watched, scope_name, tolerance, alpha, Answer.HALT)
