"""A small pure world for ``decide``: it carries out plans, keeps the tallies of a store, and lets things happen.

Devices are numbers, not objects: each wave has so many that wait, so many that are away, and its slices' tallies. The
clock is a number that only goes forward. Nothing here repeats a formula of what is tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core import transitions
from orchestrator.core.decide import decide
from orchestrator.core.decisions import EnsureDeltas, HaltRollout, OpenSlice, Plan, PrepareWave
from orchestrator.core.evidence.clock import ClockFacts
from orchestrator.core.facts import (
    BudgetFacts,
    DeltaFacts,
    Facts,
    MonitorFacts,
    RolloutState,
    SliceFacts,
    WaveFacts,
    WaveState,
)
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import (
    OFFERING_ROLLOUT,
    OFFERING_WAVE,
    Reason,
    ReasonKind,
    RolloutStatus,
    Standing,
    WaveStatus,
)

DAY_0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
"""A Monday."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
APPLIED = Reason(ReasonKind.APPLIED, "Applied by ann.")
STARTED = Standing(Reason(ReasonKind.STARTED, "Started by ann."), DAY_0, "ann")
TOLERATE: dict[Outcome, Tolerance] = {
    OutcomeClass.FAILED: Tolerance(0.02),
    OutcomeClass.ROLLED_BACK: Tolerance(0.01),
    OutcomeClass.SILENT: Tolerance(0.05, Answer.HOLD),
}
HALTING = frozenset(outcome for outcome, tolerance in TOLERATE.items() if tolerance.then is Answer.HALT)


def fresh_state(names: Iterable[str], status: RolloutStatus = RolloutStatus.RUNNING) -> RolloutState:
    """A rollout whose waves are all pending."""
    waves = tuple(WaveState(name, WaveStatus.PENDING, Standing(APPLIED, DAY_0, "ann")) for name in names)
    return RolloutState("lmp-42", status, STARTED, 1, waves)


def monitor(answer: Answer = Answer.HALT, **changes: Any) -> MonitorFacts:
    """A monitor of failures over the rollout that has seen nothing bad."""
    plain = MonitorFacts("rollout/failed", (OutcomeClass.FAILED,), None, 0.02, 0.05, answer, 0, 0, 5)
    return replace(plain, **changes)


@dataclass
class Pool:
    """The devices of a wave outside its slices: ``waiting`` were seen lately, ``away`` not; ``there`` run the Target.

    ``pairs``: deltas it needs, of which ``ready`` are there; they serve its devices in equal parts.
    """

    waiting: int = 0
    away: int = 0
    there: int = 0
    pairs: int = 0
    ready: int = 0
    unknown: int = 0
    late: bool = False
    slices: list[SliceFacts] = field(default_factory=list)
    looked: tuple[int, int, DeltaFacts] | None = None


