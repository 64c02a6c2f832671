"""The tick: load → decide → apply, then the outbox.

One tick looks at every rollout that can still change. What it decides is written in one version-checked transaction
per rollout; effects that
take long come out of the outbox afterwards and are idempotent. A crash between any two lines is repaired by the next
tick: nothing lives only
in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from orchestrator.core.decide import decide
from orchestrator.core.states import LIVE_ROLLOUT, RolloutStatus
from orchestrator.errors import Conflict, WaveError
from orchestrator.services.chronicle import commit, rules_of
from orchestrator.services.records import Effect, EffectKind, RolloutRow
from orchestrator.services.store import Store, Writing

LOG = logging.getLogger(__name__)

MOST_ROUNDS: Final = 100
"""Decisions follow one another within a tick (a wave passes, the next opens); more rounds than this mean a fault in
the rules."""

RETRY_EFFECTS: Final = timedelta(seconds=10)
"""How soon an effect that failed is tried again."""

TICKED: Final = LIVE_ROLLOUT | {RolloutStatus.COMPLETED}


class Expires(Protocol):
    """Counts silences that are due; from the device services."""

    def __call__(self, w: Writing, row: RolloutRow, *, now: datetime) -> int: ...


class EnsuresDeltas(Protocol):
    """Looks at a wave's devices and queues what must be built; from the delta services."""

    def __call__(self, row: RolloutRow, wave: str, *, now: datetime) -> object: ...


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick did: how many decisions it carried out, when to look again at the latest (None: only when something
    happens), and what
    went wrong, by rollout, without stopping the others."""

    at: datetime
    decided: int = 0
    wake_at: datetime | None = None
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Ticker:
    """Runs ticks. ``expire`` and ``ensure`` are the services it calls; ``changed`` is told after each commit (to
    refresh snapshots)."""

    store: Store
    expire: Expires
    ensure: EnsuresDeltas
    changed: Callable[[], None] = lambda: None
    _problems: dict[str, str] = field(default_factory=dict)

    def tick(self, now: datetime) -> Ticked:
        """Look at everything once. ``now`` is the one reading of the clock; a clock that went back is taken as
        standing still (RULES 8.2)."""
        with self.store.writing() as w:
            now = w.latest_tick(now=now)
        with self.store.reading() as r:
            rows = _current(r.rollouts(TICKED))
        self._problems.clear()
        self._run_effects(now)
        decided, wake_at = 0, None
        for row in rows:
            name = row.state.rollout
            try:
                count, wakes = self._settle(row.key, now)
            except Conflict:
                count, wakes = 0, now
            except WaveError as error:
                self._problems[name] = str(error)
                LOG.warning("rollout %s could not be looked at: %s", name, error)
                continue
            decided += count
            if wakes is not None:
                wake_at = wakes if wake_at is None else min(wake_at, wakes)
        if decided:
            self.changed()
        return Ticked(now, decided, wake_at, tuple(sorted(self._problems.items())))

    def _settle(self, key: int, now: datetime) -> tuple[int, datetime | None]:
        """Decide for one rollout until nothing more follows."""
        decided = 0
        for _ in range(MOST_ROUNDS):
            with self.store.reading() as r:
                row = r.rollout_by_key(key)
                if row is None:
                    return decided, None
                facts = r.facts(row, now=now)
            plan = decide(row.state, facts, rules_of(row), now)
            silences_due = facts.next_deadline is not None and facts.next_deadline <= now
            if not plan.decisions and not silences_due:
                return decided, plan.wake_at
            decided += self._write(key, now)
            if row.state.rollout in self._run_effects(now):
                return decided, now + RETRY_EFFECTS
        raise WaveError(f"Decisions did not come to rest after {MOST_ROUNDS} rounds.")

    def _write(self, key: int, now: datetime) -> int:
        """The same look again inside one transaction, and what it decides written down."""
        with self.store.writing() as w:
            row = w.rollout_by_key(key)
            if row is None:
                return 0
            silences = self.expire(w, row, now=now)
            # Counting silences may have halted the rollout in this very transaction: read it again.
            row = w.rollout_by_key(key) if silences else row
            assert row is not None
            facts = w.facts(row, now=now)
            plan = decide(row.state, facts, rules_of(row), now)
            if plan.decisions:
                commit(w, row, plan.decisions, facts, now=now)
            return len(plan.decisions) + silences

    def _run_effects(self, now: datetime) -> set[str]:
        """Do what the outbox asks for; the rollouts for which something failed. That stays, and a later tick tries
        again."""
        failed: set[str] = set()
        with self.store.reading() as r:
            waiting = r.effects()
        for effect in waiting:
            try:
                self._run(effect, now)
            except WaveError as error:
                failed.add(effect.rollout)
                self._problems[effect.rollout] = str(error)
                LOG.warning("%s for rollout %s failed: %s", effect.kind, effect.rollout, error)
                with self.store.writing() as w:
                    w.fail_effect(effect.key, str(error))
        return failed

    def _run(self, effect: Effect, now: datetime) -> None:
        with self.store.reading() as r:
            row = r.rollout(effect.rollout)
        if row is not None:
            match effect.kind:
                case EffectKind.WITHDRAW:
                    with self.store.writing() as w:
                        w.withdraw(row.key, effect.wave)
                        w.finish_effect(effect.key)
                    return
                case EffectKind.ENSURE_DELTAS:
                    if effect.wave is not None and row.scope is not None:
                        self.ensure(row, effect.wave, now=now)
        with self.store.writing() as w:
            w.finish_effect(effect.key)


def _current(rows: Iterable[RolloutRow]) -> list[RolloutRow]:
    """Live rollouts, and of the completed only the newest of each tag: it alone still offers (RULES 7.1)."""
    found: list[RolloutRow] = []
    completed: dict[str, RolloutRow] = {}
    for row in rows:
        if row.state.status is not RolloutStatus.COMPLETED:
            found.append(row)
        elif (other := completed.get(row.tag)) is None or row.state.standing.since > other.state.standing.since:
            completed[row.tag] = row
    return found + list(completed.values())
