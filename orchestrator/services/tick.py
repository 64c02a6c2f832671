"""The tick: load → decide → apply, then the outbox.

One tick looks at every rollout that can still change. What it decides is written in one version-checked transaction per
rollout; effects that take long come out of the outbox afterwards and are idempotent. A crash between any two lines is
repaired by the next tick: nothing lives only in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from orchestrator.core.decide import decide
from orchestrator.core.decisions import Decision, OpenWave
from orchestrator.core.evidence.log import BLOCK
from orchestrator.core.states import RolloutStatus
from orchestrator.errors import Conflict, NotFound, Overlap, WaveError
from orchestrator.services import tracing
from orchestrator.services.awaiting import Awaiting
from orchestrator.services.chronicle import commit, put_off, rules_of
from orchestrator.services.locking import locked_by_key
from orchestrator.services.records import Effect, EffectKind, RolloutRow
from orchestrator.services.store import Store, Writing

LOG = logging.getLogger(__name__)

MOST_ROUNDS: Final = 100
"""Decisions follow one another within a tick (a wave passes, the next opens); more rounds than this mean a fault in
the rules."""

RETRY_EFFECTS: Final = timedelta(seconds=10)
"""How soon an effect that failed is tried again; a look at deltas twice as long after each further failure."""

RETRY_AT_MOST: Final = timedelta(minutes=5)
"""The longest time between two tries."""

GATEWAY: Final = "gateway"
"""By which name gateways say that they live."""

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

MOST_EFFECTS: Final = 10_000
"""Effects read at once. A wave has one look waiting at most, so this is all of them."""

SEALED_AT_ONCE: Final = 8 * BLOCK
"""Rows of the evidence log whose digest is worked out in one short transaction, and the fewest that are worth one."""

MOST_SEALS: Final = 100
"""Such transactions for one rollout in one tick; the next tick goes on."""

ENDED: Final = frozenset({RolloutStatus.DRAFT, RolloutStatus.CANCELLED})
"""Where nobody needs deltas. A halted rollout may be resumed, and shall find them made."""


class Expires(Protocol):
    """Counts silences that are due; from the device services."""

    def __call__(self, w: Writing, row: RolloutRow, *, now: datetime) -> int: ...


class EnsuresDeltas(Protocol):
    """Looks at a wave's devices and queues what must be built; from the delta services."""

    def __call__(self, row: RolloutRow, wave: str, *, now: datetime) -> object: ...


class ProvesDeltas(Protocol):
    """Reads a wave's deltas from the disk before it opens, and forgets what does not hold; how many."""

    def __call__(self, row: RolloutRow, wave: str, *, now: datetime) -> int: ...


class AsksGates(Protocol):
    """Has a wave's gates asked, beside the ticker; their answers come as facts. Must not block."""

    def __call__(self, row: RolloutRow, wave: str) -> None: ...


def asks_nobody(row: RolloutRow, wave: str) -> None:
    """Where there are no gates."""


