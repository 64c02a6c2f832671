"""What a decision is made from: small frozen numbers, never a list of devices.

The store keeps these as counters that move with each report, so that gathering them costs the same for a hundred
devices and for ten million.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from orchestrator.core.approving import Approval
from orchestrator.core.evidence.clock import ClockFacts
from orchestrator.core.gates import GateFacts
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, in_order
from orchestrator.core.states import Reason, RolloutStatus, Standing, WaveStatus


@dataclass(frozen=True, slots=True)
class WaveState:
    """A wave as it stands.

    ``hold``: a latched wait that only a person ends (RULES 1.3), beside the status. ``promoted``: a person let it open.
    ``asked_at``: when a look at its devices was last asked for. ``baking_at``: when the bake clock started.
    ``granted_at``: when a person last let it go on; every time that it is given counts from then at the earliest.
    ``gates_asked_at``: when its gates were last asked.
    ``withheld``: a person cancelled it, so its devices are not offered the Target, even when the rollout completes.
    """

    wave: str
    status: WaveStatus
    standing: Standing
    hold: Standing | None = None
    promoted: bool = False
    opened_at: datetime | None = None
    prepared_at: datetime | None = None
    asked_at: datetime | None = None
    baking_at: datetime | None = None
    granted_at: datetime | None = None
    withheld: bool = False
    gates_asked_at: datetime | None = None

    def serves_when_completed(self) -> bool:
        """A completed rollout serves every wave that nobody cancelled, one that was skipped for want of devices too."""
        return not self.withheld and self.status is not WaveStatus.CANCELLED


@dataclass(frozen=True, slots=True)
class Excluded:
    """A segment that is left out: no device of it is offered the Target, and the rest goes on without it. ``devices``:
    how many of the rollout's it has, as far as was known then."""

    segment: str
    standing: Standing
    devices: int


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout as it stands. ``waves`` in file order. ``serve_whole``: completed with ``--now``.

    ``epoch`` grows with each halt, pause, hold and resume: an offer made under an older one is void.
    ``completed``: it has been completed; a halt or a hold since is left to there (RULES 2).
    ``first_bad_accepted``: how many bad outcomes in small waves a person has seen and resumed over.
    ``excluded``: segments that are left out, in the order in which they were.
    ``newcomers``: monitors over the rollout and its waves that an edit has added since the start.
    ``clock_from``: the minute since 1970 from which on devices that begin to install are evidence for the clock test; a
    person who resumes over what it said begins it anew.
    ``approvals``: what other people said to the files as they are bound now. ``authors``: who wrote, edited or started
    it.
    """

    rollout: str
    status: RolloutStatus
    standing: Standing
    epoch: int
    waves: tuple[WaveState, ...]
    start_at: datetime | None = None
    serve_whole: bool = False
    attempt: int = 1
    first_bad_accepted: int = 0
    completed: bool = False
    clock_from: int = 0
    excluded: tuple[Excluded, ...] = ()
    newcomers: int = 0
    approvals: tuple[Approval, ...] = ()
    authors: tuple[str, ...] = ()

    @property
    def excluded_segments(self) -> frozenset[str]:
        return frozenset(each.segment for each in self.excluded)

    def wave(self, name: str) -> WaveState:
        return next(wave for wave in self.waves if wave.wave == name)


@dataclass(frozen=True, slots=True)
class Apart:
    """Devices that said that they were unhealthy at their offer and that the policy leaves out of what is counted; none
    of them is in any other tally. ``in_flight``: offered, and no outcome yet; ``resolved``: with an outcome of any
    kind."""

    offered: int = 0
    in_flight: int = 0
    resolved: int = 0
    confirmed: int = 0
    bad: Mapping[Outcome, int] = field(default_factory=dict)

    def __add__(self, other: Apart) -> Apart:
        bad = {each: self.bad.get(each, 0) + other.bad.get(each, 0) for each in in_order([*self.bad, *other.bad])}
        return Apart(
            self.offered + other.offered,
            self.in_flight + other.in_flight,
            self.resolved + other.resolved,
            self.confirmed + other.confirmed,
            bad,
        )


NONE_APART: Final = Apart()


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """One slice's tallies, in devices. ``waiting`` is how many of the wave were left for later slices when it opened,
    ``excluded`` how many of its members are left out with their segment, ``apart`` those that were unhealthy before; no
    other tally but ``members`` has either."""

    number: int
    opened_at: datetime
    members: int
    waiting: int = 0
    offered: int = 0
    withdrawn: int = 0
    started: int = 0
    applied: int = 0
    resolved: int = 0
    confirmed: int = 0
    left: int = 0
    bad: Mapping[Outcome, int] = field(default_factory=dict)
    retired: int = 0
    excluded: int = 0
    apart: Apart = NONE_APART

    @property
    def counted(self) -> int:
        """Members that count: those of excluded segments do not, nor those apart, once they were offered the Target.
        Never fewer than were offered it and count: who is left out may have changed since that was looked at."""
        return max(self.offered, self.members - self.excluded - self.apart.offered)

    @property
    def reachable(self) -> int:
        """Members of whom an outcome can be expected: of those that count the retired leave denominators (RULES
        7.7)."""
        return max(0, self.counted - self.retired)

    @property
    def reported(self) -> int:
        """Outcomes that say something of the Target: neither silence nor an offer that was ignored."""
        silent = self.bad.get(OutcomeClass.SILENT, 0) + self.bad.get(OutcomeClass.IGNORED, 0)
        return max(self.confirmed, self.resolved - silent)


class Tally(NamedTuple):
    """Slices summed: ``reachable`` members, offers of which an outcome is ``expected``, ``resolved`` and ``confirmed``
    ones, ``bad`` ones by class (absent is none)."""

    reachable: int
    expected: int
    resolved: int
    confirmed: int
    bad: Mapping[Outcome, int]


def places_since(from_place: int, slices: Iterable[SliceFacts]) -> int:
    """Places given after the first ``from_place``, those of excluded segments left out."""
    given = counted = 0
    for piece in slices:
        begun = max(0, min(piece.members, given + piece.members - from_place))
        counted += max(0, begun - piece.excluded) if begun else 0
        given += piece.members
    return counted


@dataclass(frozen=True, slots=True)
class DeltaFacts:
    """Readiness of a wave's required deltas, as of ``computed_at``.

    ``devices``: reachable devices with a commit the repository has and another than the Target's; ``covered`` of them
    have a ready delta.
    ``unknown``: devices whose commit the repository does not have. ``pairs``, ``ready``, ``failed``: numbers of deltas.
    """

    computed_at: datetime
    devices: int = 0
    covered: int = 0
    unknown: int = 0
    pairs: int = 0
    ready: int = 0
    failed: int = 0

    @property
    def coverage(self) -> float:
        """The share of devices whose delta is ready; 1 when no device needs one."""
        return self.covered / self.devices if self.devices else 1.0


@dataclass(frozen=True, slots=True)
class WaveFacts:
    """A wave's counts. ``eligible``: devices that would be offered, reachable or not, ``already_there``: members that
    run the Target or a newer version; both as of the last look at the fleet (None before the first). ``late``: devices
    came since the last slice opened. ``gates``: what its gates said last."""

    wave: str
    eligible: int | None = None
    already_there: int = 0
    deltas: DeltaFacts | None = None
    slices: tuple[SliceFacts, ...] = ()
    late: bool = False
    gates: tuple[GateFacts, ...] = ()

    @property
    def members(self) -> int:
        """Reachable devices that have been given a place."""
        return sum(piece.members for piece in self.slices)

    @property
    def reachable(self) -> int:
        """Members that have not been retired without an outcome since, nor excluded."""
        return sum(piece.reachable for piece in self.slices)

    @property
    def waiting(self) -> int:
        """Devices left for later slices when the last one opened."""
        return self.slices[-1].waiting if self.slices else 0

    @property
    def offered(self) -> int:
        return sum(piece.offered for piece in self.slices)

    @property
    def standing(self) -> int:
        """Offers that were not withdrawn, and whose device was not retired."""
        return sum(piece.offered - piece.withdrawn - piece.retired for piece in self.slices)

    @property
    def expected(self) -> int:
        """Offers of which an outcome is expected: those not withdrawn, and whose device has neither left nor been
        retired."""
        return sum(piece.offered - piece.withdrawn - piece.left - piece.retired for piece in self.slices)

    @property
    def resolved(self) -> int:
        return sum(piece.resolved for piece in self.slices)

    @property
    def confirmed(self) -> int:
        return sum(piece.confirmed for piece in self.slices)

    def tally(self, *, opened_until: datetime) -> Tally:
        """The slices opened until then, summed at one go: a decision asks this of every wave that bakes."""
        reachable = expected = resolved = confirmed = 0
        bad: dict[Outcome, int] = {}
        for piece in self.slices:
            if piece.opened_at <= opened_until:
                reachable += piece.reachable
                expected += piece.offered - piece.withdrawn - piece.left - piece.retired
                resolved += piece.resolved
                confirmed += piece.confirmed
                for outcome, count in piece.bad.items():
                    bad[outcome] = bad.get(outcome, 0) + count
        return Tally(reachable, expected, resolved, confirmed, bad)

    @property
    def in_flight(self) -> int:
        """Offered, and no outcome yet; also those apart."""
        return self.expected - self.resolved + sum(piece.apart.in_flight for piece in self.slices)

    @property
    def apart(self) -> Apart:
        return sum((piece.apart for piece in self.slices), NONE_APART)

    @property
    def bad_classes(self) -> tuple[Outcome, ...]:
        """Those of which there is any."""
        return in_order(each for piece in self.slices for each, many in piece.bad.items() if many)

    @property
    def bad_in_all(self) -> int:
        """Bad outcomes of all classes; a device may have several."""
        return sum(many for piece in self.slices for many in piece.bad.values())

    def bad(self, outcome: Outcome) -> int:
        return sum(piece.bad.get(outcome, 0) for piece in self.slices)


@dataclass(frozen=True, slots=True)
class MonitorFacts:
    """One monitor: ``places`` given in its population since it started, ``bad`` devices among them, ``next_limit`` the
    number of first places among which one more than those cross (0: so few never do), ``crossed_at`` the (count, place)
    of the first crossing. ``segment``: the one it watches, ``devices`` how many it had at the start; places and bad
    devices of excluded segments are left out of all other monitors."""

    monitor: str
    outcomes: tuple[Outcome, ...]
    wave: str | None
    tolerance: float
    alpha: float
    answer: Answer
    places: int
    bad: int
    next_limit: int
    crossed_at: tuple[int, int] | None = None
    accepted: bool = False
    amber: bool = False
    segment: str | None = None
    devices: int = 0


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """A hard stop: ``limit`` bad devices of these classes in the whole rollout; ``base``: those a person has accepted.
    ``answer``: what reaching it does, halt or hold."""

    outcomes: tuple[Outcome, ...]
    limit: int
    bad: int
    base: int = 0
    answer: Answer = Answer.HALT

    @property
    def reached(self) -> bool:
        return self.bad - self.base >= self.limit

    @property
    def name(self) -> str:
        return "+".join(self.outcomes)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything one decision sees. ``devices``: eligible devices of the rollout at its start, the base of shares and
    of "small" fleets. ``monitors``: those over segments only where they have a bad device. ``next_deadline``: when the
    next silence will be counted. ``frozen``: why all offers are stopped. ``clock``: the clock test for silence; None
    where nothing was learnt to test by."""

    devices: int
    waves: tuple[WaveFacts, ...]
    monitors: tuple[MonitorFacts, ...] = ()
    budgets: tuple[BudgetFacts, ...] = ()
    next_deadline: datetime | None = None
    frozen: Reason | None = None
    clock: ClockFacts | None = None
