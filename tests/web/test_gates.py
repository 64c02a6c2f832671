"""Gates on a rollout's page: an answer stands there only while it counts for the question that the policy asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.facts import WaveFacts, WaveState
from orchestrator.core.gates import Gate, GateAnswer, GateFacts
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import Reason, ReasonKind, Standing, WaveStatus
from orchestrator.services.views import WaveView
from orchestrator.web.console.gates import gate_rows
from tests.web.installation import NOON

GATE = Gate.model_validate({"gate": "errors", "asks": "prometheus", "query": "errors", "below": 5, "otherwise": "open"})
RULES = Rules((WaveRules("half", gates=(GATE,)),))
STATE = WaveState("half", WaveStatus.PENDING, Standing(Reason(ReasonKind.APPLIED, "Applied."), NOON, "mika"))


def _view(*said: GateFacts, state: WaveState = STATE) -> WaveView:
    return WaveView(state, WaveFacts("half", gates=said), ("pilots",), (), ())


def _said(answer: GateAnswer) -> GateFacts:
    return GateFacts("errors", GATE.question, answer, "3 is below 5", NOON, NOON)


@pytest.mark.parametrize(
    ("answer", "word", "stands"),
    [
        (GateAnswer.YES, "yes", False),
        (GateAnswer.NO, "no", True),
        (GateAnswer.NOT_YET, "not yet", True),
        (GateAnswer.NO_DATA, "no data", True),
    ],
)
def test_each_answer_has_its_word_and_only_a_yes_lets_open(answer: GateAnswer, word: str, stands: bool) -> None:
    (row,) = gate_rows([_view(_said(answer))], RULES)
    assert (row.wave, row.gate, row.answer, row.stands) == ("half", "errors", word, stands)
    assert row.question == "errors is below 5" and row.because == "3 is below 5" and row.got_at == NOON
    assert row.then == "asked every 1 min; without a yes after 2 h the wave opens without it"


def test_an_answer_to_another_question_or_from_before_a_resume_is_none() -> None:
    other = replace(_said(GateAnswer.YES), question="another")
    resumed = replace(STATE, granted_at=NOON + timedelta(seconds=1))
    for view in (_view(), _view(other), _view(_said(GateAnswer.YES), state=resumed)):
        (row,) = gate_rows([view], RULES)
        assert (row.answer, row.got_at, row.stands) == ("not asked yet", None, True)
    (row,) = gate_rows([_view(state=replace(STATE, status=WaveStatus.PASSED))], RULES)
    assert (row.answer, row.stands) == ("not asked", False)


def test_what_is_no_query_is_named_by_its_source_alone() -> None:
    gate = Gate.model_validate({"gate": "tickets", "asks": "desk"})
    (row,) = gate_rows([_view()], Rules((WaveRules("half", gates=(gate,)),)))
    assert (row.asks, row.question) == ("desk", "")
    assert row.then.endswith("the wave holds")
