"""The gates of a rollout's waves, as its page shows them: what is asked, what was said last, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.core.gates import AtTheEnd, Gate, GateAnswer, GateFacts
from orchestrator.core.rules import Rules
from orchestrator.core.states import WaveStatus
from orchestrator.core.words import span
from orchestrator.services.views import WaveView

_CLOSED: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING})

_WORDS: Final = {
    GateAnswer.YES: "yes",
    GateAnswer.NO: "no",
    GateAnswer.NOT_YET: "not yet",
    GateAnswer.NO_DATA: "no data",
}


@dataclass(frozen=True, slots=True)
class GateRow:
    """One gate before one wave. ``answer``: its word, or that it was not asked; ``kind``: the same as a class of the
    page; ``stands``: it keeps the wave shut as far as is known."""

    wave: str
    gate: str
    asks: str
    question: str
    answer: str
    kind: str
    because: str
    got_at: datetime | None
    then: str
    stands: bool


def gate_rows(waves: Sequence[WaveView], rules: Rules) -> tuple[GateRow, ...]:
    """In file order of the waves."""
    return tuple(_row(wave, gate) for wave in waves for gate in rules.wave(wave.state.wave).gates)


def _row(wave: WaveView, gate: Gate) -> GateRow:
    said = next((each for each in wave.facts.gates if _answers(each, gate, wave)), None)
    closed = wave.state.status in _CLOSED
    word = "not asked yet" if closed else "not asked"
    if said is not None:
        word = _WORDS[said.answer]
    return GateRow(
        wave=wave.state.wave,
        gate=gate.gate,
        asks=gate.asks,
        question=f"{gate.query} is {gate.bounds}" if gate.query else "",
        answer=word,
        kind="unasked" if said is None else said.answer.value,
        because="" if said is None else said.because,
        got_at=None if said is None else said.got_at,
        then=_then(gate),
        stands=closed and (said is None or said.answer is not GateAnswer.YES),
    )


def _answers(said: GateFacts, gate: Gate, wave: WaveView) -> bool:
    """What was said to another question, or before a person resumed the wave, is no answer (``core.gating``)."""
    granted = wave.state.granted_at
    return said.gate == gate.gate and said.question == gate.question and (granted is None or said.got_at >= granted)


def _then(gate: Gate) -> str:
    end = "the wave holds" if gate.otherwise is AtTheEnd.HOLD else "the wave opens without it"
    return f"asked every {span(gate.every)}; without a yes after {span(gate.at_most)} {end}"
