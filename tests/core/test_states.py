"""The tables of states are whole, every refusal says what is allowed, and the graphs in README come from them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from orchestrator.core.state_graphs import rollout_graph, update_table, wave_graph
from orchestrator.core.states import (
    DONE_WAVE,
    LIVE_ROLLOUT,
    OFFERING_ROLLOUT,
    OFFERING_WAVE,
    ROLLOUT_MEANING,
    ROLLOUT_MOVES,
    WATCHED_ROLLOUT,
    WAVE_MEANING,
    WAVE_MOVES,
    Actor,
    RolloutStatus,
    WaveStatus,
    move_rollout,
    move_wave,
)
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import WrongState

R, W = RolloutStatus, WaveStatus
TABLES = [
    pytest.param(RolloutStatus, R.DRAFT, ROLLOUT_MEANING, ROLLOUT_MOVES, id="rollout"),
    pytest.param(WaveStatus, W.PENDING, WAVE_MEANING, WAVE_MOVES, id="wave"),
]


@pytest.mark.parametrize(("statuses", "first", "meaning", "moves"), TABLES)
def test_every_status_has_a_sentence_and_is_reached(
    statuses: type[StrEnum], first: StrEnum, meaning: Mapping[Any, str], moves: Mapping[Any, frozenset[Actor]]
) -> None:
    assert set(meaning) == set(statuses)
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in meaning.values())
    reached: set[StrEnum] = {first}
    before: set[StrEnum] = set()
    while reached != before:
        before = set(reached)
        reached |= {to for origin, to in moves if origin in before}
    assert reached == set(statuses)


@pytest.mark.parametrize(("statuses", "first", "meaning", "moves"), TABLES)
def test_every_move_has_two_ends_and_somebody_who_makes_it(
    statuses: type[StrEnum], first: StrEnum, meaning: Mapping[Any, str], moves: Mapping[Any, frozenset[Actor]]
) -> None:
    for (before, after), who in moves.items():
        assert isinstance(before, statuses) and isinstance(after, statuses) and before != after
        assert who and who <= set(Actor)


def test_the_machine_leads_nothing_out_of_a_stop_or_an_end() -> None:
    def led_by_machine(moves: Mapping[Any, frozenset[Actor]], before: StrEnum) -> set[StrEnum]:
        return {to for (origin, to), who in moves.items() if origin == before and Actor.MACHINE in who}

    assert led_by_machine(ROLLOUT_MOVES, R.HALTED) == set()
    assert led_by_machine(ROLLOUT_MOVES, R.CANCELLED) == set()
    assert led_by_machine(ROLLOUT_MOVES, R.DRAFT) == set()
    assert led_by_machine(ROLLOUT_MOVES, R.HELD) == {R.HALTED}
    assert led_by_machine(ROLLOUT_MOVES, R.PAUSED) == {R.HALTED}
    assert led_by_machine(ROLLOUT_MOVES, R.COMPLETED) == {R.HALTED, R.HELD}
    for ended in (W.PASSED, W.SKIPPED, W.CANCELLED, W.FAILED):
        assert led_by_machine(WAVE_MOVES, ended) == set()
    assert {to for origin, to in WAVE_MOVES if origin in (W.PASSED, W.SKIPPED)} == set()
    assert {to for origin, to in ROLLOUT_MOVES if origin is R.CANCELLED} == set()


def test_whatever_is_watched_can_be_halted() -> None:
    for status in WATCHED_ROLLOUT:
        assert Actor.MACHINE in ROLLOUT_MOVES[status, R.HALTED]


def test_a_rollout_that_stands_still_offers_nothing() -> None:
    assert {R.RUNNING, R.COMPLETED} == OFFERING_ROLLOUT
    assert {W.OPEN, W.BAKING, W.PASSED} == OFFERING_WAVE
    assert {W.PASSED, W.SKIPPED} == DONE_WAVE
    assert set(R) - LIVE_ROLLOUT == {R.DRAFT, R.COMPLETED, R.CANCELLED}


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        (
            lambda: move_rollout(R.HALTED, R.PAUSED, Actor.PERSON),
            "A halted rollout cannot become paused: it can become cancelled, completed or running.",
        ),
        (
            lambda: move_rollout(R.HALTED, R.RUNNING, Actor.MACHINE),
            "A halted rollout cannot become running: only a person moves it on.",
        ),
        (
            lambda: move_rollout(R.CANCELLED, R.RUNNING, Actor.PERSON),
            "A cancelled rollout cannot become running: it has ended.",
        ),
        (
            lambda: move_wave(W.OPEN, W.SKIPPED, Actor.PERSON),
            "An open wave cannot become skipped: it can become cancelled or passed.",
        ),
        (
            lambda: move_wave(W.CANCELLED, W.OPEN, Actor.PERSON),
            "A cancelled wave cannot become open: it can become skipped.",
        ),
        (
            lambda: move_wave(W.PASSED, W.CANCELLED, Actor.PERSON),
            "A passed wave cannot become cancelled: it has ended.",
        ),
    ],
)
def test_a_refused_move_says_what_is_allowed(refused: Any, sentence: str) -> None:
    with pytest.raises(WrongState) as error:
        refused()
    assert str(error.value) == sentence


@pytest.mark.parametrize("actor", Actor)
def test_the_doors_let_through_what_the_tables_say_and_nothing_else(actor: Actor) -> None:
    houses: Any = ((move_rollout, R, ROLLOUT_MOVES), (move_wave, W, WAVE_MOVES))
    for door, statuses, moves in houses:
        for before, after in itertools.product(statuses, repeat=2):
            if actor in moves.get((before, after), frozenset()):
                assert door(before, after, actor) is after
            else:
                with pytest.raises(WrongState, match=r"cannot become"):
                    door(before, after, actor)


# ------------------------------------------------------------------------------------------------- the drawings


@pytest.mark.parametrize(
    ("graph", "statuses", "moves"), [(rollout_graph, R, ROLLOUT_MOVES), (wave_graph, W, WAVE_MOVES)]
)
def test_a_graph_draws_every_move_once_and_who_makes_it(graph: Any, statuses: Any, moves: Any) -> None:
    lines = graph().splitlines()
    assert lines[0] == "stateDiagram-v2"
    drawn = [match.groups() for line in lines[1:] if (match := re.fullmatch(r"    (\w+) --> (\w+): (.+)", line))]
    assert [(before, after) for before, after, _ in drawn] == list(moves)
    for before, after, who in drawn:
        assert ("person" in who) == (Actor.PERSON in moves[before, after])
        assert ("policy" in who) == (Actor.MACHINE in moves[before, after])
    ends = [line.split()[0] for line in lines if line.endswith("--> [*]")]
    assert ends == [status for status in statuses if not any(before == status for before, _ in moves)]


def test_the_table_of_updates_names_each_status_with_its_sentence() -> None:
    rows = update_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(UpdateStatus)
    assert all(row.endswith(". |") for row in rows)
