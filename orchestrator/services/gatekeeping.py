"""Asking a wave's gates: outside every transaction, beside the ticker, with a time for each, the answers written down.

Whoever decides only asks for it (``AskGates``), and reads the answers as facts. An answer that differs from the one
before is an entry of the journal. What is asked is idempotent: a process that dies on the way has written nothing, and
the gates are asked again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from orchestrator.core.gates import LONGEST_REASON, Gate, GateAnswer, GateFacts
from orchestrator.core.gating import good_for
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import POLICY, WaveStatus
from orchestrator.core.wave_policy import policy_for
from orchestrator.errors import InvalidInput, NotFound, WaveError
from orchestrator.services import tracing
from orchestrator.services.chronicle import order, rules_of
from orchestrator.services.locking import again, locked_by_key
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Store, Writing
from orchestrator.services.tracing import Side

LOG = logging.getLogger(__name__)

ANSWERED: Final = "gate_answered"
"""The journal's word for an answer that differs from the one before."""

MOST_AT_ONCE: Final = 4
"""Waves whose gates are asked at once; the others wait for their turn."""


class SourceKind(StrEnum):
    PROMQL = "promql"
    WEBHOOK = "webhook"
    COMMAND = "command"


class Question(NamedTuple):
    """What is asked, of which wave."""

    gate: Gate
    rollout: str
    wave: str
    target: int
    tag: str

    @property
    def told(self) -> Mapping[str, str | int]:
        """What a webhook or a command learns of it."""
        about = {"gate": self.gate.gate, "rollout": self.rollout, "wave": self.wave}
        return {**about, "target": self.target, "tag": self.tag}


class Said(NamedTuple):
    answer: GateAnswer
    because: str


class Sources(Protocol):
    """What an installation may ask, by name. Thread-safe."""

    def kinds(self) -> Mapping[str, SourceKind]:
        """Raises InvalidInput, InvalidFile for sources that cannot be read."""

    def ask(self, question: Question) -> Said:
        """Within the gate's timeout. Never raises for what goes wrong outside: that is no data, with the reason. No
        secret is in what it says."""


def in_a_thread(work: Callable[[], None]) -> None:
    """Ended with the process: nothing waits for an answer that is on its way when the server stops. What it writes into
    the log belongs to the tick that asked."""
    threading.Thread(target=copy_context().run, args=(work,), name="gates", daemon=True).start()


@dataclass(slots=True)
class Gatekeeper:
    """``later`` runs work soon, elsewhere; ``poke`` wakes the ticker."""

    store: Store
    sources: Sources
    clock: Callable[[], datetime]
    poke: Callable[[], None] = lambda: None
    later: Callable[[Callable[[], None]], None] = in_a_thread
    _asking: set[tuple[int, str]] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MOST_AT_ONCE))

    def ask(self, row: RolloutRow, wave: str) -> None:
        """Have the wave's gates asked, unless that is under way."""
        key = (row.key, wave)
        with self._guard:
            if key in self._asking:
                return
            self._asking.add(key)
        self.later(lambda: self._ask(row, wave))

    def _ask(self, row: RolloutRow, wave: str) -> None:
        try:
            with self._turns:
                gates = rules_of(row).wave(wave).gates
                said = answers(
                    self.sources,
                    [Question(gate, row.state.rollout, wave, row.target_version, row.tag) for gate in gates],
                )
                self._write(row.key, wave, gates, said)
        except WaveError as error:
            LOG.warning("what the gates of wave %s of %s say was not written: %s", wave, row.state.rollout, error)
        except Exception:
            LOG.exception("the gates of wave %s of %s could not be asked", wave, row.state.rollout)
        finally:
            with self._guard:
                self._asking.discard((row.key, wave))
            self.poke()

    @again
    def _write(self, key: int, wave: str, gates: Sequence[Gate], said: Sequence[Said]) -> None:
        with self.store.writing() as w:
            row = locked_by_key(w, key)
            standing = None if row is None else next((each for each in row.state.waves if each.wave == wave), None)
            if row is None or standing is None or standing.status is not WaveStatus.PREPARING:
                return  # nobody asks any more
            now = self.clock()
            before = {each.gate: each for each in w.gates(key).get(wave, ())}
            answers = [
                _facts(gate, one, before.get(gate.gate), standing.granted_at, now)
                for gate, one in zip(gates, said, strict=True)
            ]
            for facts in answers:
                row = _note(w, row, wave, facts, before.get(facts.gate), now)
            w.set_gates(key, wave, answers)


