"""Gates, whatever they say and whenever: properties of ``shut``, and what may be written in a policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import transitions
from orchestrator.core.decisions import AskGates, HoldWave
from orchestrator.core.document import InvalidDocument
from orchestrator.core.facts import Facts, WaveFacts, WaveState
from orchestrator.core.gates import AtTheEnd, Gate, GateAnswer, GateFacts
from orchestrator.core.gating import good_for, shut
from orchestrator.core.look import Look
from orchestrator.core.policy import Policy
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import ReasonKind, WaveStatus
from tests.core.world import DAY_0, STARTED, fresh_state

YES, NO, NOT_YET, NO_DATA = GateAnswer
NOW = DAY_0 + timedelta(days=1)

gates = st.lists(
    st.builds(
        lambda name, every, at_most, otherwise: Gate.parse(
            {"gate": name, "asks": "desk", "every": f"{every}s", "at_most": f"{at_most}m", "otherwise": otherwise}
        ),
        st.sampled_from("abc"),
        st.integers(5, 3_600),
        st.integers(1, 300),
        st.sampled_from([each.value for each in AtTheEnd]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda gate: gate.gate,
)
ago = st.integers(0, 20_000).map(lambda seconds: NOW - timedelta(seconds=seconds))


@st.composite
def answered(draw: st.DrawFn) -> tuple[list[Gate], WaveFacts, WaveState]:
    written = draw(gates)
    found = []
    for gate in written:
        if draw(st.booleans()):
            got_at, since = sorted([draw(ago), draw(ago)], reverse=True)
            question = draw(st.sampled_from([gate.question, "another"]))
            found.append(GateFacts(gate.gate, question, draw(st.sampled_from(GateAnswer)), "", got_at, since))
    wave = WaveState(
        "all",
        WaveStatus.PREPARING,
        STARTED,
        granted_at=draw(st.none() | ago),
        gates_asked_at=draw(st.none() | ago),
    )
    return written, WaveFacts("all", gates=tuple(found)), wave


def looked(written: list[Gate], facts: WaveFacts, wave: WaveState, now: Any = NOW) -> tuple[bool, Look]:
    state = replace(fresh_state(["all"]), waves=(wave,))
    look = Look(state, Facts(10, (facts,)), Rules((WaveRules("all", gates=tuple(written)),)), now, ())
    return shut(wave, written, facts, look), look


@given(answered())
def test_it_opens_only_when_each_said_yes_lately_or_had_all_its_time(
    case: tuple[list[Gate], WaveFacts, WaveState],
) -> None:
    written, facts, wave = case
    closed, look = looked(*case)
    known = {each.gate: each for each in facts.gates}
    if not closed:
        for gate in written:
            said = known[gate.gate]
            assert said.question == gate.question
            assert said.got_at > NOW - good_for(gate)
            assert wave.granted_at is None or said.got_at >= wave.granted_at
            late = gate.otherwise is AtTheEnd.OPEN and said.since + gate.at_most <= NOW
            assert said.answer is YES or (late and said.answer is not NO)
        assert look.decisions == [] and look.reasons == []
    else:
        assert look.decisions or look.reasons, "it says why"


@given(answered())
def test_nothing_outside_opens_more_by_saying_less(case: tuple[list[Gate], WaveFacts, WaveState]) -> None:
    written, facts, wave = case
    closed, _ = looked(*case)
    for index, said in enumerate(facts.gates):
        for worse in (replace(said, answer=NO_DATA, since=NOW, got_at=NOW), replace(said, answer=NO, got_at=NOW)):
            if said.answer is YES:
                others = (*facts.gates[:index], worse, *facts.gates[index + 1 :])
                assert looked(written, replace(facts, gates=others), wave)[0] or not closed
    without, _ = looked(written, replace(facts, gates=()), wave)
    assert without, "who said nothing opens nothing"


@given(answered())
def test_deciding_again_decides_nothing_and_it_looks_again_in_time(
    case: tuple[list[Gate], WaveFacts, WaveState],
) -> None:
    written, facts, wave = case
    closed, look = looked(*case)
    if any(isinstance(each, AskGates) for each in look.decisions):
        state = replace(fresh_state(["all"]), waves=(wave,))
        asked = transitions.apply_all(state, look.decisions, NOW).wave("all")
        still, again = looked(written, facts, asked)
        assert still and again.decisions == []
        assert again.wake_at is not None and again.wake_at > NOW
    elif closed and not look.decisions:
        assert look.wake_at is not None and look.wake_at > NOW, "nobody is forgotten"
        before = look.wake_at - timedelta(microseconds=1)
        assert looked(written, facts, wave, before)[1].decisions == [], "and not too early"


def test_a_yes_that_ends_before_another_gate_is_due_wakes() -> None:
    """The one is asked every eleven minutes and said not yet; the yes of the other counts for ten."""
    slow, quick = (
        Gate.parse({"gate": name, "asks": "desk", "every": every}) for name, every in (("a", "11m"), ("b", "1m"))
    )
    said = (
        GateFacts("a", slow.question, NOT_YET, "", NOW, NOW),
        GateFacts("b", quick.question, YES, "", NOW, NOW),
    )
    wave = WaveState("all", WaveStatus.PREPARING, STARTED, gates_asked_at=NOW - timedelta(seconds=1))
    case = [slow, quick], WaveFacts("all", gates=said), wave
    closed, look = looked(*case)
    assert closed and look.decisions == [] and look.wake_at == NOW + timedelta(minutes=10)
    assert looked(*case, look.wake_at)[1].decisions


@given(answered())
def test_a_no_that_counts_holds(case: tuple[list[Gate], WaveFacts, WaveState]) -> None:
    written, facts, wave = case
    said = GateFacts(written[0].gate, written[0].question, NO, "it is broken", NOW, NOW)
    others = tuple(each for each in facts.gates if each.gate != said.gate)
    closed, look = looked(written, replace(facts, gates=(*others, said)), wave)
    assert closed
    (hold,) = look.decisions
    assert isinstance(hold, HoldWave) and hold.reason.kind is ReasonKind.GATE_NO
    assert "says no" in hold.reason.sentence


def test_without_gates_nothing_is_shut() -> None:
    assert looked([], WaveFacts("all"), WaveState("all", WaveStatus.PREPARING, STARTED))[0] is False


# ------------------------------------------------------------------------------------------------- what is written


def refusal(*gates: object) -> str:
    with pytest.raises(InvalidDocument) as refused:
        Policy.parse({"policy": "x", "gates": list(gates)})
    return str(refused.value)


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        ("qa", "gates[0]: must be a mapping with the keys gate, asks"),
        ({"asks": "desk"}, "gates[0].gate: is missing"),
        ({"gate": "a"}, "gates[0].asks: is missing"),
        ({"gate": "a", "asks": "http://x"}, "gates[0].asks: "),
        ({"gate": "a", "asks": "p", "command": ["/bin/true"]}, "gates[0].command: is not a key here"),
        ({"gate": "a", "asks": "p", "query": "up"}, "gates[0].query: needs above or below"),
        ({"gate": "a", "asks": "p", "query": " ", "below": 1}, "gates[0].query: must be a query"),
        ({"gate": "a", "asks": "p", "below": 1}, "gates[0].query: is missing"),
        ({"gate": "a", "asks": "p", "query": "up", "above": 5, "below": 5}, "gates[0].below: must be more than above"),
        ({"gate": "a", "asks": "p", "timeout": "2m"}, "gates[0].timeout: must be from 1s to 1m"),
        ({"gate": "a", "asks": "p", "every": "1s"}, "gates[0].every: must be from 5s to 1h"),
        ({"gate": "a", "asks": "p", "otherwise": "pass"}, "gates[0].otherwise: "),
    ],
)
def test_what_is_no_gate_is_refused(gate: object, sentence: str) -> None:
    assert refusal(gate).startswith(sentence)


def test_names_are_there_once_and_there_are_not_too_many() -> None:
    one = {"gate": "a", "asks": "desk"}
    assert refusal(one, one) == "gates[1].gate: names a a second time."
    assert refusal(*({**one, "gate": f"g{number}"} for number in range(9))).startswith("gates: has 9 gates")


def test_a_policy_without_gates_is_written_as_before() -> None:
    assert "gates" not in Policy.parse({"policy": "x"}).document()


def test_another_question_has_another_name_and_the_rest_does_not_matter() -> None:
    one = {"gate": "a", "asks": "p", "query": "up", "below": 1}
    same = [{**one, "gate": "b"}, {**one, "every": "5m"}, {**one, "otherwise": "open"}]
    others = [{**one, "query": "down"}, {**one, "below": 2}, {**one, "asks": "q"}, {**one, "unmet": "no"}]
    question = Gate.parse(one).question
    assert {Gate.parse(each).question for each in same} == {question}
    assert question not in {Gate.parse(each).question for each in others}
