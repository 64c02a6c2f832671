"""``wave replay``: every recorded decision made again, and every counted outcome looked at again between them.

At each look that decided, what it saw is compared with what the evidence log says (monitors, budgets and bad outcomes
of slices are recounted with the core's crossing), and the real ``decide`` is asked again with the record, the facts and
the rules of then. After each bad outcome in between the real ``safety`` is asked: had it stopped the rollout, a stop
must follow at that moment.

Under another policy (``counterfactual``) the same story says what that policy would have decided and when.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from orchestrator.core.decide import decide
from orchestrator.core.decisions import Decision, HaltRollout
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.evidence.left_out import Seat
from orchestrator.core.evidence.log import Line, parsed, tells_of_bad
from orchestrator.core.evidence.recounting import CountedMonitor, Recount, seat_in_log
from orchestrator.core.facts import Facts, MonitorFacts, RolloutState, SliceFacts, WaveFacts
from orchestrator.core.journal import Entry
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import Rules, bind
from orchestrator.core.safety import safety
from orchestrator.core.words import plural
from orchestrator.errors import NotFound
from orchestrator.services.counterfactual import Counterfactual
from orchestrator.services.recorded import Look
from orchestrator.services.records import RolloutRow
from orchestrator.services.replay_steps import Began, Bound, Broken, Counted, Looked, Ordered, Seen, Steps
from orchestrator.services.replayed import Diverging, Replayed, described, may_stop
from orchestrator.services.store import Reading, Store
from orchestrator.services.verifying import BEFORE_ALL, LINES_AT_ONCE, Progress, entries_of, lines_of

EXCLUDING: Final = frozenset({"excluded", "included"})
"""Entries by which segments are left out."""


@dataclass(frozen=True, slots=True)
class Replayer:
    store: Store

    def replay(
        self, name: str, *, policy: Policy | None = None, progress: Progress = lambda rollout, rows, of: None
    ) -> Replayed:
        """One rollout, in one snapshot. Raises NotFound, and InvalidInput for a policy that its waves do not fit."""
        with self.store.reading() as r:
            row = r.rollout(name)
            if row is None:
                raise NotFound(f"There is no rollout {name}.", remedy="`wave list` shows them all.")
            steps = Steps(r, row, progress, r.facts(row, now=row.state.standing.since).waves)
            recount = _recount(r, row, policy)
            if policy is not None:
                return Counterfactual(name, steps, policy, recount).run()
            return _Again(name, steps, recount).run()


def _recount(r: Reading, row: RolloutRow, policy: Policy | None) -> Recount:
    """With the seats of devices where segments are watched, or ever were watched or excluded: the log alone does not
    tell them. ``policy``: another one, with classes and segments of its own."""
    classes = None if policy is None else policy.tolerances
    if (policy is not None and policy.segments) or any(_by_segment(each) for each in entries_of(r, row.key)):
        seats = _Seats(r, row)
        return Recount(seats, r.slices(row.key), classes, seats.past)
    return Recount(seat_in_log, classes=classes)


def _by_segment(entry: Entry) -> bool:
    policy = entry.facts.get("policy")
    return entry.event in EXCLUDING or (isinstance(policy, str) and bool(Policy.from_canonical(policy).segments))


class _Seats:
    """Position and segments of the devices of the log, by their offers, everything else by the log; asked for with one
    question for each page of it."""

    def __init__(self, r: Reading, row: RolloutRow) -> None:
        self._r, self._row = r, row
        self._first, self._upto = BEFORE_ALL + 1, BEFORE_ALL
        self._known: Mapping[int, Seat] = {}

    def __call__(self, line: Line) -> Seat:
        if not self._first <= line.seq <= self._upto:
            page = self._r.evidence_lines(self._row.key, after=line.seq - 1, limit=LINES_AT_ONCE)
            self._first, self._upto = line.seq, page[-1][0] if page else line.seq
            bad = {parsed(text).device_key for _, text in page if tells_of_bad(text)}
            self._known = self._r.seats(self._row, bad)
        told = seat_in_log(line)
        known = self._known.get(line.device_key)
        return told if known is None else replace(told, position=known.position, segments=known.segments)

    def past(self, upto: int) -> Iterator[tuple[Line, Seat]]:
        """From the beginning of the log to this row, read once more."""
        seats = _Seats(self._r, self._row)
        for seq, text in lines_of(self._r, self._row.key):
            if seq > upto:
                return
            if tells_of_bad(text):
                yield (line := parsed(text)), seats(line)


@dataclass(slots=True)
class _Again:
    """The same rules as then: nothing may differ."""

    name: str
    steps: Steps
    recount: Recount
    found: Diverging = field(init=False)
    files: tuple[RolloutFile, Policy] | None = None
    dark: Darkness | None = None
    rules: Rules | None = None
    devices: int = 0
    waves: tuple[WaveFacts, ...] = ()
    looks: int = 0
    decisions: int = 0
    entry: int = 0
    unstopped: bool = False
    excluded: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])
    told: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found = Diverging(self.steps)

    def run(self) -> Replayed:
        for step in self.steps:
            match step:
                case Seen():
                    self.waves = step.waves
                case Bound():
                    self.files = step.spec, step.policy
                    self.rules = bind(*self.files, self.dark)
                case Began():
                    self._watch(step)
                case Counted():
                    self._count(step)
                case Looked():
                    self._look(step)
                    self.unstopped = False
                    self.entry = step.entry.seq
                case Ordered():
                    self.unstopped = False
                    self.entry = step.entry.seq
                case Broken():
                    self.found.add(step.what, step.at, step.seq, "", step.sentence)
                case _:
                    assert_never(step)
        return Replayed(
            rollout=self.name,
            policy=None,
            entries=self.steps.entries,
            looks=self.looks,
            decisions=self.decisions,
            outcomes=self.steps.outcomes,
            differs=self.found.many,
            divergences=tuple(self.found.kept),
        )

    def _watch(self, began: Began) -> None:
        watching = began.watching
        if began.dark is not None and self.files is not None:
            self.dark = began.dark
            self.rules = bind(*self.files, self.dark)
        self.devices = watching.devices
        counted = [CountedMonitor(each.spec, each.from_place) for each in watching.monitors]
        self.recount.watch(counted, watching.budgets)
        self.told.clear()

    def _count(self, step: Counted) -> None:
        """An outcome between two looks: whatever stops the rollout must be an entry of that moment."""
        self._leave_out(step.state)
        if not self.recount.count(step.line) or step.state is None or self.rules is None or self.unstopped:
            return
        if not may_stop(self.recount, self.devices < SMALL_FLEET_BELOW):
            return
        facts = Facts(
            self.devices,
            self.recount.waves(self.waves),
            monitors=self.recount.facts(self.waves),
            budgets=tuple(self.recount.budgets.values()),
        )
        stop = safety(step.state, facts, self.rules)
        at = step.line.received_at
        if stop is None or (step.upcoming is not None and step.upcoming.at == at):
            return
        self.unstopped = True
        self.found.add("stop", at, self.entry, "nothing", described((stop,)), stop.reason.sentence)

    def _leave_out(self, state: RolloutState | None) -> None:
        if state is not None and state.excluded_segments != self.excluded[-1]:
            self.excluded.append(state.excluded_segments)
            self.recount.leave_out(state.excluded_segments)

    def _look(self, step: Looked) -> None:
        look, entry = step.look, step.entry
        self._leave_out(look.state)
        self.looks += 1
        self.decisions += len(look.decided)
        for what, recorded, counted in self._other_facts(look):
            self.found.add("facts", entry.at, entry.seq, f"{what} {recorded}", f"{what} {counted}")
        if self.rules is None:
            self.found.add("journal", entry.at, entry.seq, "", f"Entry {entry.seq} decided before files were bound.")
            return
        would = decide(look.state, look.facts, self.rules, entry.at).decisions
        would = tuple(each for each in would if getattr(each, "wave", None) not in look.withheld)
        if not same(look.decided, would):
            recorded, again = described(look.decided), described(would)
            why = "" if recorded != again else _sentences(look.decided, would)
            self.found.add("decision", entry.at, entry.seq, recorded, again, why)

    def _other_facts(self, look: Look) -> list[tuple[str, str, str]]:
        """What of the facts is not what the log says; told once, for it stays so at each later look."""
        found: list[tuple[str, str, str]] = []
        facts = look.facts
        for seen in facts.monitors:
            mine = self.recount.monitors.get(seen.monitor)
            if mine is None or seen.accepted:
                continue
            again = mine.facts(facts.waves, self.recount.opened)
            if seen.crossed_at in mine.crossings:
                again = replace(again, crossed_at=seen.crossed_at)
            if _told(again) != _told(seen):
                found.append((f"monitor {seen.monitor}:", _monitor(seen), _monitor(again)))
        for budget in facts.budgets:
            counted = self.recount.budgets.get(budget.name)
            if counted is not None and counted != budget:
                found.append((f"budget {budget.name}:", f"{budget.bad} bad", f"{counted.bad} bad"))
        for wave, again_wave in zip(facts.waves, self.recount.waves(facts.waves), strict=True):
            for piece, other in zip(wave.slices, again_wave.slices, strict=True):
                if self._left_out_of(wave.wave, piece):
                    continue
                for what, seen_bad, counted_bad in (
                    (f"slice {piece.number} of {wave.wave}:", piece.bad, other.bad),
                    (f"slice {piece.number} of {wave.wave}, unhealthy before:", piece.apart.bad, other.apart.bad),
                ):
                    if dict(seen_bad) != dict(counted_bad):
                        found.append((what, f"{sum(seen_bad.values())} bad", f"{sum(counted_bad.values())} bad"))
        fresh = [each for each in found if self.told.get(each[0]) is None]
        self.told |= {each[0]: True for each in fresh}
        return fresh

    def _left_out_of(self, wave: str, piece: SliceFacts) -> bool:
        """Whether the tallies are those of the rest. The outbox brings them up to date after a segment is excluded, so
        they may still be those of an exclusion before."""
        return any(self.recount.bad_left_in(wave, piece.number, out) == dict(piece.bad) for out in self.excluded[1:])


def same(recorded: Sequence[Decision], again: Sequence[Decision]) -> bool:
    """Equal, but that the record of a halt may say more of what its bad devices have in common."""
    return len(recorded) == len(again) and all(
        one == other
        or (
            isinstance(one, HaltRollout)
            and isinstance(other, HaltRollout)
            and one.reason.kind is other.reason.kind
            and one.reason.sentence.startswith(f"{other.reason.sentence} ")
        )
        for one, other in zip(recorded, again, strict=True)
    )


def _sentences(recorded: Sequence[Decision], again: Sequence[Decision]) -> str:
    """Where two lists of decisions read alike: the reasons that differ."""
    pairs = zip(recorded, again, strict=False)
    return " ".join(
        f"Recorded: {one.reason.sentence} Now: {other.reason.sentence}" for one, other in pairs if one != other
    )


def _told(facts: MonitorFacts) -> tuple[object, ...]:
    """What the log has to say of a monitor."""
    return facts.places, facts.bad, facts.next_limit, facts.crossed_at, facts.amber


def _monitor(facts: MonitorFacts) -> str:
    crossed = "" if facts.crossed_at is None else f", crossed by {facts.crossed_at[0]} within {facts.crossed_at[1]}"
    return f"{facts.bad} bad among {plural(facts.places, 'place')}{crossed}, next within {facts.next_limit}"