def answers(sources: Sources, questions: Sequence[Question]) -> list[Said]:
    """All at once: the slowest says how long it takes. Raises nothing for what goes wrong with one."""

    def one(question: Question) -> Said:
        gate, rollout, wave = question.gate, question.rollout, question.wave
        about = {"wave.gate": gate.gate, "wave.source": gate.asks, "wave.rollout": rollout, "wave.wave": wave}
        with tracing.span("gate", about, side=Side.ASKS) as span:
            try:
                said = sources.ask(question)
            except WaveError as error:
                said = Said(GateAnswer.NO_DATA, error.message)
            except Exception as error:
                LOG.exception("gate %s of wave %s of %s could not be asked", gate.gate, wave, rollout)
                said = Said(GateAnswer.NO_DATA, f"asking failed: {type(error).__name__}")
            span.note({"wave.answer": said.answer.value})
        return said._replace(because=plain(said.because))

    with ThreadPoolExecutor(max_workers=max(1, len(questions)), thread_name_prefix="gate") as pool:
        asked = [pool.submit(copy_context().run, one, question) for question in questions]
        return [each.result() for each in asked]


def _facts(gate: Gate, said: Said, before: GateFacts | None, granted_at: datetime | None, now: datetime) -> GateFacts:
    goes_on = (
        before is not None
        and before.question == gate.question
        and before.got_at + good_for(gate) > now
        and (granted_at is None or before.got_at >= granted_at)
    )
    since = before.since if before is not None and goes_on else now
    return GateFacts(gate.gate, gate.question, said.answer, said.because, now, since)


def _note(
    w: Writing, row: RolloutRow, wave: str, facts: GateFacts, before: GateFacts | None, now: datetime
) -> RolloutRow:
    """An entry of the journal, where the answer is another than before."""
    if before is not None and (before.answer, before.question) == (facts.answer, facts.question):
        return row
    sentence = f"Gate {facts.gate} of wave {wave} says {facts.answer.value.replace('_', ' ')}"
    sentence = f"{sentence}: {facts.because}." if facts.because else f"{sentence}."
    told = {"gate": {"gate": facts.gate, "answer": facts.answer.value, "question": facts.question}}
    return order(w, row, row.state, event=ANSWERED, by=POLICY, sentence=sentence, now=now, wave=wave, facts=told)


def plain(text: str) -> str:
    """What somebody outside said, in one short line."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


def gates_of(spec: RolloutFile, policy: Policy) -> list[Gate]:
    """Of the policy and of every wave that has its own."""
    return [
        *(policy.gates or ()),
        *(gate for wave in spec.waves for gate in policy_for(policy, wave.override).gates or ()),
    ]


def check_sources(gates: Collection[Gate], sources: Callable[[], Mapping[str, SourceKind]]) -> None:
    """Raises NotFound for a source that is not there, InvalidInput for a query to one that takes none, or the lack of
    one."""
    known = sources() if gates else {}
    for gate in gates:
        kind = known.get(gate.asks)
        if kind is None:
            raise NotFound(
                f"Gate {gate.gate} asks {gate.asks}, and no source is called so.",
                remedy=f"The installation's are {', '.join(sorted(known))}." if known else "The installation has none.",
            )
        if (kind is SourceKind.PROMQL) != (gate.query is not None):
            needs = "needs a query" if gate.query is None else "takes no query"
            raise InvalidInput(f"Gate {gate.gate} asks {gate.asks}, a {kind}, which {needs}.")