@dataclass
class World:
    """One rollout and its fleet. ``plans`` has every plan that decided something, with its time."""

    rules: Rules
    state: RolloutState
    pools: dict[str, Pool]
    now: datetime = DAY_0
    monitors: dict[str, MonitorFacts] = field(default_factory=dict)
    budgets: tuple[BudgetFacts, ...] = ()
    frozen: Reason | None = None
    fleet: int | None = None
    clock: ClockFacts | None = None
    plans: list[tuple[datetime, Plan]] = field(default_factory=list)

    # ------------------------------------------------------------------------------------------ the machine

    @property
    def facts(self) -> Facts:
        """What the store would say now."""
        pools = self.pools.values()
        size = sum(p.waiting + p.away + sum(piece.members for piece in p.slices) for p in pools)
        return Facts(
            devices=size if self.fleet is None else self.fleet,
            waves=tuple(self._wave_facts(name) for name in self.pools),
            monitors=tuple(self.monitors.values()),
            budgets=tuple(replace(each, bad=self._bad(each.outcomes)) for each in self.budgets),
            frozen=self.frozen,
            clock=self.clock,
        )

    def _bad(self, outcomes: tuple[Outcome, ...]) -> int:
        return sum(piece.bad.get(each, 0) for p in self.pools.values() for piece in p.slices for each in outcomes)

    def _wave_facts(self, name: str) -> WaveFacts:
        pool = self.pools[name]
        eligible, there, deltas = pool.looked or (None, 0, None)
        return WaveFacts(name, eligible, there, deltas, tuple(pool.slices), pool.late)

    def look(self) -> Plan:
        return decide(self.state, self.facts, self.rules, self.now)

    def tick(self) -> Plan:
        """Decide and carry out until nothing more follows; the last plan, which decides nothing."""
        for _ in range(10):
            plan = self.look()
            if not plan.decisions:
                return plan
            self.plans.append((self.now, plan))
            self.carry_out(plan)
        raise AssertionError(f"Decisions do not come to rest: {plan.decisions}")

    def carry_out(self, plan: Plan) -> None:
        """The record by ``transitions``, the effects by hand."""
        self.state = transitions.apply_all(self.state, plan.decisions, self.now)
        for decision in plan.decisions:
            match decision:
                case PrepareWave() | EnsureDeltas():
                    self.look_at_devices(decision.wave)
                case OpenSlice():
                    self.open_slice(decision.wave, decision.size)
                case HaltRollout():
                    self.withdraw()
                case _:
                    pass

    def look_at_devices(self, name: str) -> None:
        pool = self.pools[name]
        covered = pool.waiting * pool.ready // pool.pairs if pool.pairs else 0
        devices = pool.waiting if pool.pairs else 0
        deltas = DeltaFacts(self.now, devices, covered, pool.unknown, pool.pairs, pool.ready)
        unresolved = sum(piece.members - piece.resolved for piece in pool.slices)
        pool.looked = (pool.waiting + pool.away + unresolved, pool.there, deltas)

    def open_slice(self, name: str, size: int | None) -> None:
        """As ``Writing.open_slice``: with nobody waiting an empty first slice, or the last keeps nobody waiting."""
        pool = self.pools[name]
        members = pool.waiting if size is None else min(size, pool.waiting)
        pool.late = False
        if members or not pool.slices:
            pool.waiting -= members
            pool.slices.append(SliceFacts(len(pool.slices) + 1, self.now, members, pool.waiting))
        else:
            pool.slices[-1] = replace(pool.slices[-1], waiting=0)

    def withdraw(self) -> None:
        """Offers whose device has not started are taken back."""
        for pool in self.pools.values():
            pool.slices = [replace(s, withdrawn=s.withdrawn + self._pending(s)) for s in pool.slices]

    # ------------------------------------------------------------------------------------------ what happens

    def may_offer(self, name: str) -> bool:
        offering = self.state.status in OFFERING_ROLLOUT and self.state.wave(name).status in OFFERING_WAVE
        return offering and self.frozen is None

    def _each(self, name: str, count: int | None, room: str) -> Iterable[tuple[int, int]]:
        """How many of each slice, in order, so that ``count`` in all; None: as many as there is room for."""
        left = count
        for number, piece in enumerate(self.pools[name].slices):
            free = getattr(self, f"_{room}")(piece)
            take = free if left is None else min(free, left)
            if take > 0:
                yield number, take
            left = None if left is None else left - take

    def _unoffered(self, piece: SliceFacts) -> int:
        return piece.members - piece.offered + piece.withdrawn

    def _pending(self, piece: SliceFacts) -> int:
        return piece.offered - piece.withdrawn - piece.resolved - piece.left

    def _confirmed(self, piece: SliceFacts) -> int:
        return piece.confirmed

    def offer(self, name: str, count: int | None = None) -> None:
        """Devices of open slices come and are given the offer; those whose offer was withdrawn get it back first."""
        if not self.may_offer(name):
            return
        slices = self.pools[name].slices
        for number, take in list(self._each(name, count, "unoffered")):
            back = min(take, slices[number].withdrawn)
            slices[number] = replace(
                slices[number], offered=slices[number].offered + take - back, withdrawn=slices[number].withdrawn - back
            )

    def confirm(self, name: str, count: int | None = None) -> None:
        """Devices with an offer run the Target."""
        slices = self.pools[name].slices
        for number, take in list(self._each(name, count, "pending")):
            piece = slices[number]
            slices[number] = replace(piece, resolved=piece.resolved + take, confirmed=piece.confirmed + take)

    def turn_bad(self, name: str, outcome: Outcome, count: int, *, confirmed: bool = False) -> None:
        """Devices with an offer, or confirmed ones, come to a bad end."""
        slices = self.pools[name].slices
        done = 0
        for number, take in list(self._each(name, count, "confirmed" if confirmed else "pending")):
            piece = slices[number]
            bad = dict(Counter(piece.bad) + Counter({outcome: take}))
            gone = take if confirmed else 0
            slices[number] = replace(
                piece, resolved=piece.resolved + take - gone, confirmed=piece.confirmed - gone, bad=bad
            )
            done += take
        for key, each in self.monitors.items():
            if outcome in each.outcomes and done and not each.accepted:
                bad_now = each.bad + done
                crossed = each.crossed_at or ((bad_now, each.places + bad_now) if bad_now >= each.next_limit else None)
                self.monitors[key] = replace(each, bad=bad_now, crossed_at=crossed)

    def come(self, name: str, count: int) -> None:
        """Devices join, or are back after a long time."""
        pool = self.pools[name]
        pool.waiting += count
        pool.late = pool.late or bool(count and pool.slices)

    def pass_time(self, span: timedelta) -> None:
        self.now += span

    def go_well(self, name: str) -> None:
        """Every device with a place gets the offer and confirms."""
        self.offer(name)
        self.confirm(name)

    # ------------------------------------------------------------------------------------------ people

    def said(self, text: str) -> Reason:
        return Reason(ReasonKind.ORDERED, text)

    def order(self, status: RolloutStatus) -> None:
        self.state = transitions.to_status(self.state, status, self.said(f"{status} by ann."), self.now, "ann")

    def halt(self) -> None:
        self.state = transitions.halt(self.state, self.said("Halted by ann."), self.now, "ann")
        self.withdraw()

    def accept_and_resume(self) -> None:
        """A person accepts whatever stopped it."""
        self.accept()
        accepted = Reason(ReasonKind.ACCEPTED, "Resumed by ann: known and harmless.")
        if self.state.status is RolloutStatus.HALTED:
            self.state = transitions.resume_halted(self.state, accepted, self.now, "ann")
        else:
            self.order(RolloutStatus.RUNNING)

    def accept(self) -> None:
        self.monitors = {key: replace(m, accepted=True) if m.crossed_at else m for key, m in self.monitors.items()}
        self.budgets = tuple(replace(b, base=self._bad(b.outcomes)) for b in self.budgets)
        bad = sum(sum(s.bad.get(o, 0) for o in HALTING) for p in self.pools.values() for s in p.slices)
        self.state = replace(self.state, first_bad_accepted=bad)

    def promote(self, name: str) -> None:
        self.state = transitions.with_wave(self.state, replace(self.state.wave(name), promoted=True))

    def move(self, name: str, status: WaveStatus) -> None:
        self.state = transitions.move(self.state, name, status, self.said(f"{status} by ann."), self.now, "ann")

    def resume_wave(self, name: str) -> None:
        self.state = transitions.release_wave(self.state, name, self.now)

    def complete(self) -> None:
        reason = self.said("Completed by ann.")
        self.state = transitions.complete(self.state, reason, self.now, "ann", serve_whole=False)

    # ------------------------------------------------------------------------------------------ reading

    def status(self, name: str) -> WaveStatus:
        return self.state.wave(name).status

    def why(self, name: str | None = None) -> list[tuple[ReasonKind, str]]:
        """Why nothing more happens to a wave, or to the rollout."""
        return [(each.reason.kind, each.reason.sentence) for each in self.look().reasons if each.wave == name]

    def decided(self, kind: type, name: str | None = None) -> list[str]:
        """The sentences of all decisions of a kind so far."""
        found = [d for _, plan in self.plans for d in plan.decisions if isinstance(d, kind)]
        return [d.reason.sentence for d in found if name is None or getattr(d, "wave", None) == name]


def world(*waves: WaveRules, devices: int = 20, fleet: int = 1_000, **rules: Any) -> World:
    """A running rollout of these waves, each with so many devices that were seen lately."""
    bound = Rules(waves=waves, tolerate=TOLERATE, **rules)
    names = [wave.wave for wave in waves]
    return World(bound, fresh_state(names), {name: Pool(waiting=devices) for name in names}, fleet=fleet)


def slices(told: World, name: str = "rest") -> list[int]:
    """How many devices each slice of a wave has."""
    return [piece.members for piece in told.pools[name].slices]


def go_through(told: World, *names: str) -> None:
    """All goes well: every device of these waves confirms, slice after slice, and the bake is over."""
    for _ in range(12):
        for name in names:
            told.go_well(name)
        told.tick()
    told.pass_time(12 * HOUR)
    told.tick()
