"""``wave replay --policy OTHER``: what another policy would have decided and when, on what really happened.

Its monitors and budgets are shared out for the fleet as it was at the start and counted from the evidence log; its
rules are asked at each look that decided, with the record of then, and after each bad outcome in between. Devices are
taken as they were admitted: from the first divergence on the fleet would have gone another way. Segments are watched
where the record watched them, and left out when the record or this policy excludes them. Once it would have stopped the
rollout it decides nothing more, until a person's order of the record lets it go on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, assert_never

from orchestrator.core.decide import decide
from orchestrator.core.decisions import Decision, ExcludeSegment, HaltRollout, HoldRollout
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW, MonitorSpec, allot_segments, clock_alpha
from orchestrator.core.evidence.clock import ClockFacts
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.evidence.recounting import CountedMonitor, Recount
from orchestrator.core.facts import Excluded, Facts, RolloutState, WaveFacts
from orchestrator.core.journal import Entry
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import Rules, bind
from orchestrator.core.safety import safety
from orchestrator.core.slices import ROLLOUT, dimension_of, wave_population
from orchestrator.core.states import POLICY, Standing
from orchestrator.core.wave_policy import wave_policy_problems
from orchestrator.errors import InvalidInput
from orchestrator.services.accepting import places_given
from orchestrator.services.recorded import Watching
from orchestrator.services.replay_steps import Began, Bound, Broken, Counted, Looked, Ordered, Seen, Steps
from orchestrator.services.replayed import Diverging, Replayed, Stop, described, may_stop
from orchestrator.services.starting import budgets_of, monitors_of

_ENDS: Final = frozenset({"completed", "cancelled"})
"""Orders that end whatever stopped a rollout."""


@dataclass(slots=True)
class Counterfactual:
    """The same story under other rules."""

    name: str
    steps: Steps
    policy: Policy
    recount: Recount
    found: Diverging = field(init=False)
    spec: RolloutFile | None = None
    rules: Rules | None = None
    dark: Darkness | None = None
    devices: int = 0
    waves: tuple[WaveFacts, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    decisions: int = 0
    bad: int = 0
    entry: int = 0
    standing: Stop | None = None
    stopped: Stop | None = None
    would_stop: Stop | None = None
    excluded: tuple[Excluded, ...] = ()

    def __post_init__(self) -> None:
        self.found = Diverging(self.steps)

    def run(self) -> Replayed:
        for step in self.steps:
            match step:
                case Seen():
                    self.waves = step.waves
                case Bound():
                    self._bind(step.spec)
                case Began():
                    self._watch(step.entry, step.watching, step.dark)
                case Counted():
                    self._count(step)
                case Looked():
                    self._look(step)
                    self.entry = step.entry.seq
                case Ordered():
                    self._order(step)
                    self.entry = step.entry.seq
                case Broken():
                    self.found.add(step.what, step.at, step.seq, "", step.sentence)
                case _:
                    assert_never(step)
        return Replayed(
            rollout=self.name,
            policy=self.policy.name,
            entries=self.steps.entries,
            looks=self.looks,
            decisions=self.decisions,
            outcomes=self.steps.outcomes,
            differs=self.found.many,
            divergences=tuple(self.found.kept),
            stopped=self.stopped,
            would_stop=self.would_stop,
        )

    def _bind(self, spec: RolloutFile) -> None:
        for index, wave in enumerate(spec.waves):
            if wave.override is None:
                continue
            for problem in wave_policy_problems(self.policy, wave.override, ("waves", index)):
                sentence = f"Wave {wave.name} of {self.name} does not fit policy {self.policy.name}:"
                raise InvalidInput(f"{sentence} {problem.sentence}")
        self.spec, self.rules = spec, bind(spec, self.policy, self.dark)

    def _watch(self, entry: Entry, watching: Watching, dark: Darkness | None) -> None:
        """What the record begins to count, this policy shares out by its own rules; what crossed or was reached before
        a person accepted it begins anew. What it tolerates of silence is on top of the darkness that was learnt
        then."""
        self.devices = watching.devices
        if dark is not None and self.spec is not None:
            self.dark = dark
            self.rules = bind(self.spec, self.policy, dark)
        if watching.sizes is not None:
            self.sizes = dict(watching.sizes)
        if self.spec is None:
            return
        if not self.recount.monitors:
            specs = monitors_of(self.spec, self.policy, self.sizes, self.devices, self.dark)
            specs += self._segments(watching)
            limits = budgets_of(self.policy, self.devices, self.dark)
            self.recount.watch([CountedMonitor(spec) for spec in specs], limits)
        elif entry.facts.get("accepted"):
            given = places_given(Facts(self.devices, self.waves))
            monitors = [
                CountedMonitor(each.spec, given.get(wave_population(each.spec.wave) if each.spec.wave else ROLLOUT, 0))
                if each.crossed_at is not None and each.spec.segment is None
                else each
                for each in self.recount.monitors.values()
            ]
            budgets = [replace(each, base=each.bad) if each.reached else each for each in self.recount.budgets.values()]
            self.recount.watch(monitors, budgets)

    def _segments(self, watching: Watching) -> tuple[MonitorSpec, ...]:
        """Of the segments that the record watched from the start: how many devices the others had, it does not say."""
        sizes: dict[str, dict[str, int]] = {}
        for each in watching.monitors:
            if (segment := each.spec.segment) is not None and dimension_of(segment) in self.policy.segments:
                sizes.setdefault(dimension_of(segment), {})[segment] = each.spec.devices
        return allot_segments(
            tolerate=self.policy.tolerances_over(self.dark, segment=True),
            false_exclude=self.policy.false_exclude,
            sizes=sizes,
            devices=self.devices,
        )

    def _judged(self, state: RolloutState) -> RolloutState:
        """The record of then, without the segments that this policy would have excluded by then."""
        fresh = tuple(each for each in self.excluded if each.segment not in state.excluded_segments)
        judged = replace(state, excluded=(*state.excluded, *fresh))
        self.recount.leave_out(judged.excluded_segments)
        return judged

    def _facts(self, facts: Facts) -> Facts:
        """The facts of then, with this policy's monitors, budgets and classes."""
        return replace(
            facts,
            waves=in_classes(facts.waves, self.policy.tolerances),
            monitors=self.recount.facts(facts.waves),
            budgets=tuple(self.recount.budgets.values()),
            clock=self._clock(facts.clock),
        )

    def _clock(self, clock: ClockFacts | None) -> ClockFacts | None:
        """What the clock of then had seen, as this policy takes it."""
        silent = self.policy.tolerate.silence(learnt=True)
        alpha = clock_alpha(false_halt=self.policy.false_halt, devices=self.devices)
        if clock is None or silent.then is Answer.COUNT or not alpha:
            return None
        found = clock.under(tolerance=silent.at_most, alpha=alpha, answer=silent.then)
        return found if "hardware_id" in self.policy.segments else replace(found, boards=())

    def _count(self, step: Counted) -> None:
        self.bad += not step.line.apart
        if step.state is not None:
            self._judged(step.state)
        if not self.recount.count(step.line) or step.state is None or self.rules is None:
            return
        at = step.line.received_at
        if step.upcoming is not None and step.upcoming.at == at:
            return
        while self.standing is None and may_stop(self.recount, self.devices < SMALL_FLEET_BELOW):
            facts = self._facts(Facts(self.devices, self.recount.waves(self.waves)))
            stop = safety(self._judged(step.state), facts, self.rules)
            if stop is None:
                return
            self.found.add("stop", at, self.entry, "nothing", described((stop,)), stop.reason.sentence)
            self._would(stop, at)

    def _look(self, step: Looked) -> None:
        look, at, seq = step.look, step.entry.at, step.entry.seq
        state = self._judged(look.state)
        self.looks += 1
        self.decisions += len(look.decided)
        if self.stopped is None and (stop := _stop_in(look.decided)) is not None:
            self.stopped = Stop(at, self.steps.evidence, self.bad, stop.reason.sentence)
        if self.rules is None:
            return
        if self.standing is not None:
            why = f"It was stopped before: {self.standing.sentence}"
            if described(look.decided) != "nothing" and _stop_in(look.decided) is None:
                self.found.add("decision", at, seq, described(look.decided), "nothing", why)
            return
        plan = decide(state, self._facts(look.facts), self.rules, at)
        would = tuple(each for each in plan.decisions if getattr(each, "wave", None) not in look.withheld)
        would_stop = _stop_in(would)
        for each in would:
            self._would(each, at)
        recorded, other = described(look.decided), described(would)
        if recorded != other:
            about = {getattr(each, "wave", None) for each in look.decided}
            waits = [each.reason.sentence for each in plan.reasons if each.wave in about]
            said = [] if would_stop is None else [would_stop.reason.sentence]
            self.found.add("decision", at, seq, recorded, other, " ".join(said or waits))

    def _order(self, step: Ordered) -> None:
        """A person who accepted what stopped the record, or ended it, ends this stop too."""
        if step.entry.facts.get("accepted") or step.entry.event in _ENDS:
            self.standing = None

    def _would(self, decision: Decision, at: datetime) -> None:
        """It would have been stopped, or gone on without a segment, from this moment on."""
        match decision:
            case HaltRollout() | HoldRollout():
                self.standing = Stop(at, self.steps.evidence, self.bad, decision.reason.sentence)
                self.would_stop = self.would_stop or self.standing
            case ExcludeSegment():
                standing = Standing(decision.reason, at, POLICY)
                self.excluded = (*self.excluded, Excluded(decision.segment, standing, decision.devices))
            case _:
                pass


def in_classes(waves: Sequence[WaveFacts], classes: Collection[Outcome]) -> tuple[WaveFacts, ...]:
    """The waves with what is none of these classes counted as failed."""

    def folded(bad: Mapping[Outcome, int]) -> dict[Outcome, int]:
        found: dict[Outcome, int] = {}
        for outcome, many in bad.items():
            into = outcome if outcome in classes else OutcomeClass.FAILED.value
            found[into] = found.get(into, 0) + many
        return found

    return tuple(
        replace(wave, slices=tuple(replace(piece, bad=folded(piece.bad)) for piece in wave.slices)) for wave in waves
    )


def _stop_in(decisions: Sequence[Decision]) -> HaltRollout | HoldRollout | None:
    return next((each for each in decisions if isinstance(each, HaltRollout | HoldRollout)), None)
