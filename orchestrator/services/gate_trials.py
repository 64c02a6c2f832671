"""Asking gates for a try: the same question, put in the same way, and nothing is decided by the answer.

For whoever writes a policy and wants to know what its gates would say now. Answers for: whose gates, and what would
follow. Not for: asking before a wave opens (``gatekeeping``). Whoever asks is written down first, in the house's log.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from orchestrator.core.gates import Gate, GateAnswer
from orchestrator.core.gating import follows
from orchestrator.core.policy import Policy
from orchestrator.core.states import WaveStatus
from orchestrator.errors import InvalidInput, NotFound, TooMany
from orchestrator.services.chronicle import rules_of
from orchestrator.services.gatekeeping import Question, Said, SourceKind, Sources, answers, check_sources
from orchestrator.services.house_log import HouseLog
from orchestrator.services.queries import row_of
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Store

NO_ROLLOUT: Final = "dry-run"
"""What stands for rollout, wave and tag where there is none: they are told to whoever is asked."""

MOST_AT_ONCE: Final = 4
"""Tries under way, of different people; each may take a minute."""

AGAIN_AFTER: Final = 10.0
"""Seconds until whoever is one too many comes again."""

_NOT_OPEN: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING})


@dataclass(frozen=True, slots=True)
class TriedGate:
    """One gate. ``asked``: what, without addresses, programs and tokens; ``seconds``: how long the answer took;
    ``follows``: what the policy would make of it."""

    gate: str
    source: str
    kind: SourceKind
    asked: str
    answer: GateAnswer
    because: str
    seconds: float
    follows: str


@dataclass(frozen=True, slots=True)
class GateTrial:
    """What was asked, for which wave, and what it would come to. ``rollout`` is None where it was asked for none."""

    rollout: str | None
    wave: str
    target: int
    tag: str
    gates: tuple[TriedGate, ...]
    follows: str


@dataclass(slots=True)
class GateTrials:
    """``running`` reads a clock that only goes forward, in seconds."""

    store: Store
    sources: Sources
    running: Callable[[], float]
    log: HouseLog
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _asking: set[str] = field(default_factory=set)

    def ask(
        self,
        policy: Policy | None = None,
        *,
        by: str,
        rollout: str | None = None,
        wave: str | None = None,
        only: Sequence[str] = (),
    ) -> GateTrial:
        """Ask the gates of ``policy``, or without one those that this rollout is bound to for the wave; ``only``:
        these. Without ``wave`` it is the rollout's first that has gates and is not open yet, or else the first that has
        gates.

        Raises NotFound for a rollout, wave, gate or source that is not there, InvalidInput where there is nothing to
        ask, TooMany for a second try of the same person and for one more than ``MOST_AT_ONCE``."""
        row = None if rollout is None else self._row(rollout)
        if row is None and wave is not None:
            raise InvalidInput("A wave is one of a rollout.", remedy="Say which with --rollout.")
        if row is None and policy is None:
            raise InvalidInput("Whose gates?", remedy="Name a policy, or a rollout with --rollout.")
        name = NO_ROLLOUT if row is None else _wave(row, wave, of_policy=policy is not None)
        gates = (policy.gates or ()) if policy is not None else () if row is None else rules_of(row).wave(name).gates
        chosen = _chosen(gates, only, f"policy {policy.name}" if policy is not None else f"wave {name} of {rollout}")
        kinds = self.sources.kinds()
        check_sources(chosen, lambda: kinds)
        questions = [
            Question(gate, NO_ROLLOUT, name, 0, NO_ROLLOUT)
            if row is None
            else Question(gate, row.state.rollout, name, row.target_version, row.tag)
            for gate in chosen
        ]
        about = [] if policy is None else [f"of the policy {policy.name}"]
        about += [] if row is None else [f"as of wave {name} of {row.state.rollout}"]
        what = row.state.rollout if row is not None else "" if policy is None else policy.name
        deed = f"asked for a try, {' '.join(about)}: {', '.join(each.gate for each in chosen)}"
        with self._turn(by):
            self.log.note("gates_tried", what, deed, by=by)
            timed = _Timed(self.sources, self.running)
            said = answers(timed, questions)
        tried = tuple(
            TriedGate(
                gate=question.gate.gate,
                source=question.gate.asks,
                kind=kinds[question.gate.asks],
                asked=_asked(question, kinds[question.gate.asks]),
                answer=one.answer,
                because=one.because,
                seconds=round(timed.took[question.gate.gate], 3),
                follows=follows(question.gate, one.answer),
            )
            for question, one in zip(questions, said, strict=True)
        )
        first, whole = questions[0], len(chosen) == len(gates)
        asked_for = None if row is None else row.state.rollout
        return GateTrial(asked_for, first.wave, first.target, first.tag, tried, _outcome(tried, whole=whole))

    @contextmanager
    def _turn(self, by: str) -> Iterator[None]:
        """Raises TooMany."""
        with self._guard:
            if by in self._asking or len(self._asking) >= MOST_AT_ONCE:
                who = f"{by} is" if by in self._asking else f"{MOST_AT_ONCE} people are"
                remedy = "Come back in a moment."
                raise TooMany(f"{who} asking gates for a try already.", after=AGAIN_AFTER, remedy=remedy)
            self._asking.add(by)
        try:
            yield
        finally:
            with self._guard:
                self._asking.discard(by)

    def _row(self, name: str) -> RolloutRow:
        with self.store.reading() as r:
            return row_of(r, name)


class _Timed:
    """Sources, and how long each took to answer."""

    def __init__(self, sources: Sources, running: Callable[[], float]) -> None:
        self._sources, self._running = sources, running
        self.took: dict[str, float] = {}

    def kinds(self) -> Mapping[str, SourceKind]:
        return self._sources.kinds()

    def ask(self, question: Question) -> Said:
        began = self._running()
        try:
            return self._sources.ask(question)
        finally:
            self.took[question.gate.gate] = self._running() - began


def _wave(row: RolloutRow, wanted: str | None, *, of_policy: bool) -> str:
    """Raises NotFound, and InvalidInput where no wave of it has gates."""
    names = [each.wave for each in row.state.waves]
    if wanted is not None:
        if wanted not in names:
            raise NotFound(f"{row.state.rollout} has no wave {wanted[:128]}.", remedy=f"It has {', '.join(names)}.")
        return wanted
    rules = rules_of(row)
    fitting = [each for each in row.state.waves if of_policy or rules.wave(each.wave).gates]
    if not fitting:
        raise InvalidInput(f"No wave of {row.state.rollout} has gates.", remedy="Name a policy that has some.")
    return next((each.wave for each in fitting if each.status in _NOT_OPEN), fitting[0].wave)


def _chosen(gates: Sequence[Gate], only: Sequence[str], whose: str) -> list[Gate]:
    """Raises InvalidInput where there are none, NotFound for a name that is none of them."""
    if not gates:
        raise InvalidInput(f"The {whose} has no gates.", remedy="Its file would name them under `gates`.")
    names = [each.gate for each in gates]
    if missing := next((name for name in only if name not in names), None):
        raise NotFound(f"The {whose} has no gate {missing[:128]}.", remedy=f"It has {', '.join(names)}.")
    return [each for each in gates if not only or each.gate in only]


def _asked(question: Question, kind: SourceKind) -> str:
    gate = question.gate
    match kind:
        case SourceKind.PROMQL:
            return f"whether {gate.query} is {gate.bounds}"
        case SourceKind.WEBHOOK:
            return f"POST {json.dumps(dict(question.told))}"
        case SourceKind.COMMAND:
            return " ".join(f"WAVE_{name.upper()}={value}" for name, value in question.told.items())


def _outcome(tried: Sequence[TriedGate], *, whole: bool) -> str:
    said = [each.answer for each in tried]
    if GateAnswer.NO in said:
        return "The wave would hold."
    if any(answer is not GateAnswer.YES for answer in said):
        return "The wave would wait for its gates."
    return "Its gates would let the wave open." if whole else "The gates that were asked would let the wave open."
