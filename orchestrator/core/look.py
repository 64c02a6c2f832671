"""One pass of a decision: what was given, and what has been found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.approvals import nothing_opens
from orchestrator.core.decisions import Decision, Plan, Waiting
from orchestrator.core.facts import Facts, MonitorFacts, RolloutState, WaveFacts, WaveState
from orchestrator.core.rules import Rules
from orchestrator.core.states import Reason, ReasonKind


@dataclass(slots=True)
class Look:
    """``wake_at``: the earliest moment at which the same facts would say otherwise, as far as was seen. ``shut``: why
    nothing opens at all."""

    state: RolloutState
    facts: Facts
    rules: Rules
    now: datetime
    amber: tuple[MonitorFacts, ...]
    decisions: list[Decision] = field(default_factory=list)
    reasons: list[Waiting] = field(default_factory=list)
    wake_at: datetime | None = None
    silence_is_amber: bool = False
    waves: dict[str, WaveFacts] = field(init=False)
    shut: Reason | None = field(init=False)

    def __post_init__(self) -> None:
        self.shut = nothing_opens(self.state, self.facts, self.rules)
        self.waves = {wave.wave: wave for wave in self.facts.waves}

    def wake(self, at: datetime) -> None:
        if at > self.now and (self.wake_at is None or at < self.wake_at):
            self.wake_at = at

    def of(self, wave: WaveState) -> WaveFacts:
        return self.waves.get(wave.wave) or WaveFacts(wave.wave)

    def wait(self, wave: str | None, kind: ReasonKind, sentence: str, until: datetime | None = None) -> None:
        self.reasons.append(Waiting(wave, Reason(kind, sentence), until))
        if until is not None:
            self.wake(until)

    def plan(self) -> Plan:
        return Plan(tuple(self.decisions), tuple(self.reasons), self.wake_at)
