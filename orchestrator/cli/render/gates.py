"""``wave gate ask``: what was asked for a try, what was said, and what would follow."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Paragraph
from orchestrator.core.gates import GateAnswer
from orchestrator.services.gate_trials import GateTrial, TriedGate

_STYLE = {GateAnswer.YES: "green", GateAnswer.NO: "red", GateAnswer.NOT_YET: "yellow", GateAnswer.NO_DATA: "yellow"}


def trial(tried: GateTrial) -> RenderableType:
    whose = "for no rollout" if tried.rollout is None else f"for wave {tried.wave} of {tried.rollout}"
    parts: list[RenderableType] = [Text(f"Asked for a try, {whose}; nothing is decided by it.")]
    for each in tried.gates:
        parts += [Text(), *_gate(each)]
    return Group(*parts, Text(), Text(tried.follows))


def _gate(each: TriedGate) -> Iterator[RenderableType]:
    answer = Text(each.answer.value.replace("_", " "), style=_STYLE[each.answer])
    because = f" ({each.because})" if each.because else ""
    yield Text.assemble((each.gate, "bold"), ": ", answer, f"{because}, after {each.seconds:.1f} s")
    yield Paragraph(f"{each.source} ({each.kind}) was asked: {each.asked}", indent=2, hang=2)
    yield Paragraph(each.follows, indent=2, hang=2)
