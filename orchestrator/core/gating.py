"""Whether a wave's gates let it open: pure, from what they said and when.

* All gates of a wave are asked together, when nothing else keeps it shut, and it opens when all say yes at once.
* A *no* holds the wave at once. *Not yet*, and no data, are asked again after ``every``; after ``at_most`` the wave
  holds, or opens without that gate's yes where the policy says so. So what cannot be read never opens a wave by itself.
* An answer counts for its own question, for ``GOOD_FOR`` (twice ``every`` where that is longer), and not once a person
  has resumed the wave since: then everything is asked anew, with all its time.
* Whoever was to ask and died is asked again after ``PATIENCE`` beyond the longest timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.decisions import AskGates, HoldWave
from orchestrator.core.durations import duration_text
from orchestrator.core.facts import WaveFacts, WaveState
from orchestrator.core.gates import AtTheEnd, Gate, GateAnswer, GateFacts
from orchestrator.core.look import Look
from orchestrator.core.states import Reason, ReasonKind

GOOD_FOR: Final = timedelta(minutes=10)
PATIENCE: Final = timedelta(seconds=30)

_SAYS: Final = {
    GateAnswer.YES: "says yes",
    GateAnswer.NO: "says no",
    GateAnswer.NOT_YET: "says not yet",
    GateAnswer.NO_DATA: "gives no answer",
}


def good_for(gate: Gate) -> timedelta:
    """How long its answers count."""
    return max(GOOD_FOR, 2 * gate.every)


def shut(wave: WaveState, gates: Sequence[Gate], facts: WaveFacts, look: Look) -> bool:
    """Whether its gates keep the wave shut; then it has said why."""
    known = {each.gate: each for each in facts.gates}
    found = {gate.gate: each for gate in gates if (each := _counts(known.get(gate.gate), gate, wave, look.now))}
    if no := [each for each in found.values() if each.answer is GateAnswer.NO]:
        _hold(wave, ReasonKind.GATE_NO, f"{_said(no)} `wave resume` asks again.", look)
        return True
    open_ends = [gate for gate in gates if _without(gate, found.get(gate.gate), wave, look.now)]
    waiting = [gate for gate in gates if gate not in open_ends and not _is_yes(found.get(gate.gate))]
    over = [found[gate.gate] for gate in waiting if gate.gate in found and _ends(gate, found, wave) <= look.now]
    if over:
        _hold(
            wave, ReasonKind.GATE_LATE, f"{_said(over)} Its time is over: `wave resume` asks for as long again.", look
        )
        return True
    if not waiting:
        return False
    _ask(wave, gates, facts.gates, waiting, found, look)
    asked = [found[gate.gate] for gate in waiting if gate.gate in found]
    unasked = [gate.gate for gate in waiting if gate.gate not in found]
    sentence = " ".join(filter(None, (_said(asked), f"Asked: {', '.join(unasked)}." if unasked else "")))
    until = min((_ends(gate, found, wave) for gate in waiting if gate.gate in found), default=None)
    look.wait(wave.wave, ReasonKind.GATE, f"It waits for its gates. {sentence}", until)
    return True


def follows(gate: Gate, answer: GateAnswer) -> str:
    """What one answer leads to, if it is the first; so ``shut`` has it."""
    if answer is GateAnswer.YES:
        return f"It counts for {duration_text(good_for(gate))}."
    if answer is GateAnswer.NO:
        return "The wave holds, for a person."
    end = "the wave holds" if gate.otherwise is AtTheEnd.HOLD else "the wave opens without it"
    again = f"It is asked again after {duration_text(gate.every)};"
    return f"{again} without a yes within {duration_text(gate.at_most)} {end}."


def gates_sentence(gates: Sequence[Gate], facts: WaveFacts) -> str:
    """What the gates said of a wave that opens; empty where it has none."""
    known = {each.gate: each for each in facts.gates}
    answers = [known[gate.gate] for gate in gates if gate.gate in known]
    late = [gate for gate in gates if gate.gate in known and not _is_yes(known[gate.gate])]
    without = f" It opens without that after {', '.join(duration_text(gate.at_most) for gate in late)}." if late else ""
    return f" {_said(answers)}{without}" if answers else ""


def _ask(
    wave: WaveState,
    gates: Sequence[Gate],
    answers: Sequence[GateFacts],
    waiting: Sequence[Gate],
    found: dict[str, GateFacts],
    look: Look,
) -> None:
    """Ask for answers when it is time, unless they were asked for and are under way."""
    asked = wave.gates_asked_at
    if asked is not None and (wave.granted_at is None or asked >= wave.granted_at):
        ends = asked + max(gate.timeout for gate in gates) + PATIENCE
        answered = any(each.got_at > asked for each in answers)
        if not answered and look.now < ends:
            look.wake(ends)
            return
    times = [found[gate.gate].got_at + gate.every for gate in waiting if gate.gate in found]
    # another's yes may end before this one is due, and then all are asked
    ends_of_yes = [found[gate.gate].got_at + good_for(gate) for gate in gates if gate.gate in found]
    due = look.now if len(times) < len(waiting) else min(times + ends_of_yes)
    if look.now < due:
        look.wake(due)
        return
    sentence = f"Nothing else keeps it shut: {', '.join(gate.gate for gate in gates)} is asked."
    look.decisions.append(AskGates(wave.wave, Reason(ReasonKind.GATE, sentence)))


def _counts(answer: GateFacts | None, gate: Gate, wave: WaveState, now: datetime) -> GateFacts | None:
    if answer is None or answer.question != gate.question or answer.got_at + good_for(gate) <= now:
        return None
    return None if wave.granted_at is not None and answer.got_at < wave.granted_at else answer


def _is_yes(answer: GateFacts | None) -> bool:
    return answer is not None and answer.answer is GateAnswer.YES


def _without(gate: Gate, answer: GateFacts | None, wave: WaveState, now: datetime) -> bool:
    """Whether the wave may open although this one has not said yes."""
    if answer is None or _is_yes(answer) or gate.otherwise is not AtTheEnd.OPEN:
        return False
    return _ends(gate, {gate.gate: answer}, wave) <= now


def _ends(gate: Gate, found: dict[str, GateFacts], wave: WaveState) -> datetime:
    since = found[gate.gate].since
    return (since if wave.granted_at is None else max(since, wave.granted_at)) + gate.at_most


def _said(answers: Sequence[GateFacts]) -> str:
    each = [f"{one.gate} {_SAYS[one.answer]}{f' ({one.because})' if one.because else ''}" for one in answers]
    return f"Gate {', '.join(each)}." if each else ""


def _hold(wave: WaveState, kind: ReasonKind, sentence: str, look: Look) -> None:
    look.decisions.append(HoldWave(wave.wave, Reason(kind, sentence)))