def take_for_granted(row: RolloutRow, wave: str, *, now: datetime) -> int:
    """Where content exists in name only."""
    return 0


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick did: how many decisions it carried out, when to look again at the latest (None: only when something
    happens), and what went wrong, by rollout, without stopping the others. ``not_counted``: rollouts in which silences
    were due and not counted, because no gateway lives. ``elsewhere``: nothing was done, another process ticks."""

    at: datetime
    decided: int = 0
    wake_at: datetime | None = None
    problems: tuple[tuple[str, str], ...] = ()
    not_counted: int = 0
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class _Failed:
    """An effect that failed: how often in a row, and when it is tried again. It is kept in memory only: a fresh
    process tries at once."""

    times: int
    again_at: datetime


@dataclass(slots=True)
class Ticker:
    """Runs ticks. ``expire``, ``ensure``, ``prove`` and ``ask`` are the services it calls; ``changed`` is told after
    each commit (to refresh snapshots)."""

    store: Store
    expire: Expires
    ensure: EnsuresDeltas
    changed: Callable[[], None] = lambda: None
    prove: ProvesDeltas = take_for_granted
    ask: AsksGates = asks_nobody
    _problems: dict[str, str] = field(default_factory=dict)
    _failed: dict[int, _Failed] = field(default_factory=dict)
    _counting: bool = True
    _listened: datetime = NEVER
    _awaiting: Awaiting = field(init=False)

    def __post_init__(self) -> None:
        self._awaiting = Awaiting(self.store)

    def tick(self, now: datetime, *, silences: bool = True) -> Ticked:
        """Look at everything once; without ``silences`` nobody is counted silent. ``now`` is the one reading of the
        clock; a clock that went back is taken as standing still (RULES 8.2)."""
        with self.store.writing() as w:
            now = w.latest_tick(now=now)
            # While no gateway lives, nobody grows older: what is silent is looked at as of the last time one did.
            self._listened = now if silences else w.last_heartbeat(GATEWAY) or NEVER
        self._problems.clear()
        self._counting = silences
        self._run_effects(now)
        with self.store.reading() as r:
            rows = r.offering()
            clocks = r.deadlines()
            names = {key: row.state.rollout for key in clocks if (row := r.rollout_by_key(key)) is not None}
        not_counted = 0 if silences else sum(due_at <= now for due_at in clocks.values())
        decided = 0
        wakes = [failed.again_at for failed in self._failed.values()]
        for row in rows:
            clocks.pop(row.key, None)
            self._guarded(row.state.rollout, row.key, now, self._seal)
            count, wake_at = self._guarded(row.state.rollout, row.key, now, self._settle)
            decided += count
            wakes += [wake_at] if wake_at is not None else []
        # Clocks run in every status (RULES 1.1): a device that started under a rollout which has ended since would
        # otherwise be "under way" for ever, and offered nothing else.
        for key, due_at in clocks.items():
            wake_at = due_at if due_at > now else None
            if due_at <= now and silences:
                count, wake_at = self._guarded(names.get(key, str(key)), key, now, self._only_expire)
                decided += count
            wakes += [wake_at] if wake_at is not None else []
        if decided:
            self.changed()
        return Ticked(now, decided, min(wakes, default=None), tuple(sorted(self._problems.items())), not_counted)

    def _guarded(
        self, name: str, key: int, now: datetime, look: Callable[[int, datetime], tuple[int, datetime | None]]
    ) -> tuple[int, datetime | None]:
        """Look at one rollout; whatever goes wrong with it is its own problem, and the others go on."""
        try:
            return look(key, now)
        except Conflict:
            return 0, now
        except WaveError as error:
            self._problems[name] = str(error)
            LOG.warning("rollout %s could not be looked at: %s", name, error)
        except Exception as error:
            self._problems[name] = f"{type(error).__name__}: {error}"
            LOG.exception("rollout %s could not be looked at", name)
        return 0, None

    def _settle(self, key: int, now: datetime) -> tuple[int, datetime | None]:
        """Decide for one rollout until nothing more follows."""
        decided = 0
        for _ in range(MOST_ROUNDS):
            with self.store.reading() as r:
                row = r.rollout_by_key(key)
                if row is None:
                    return decided, None
                facts = r.facts(row, now=now, listened=self._listened)
            plan = decide(row.state, facts, rules_of(row), now)
            silences_due = self._counting and facts.next_deadline is not None and facts.next_deadline <= now
            proven = self._proven(row, plan.decisions, now)
            if not _without(plan.decisions, _unproven(plan.decisions, proven)) and not silences_due:
                self._awaiting.look(row, plan, now=now)
                return decided, plan.wake_at if not plan.decisions else now + RETRY_EFFECTS
            try:
                with tracing.span("decision", {"wave.rollout": row.state.rollout}) as span:
                    decided += self._write(key, now, proven, span)
            except (Overlap, NotFound) as refused:
                with self.store.writing() as w:
                    again = locked_by_key(w, key)
                    if again is not None and again.state.status is RolloutStatus.SCHEDULED:
                        put_off(w, again, str(refused), now=now)
                raise
            self._run_effects(now)
        raise WaveError(f"Decisions did not come to rest after {MOST_ROUNDS} rounds.")

    def _proven(self, row: RolloutRow, decisions: Sequence[Decision], now: datetime) -> set[str]:
        """Of the waves that would open now, those whose deltas hold on the disk at this moment (P3); the rest wait."""
        proven = set()
        for wave in [each.wave for each in decisions if isinstance(each, OpenWave)]:
            try:
                if not self.prove(row, wave, now=now):
                    proven.add(wave)
            except WaveError as error:
                self._problems[row.state.rollout] = str(error)
                LOG.warning("wave %s of rollout %s does not open: %s", wave, row.state.rollout, error)
        return proven

    def _write(self, key: int, now: datetime, proven: Collection[str], span: tracing.Span) -> int:
        """The same look again inside one transaction, and what it decides written down; what opens a wave that is not
        ``proven`` is left to the next look."""
        with self.store.writing() as w:
            row = locked_by_key(w, key)
            if row is None:
                return 0
            silences = self.expire(w, row, now=now) if self._counting else 0
            # Counting silences may have halted the rollout in this very transaction: read it again.
            row = w.rollout_by_key(key) if silences else row
            assert row is not None
            facts = w.facts(row, now=now, listened=self._listened)
            would = decide(row.state, facts, rules_of(row), now).decisions
            shut = _unproven(would, proven)
            decisions = _without(would, shut)
            if decisions:
                commit(w, row, decisions, facts, now=now, withheld=sorted(shut))
        span.note({"wave.decisions": len(decisions), "wave.silences": silences})
        for each in decisions:
            about = {"wave.wave": each.wave} if hasattr(each, "wave") else {}
            span.event(type(each).__name__, {**about, "wave.reason": each.reason.kind.value})
        return len(decisions) + silences

    def _seal(self, key: int, now: datetime) -> tuple[int, datetime | None]:
        """Work out the digest of the evidence log as far as whole blocks go, so that no journal entry has much left to
        do and no report anything."""
        for _ in range(MOST_SEALS):
            with self.store.reading() as r:
                if not r.evidence_unsealed(key, at_least=SEALED_AT_ONCE):
                    break
            with self.store.writing() as w:
                w.lock_rollout(key)
                w.seal_evidence(key, at_most=SEALED_AT_ONCE)
        return 0, None

    def _only_expire(self, key: int, now: datetime) -> tuple[int, datetime | None]:
        """Count the silences of a rollout that decides nothing any more."""
        with self.store.writing() as w:
            row = locked_by_key(w, key)
            silences = 0 if row is None else self.expire(w, row, now=now)
            return silences, w.deadlines().get(key)

    def _run_effects(self, now: datetime) -> None:
        """Do what the outbox asks for. What fails stays there, and a later tick tries again."""
        with self.store.reading() as r:
            waiting = r.effects(limit=MOST_EFFECTS)
        self._failed = {effect.key: self._failed[effect.key] for effect in waiting if effect.key in self._failed}
        for effect in waiting:
            before = self._failed.get(effect.key)
            if before is not None and now < before.again_at:
                self._problems[effect.rollout] = effect.error or ""
                continue
            try:
                about = {
                    "wave.rollout": effect.rollout,
                    "wave.effect": effect.kind.value,
                    "wave.wave": effect.wave or "",
                }
                with tracing.span("effect", about):
                    self._run(effect, now)
                self._failed.pop(effect.key, None)
            except Exception as error:
                self._give_up_for_now(effect, error, now)

    def _leave_out(self, effect: Effect, key: int) -> None:
        """In steps, between which reports come in. What was killed on the way begins anew, and so does what was
        overtaken: each step goes by the state as it is then, and excluded and let in again meanwhile is nothing to
        do."""
        after: int | None = 0
        out: frozenset[str] | None = None
        while after is not None:
            with self.store.writing() as w:
                row = locked_by_key(w, key)
                if row is not None and row.state.excluded_segments != out:
                    after, out = 0, row.state.excluded_segments
                after = None if row is None else w.leave_out(row, after=after).after
                if after is None:
                    w.finish_effect(effect.key)

    def _give_up_for_now(self, effect: Effect, error: Exception, now: datetime) -> None:
        said = str(error) if isinstance(error, WaveError) else f"{type(error).__name__}: {error}"
        LOG.warning(
            "%s for rollout %s failed: %s",
            effect.kind,
            effect.rollout,
            said,
            exc_info=None if isinstance(error, WaveError) else error,
        )
        before = self._failed.get(effect.key)
        times = 1 if before is None else before.times + 1
        # Withdrawing is never put off for long: devices may be holding offers of a release that was halted.
        growing = effect.kind is EffectKind.ENSURE_DELTAS
        pause = min(RETRY_AT_MOST, RETRY_EFFECTS * 2 ** min(times - 1, 10)) if growing else RETRY_EFFECTS
        self._failed[effect.key] = _Failed(times, now + pause)
        self._problems[effect.rollout] = said
        with self.store.writing() as w:
            w.fail_effect(effect.key, said)

    def _run(self, effect: Effect, now: datetime) -> None:
        with self.store.reading() as r:
            row = r.rollout(effect.rollout)
        if row is not None:
            match effect.kind:
                case EffectKind.WITHDRAW:
                    with self.store.writing() as w:
                        w.lock_rollout(row.key)
                        # Another process may have done it already, and a person resumed since: then offers are new.
                        if any(each.key == effect.key for each in w.effects()):
                            w.withdraw(row.key, effect.wave)
                            w.finish_effect(effect.key)
                    return
                case EffectKind.LEAVE_OUT:
                    self._leave_out(effect, row.key)
                    return
                case EffectKind.ENSURE_DELTAS:
                    # A wave that an edit has removed needs nothing any more.
                    there = effect.wave in {wave.wave for wave in row.state.waves}
                    if effect.wave is not None and there and row.scope is not None and row.state.status not in ENDED:
                        self.ensure(row, effect.wave, now=now)
                case EffectKind.ASK_GATES:
                    if effect.wave is not None:
                        self.ask(row, effect.wave)
        with self.store.writing() as w:
            w.finish_effect(effect.key)


def _unproven(decisions: Sequence[Decision], proven: Collection[str]) -> set[str]:
    """Waves that would open unproven."""
    return {each.wave for each in decisions if isinstance(each, OpenWave) and each.wave not in proven}


def _without(decisions: Sequence[Decision], waves: Collection[str]) -> tuple[Decision, ...]:
    """Without all that concerns these waves."""
    return tuple(each for each in decisions if getattr(each, "wave", None) not in waves)
