"""Whose the silence is: one board's, or everybody's; and how rarely a board within the tolerance is taken for it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.carrying import carrier, seen_beside
from orchestrator.core.evidence.clock import Checkpoint, ClockFacts, Seen, reading
from orchestrator.core.outcomes import Answer

POINT = Checkpoint(12, 0.05, 0.1)
ALPHA = 0.009


def clock(*boards: tuple[str, int, int], point: Checkpoint = POINT) -> ClockFacts:
    """Boards with their silent and their reported."""
    return ClockFacts(0.02, ALPHA, Answer.HALT, 2_000, 1, tuple(Seen(b, 1, point, s, r) for b, s, r in boards))


def carries(found: ClockFacts) -> str | None:
    board = carrier(found)
    return None if board is None else board.seen[0].hardware_id


def test_a_small_board_that_is_all_dark_carries_it_and_one_of_a_dark_release_does_not() -> None:
    assert carries(clock(("cm4", 9, 0), ("rpi4", 4, 80))) == "cm4"
    assert carries(clock(("cm4", 9, 0), ("rpi4", 60, 20))) is None, "the others are dark too"
    assert carries(clock(("cm4", 3, 6), ("rpi4", 20, 64))) is None
    assert carries(clock(("cm4", 20, 0), ("imx8", 20, 0), ("rpi4", 4, 80))) is None, "two boards: the rest is no rest"
    assert carries(clock(("cm4", 9, 0))) == "cm4", "nobody else was seen"


def test_the_more_boards_there_are_the_more_one_must_show() -> None:
    dark = next(n for n in range(1, 30) if carries(clock(("cm4", n, 0), ("rpi4", 0, 9))))
    many = [(f"b{n}", 0, 1) for n in range(90)]
    assert carries(clock(("cm4", dark, 0), *many)) is None
    assert carries(clock(("cm4", dark + 3, 0), *many)) == "cm4"


def test_who_was_seen_beside_it() -> None:
    alone, beside = clock(("cm4", 9, 0)), clock(("cm4", 9, 0), ("rpi4", 0, 1))
    assert [seen_beside(each, board) for each in (alone, beside) if (board := carrier(each))] == [False, True]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 400)), min_size=1, max_size=8))
def test_what_carries_it_crosses_alone_and_without_it_nothing_does(counts: list[tuple[int, int]]) -> None:
    facts = clock(*((f"b{n}", silent, reported) for n, (silent, reported) in enumerate(counts)))
    board = carries(facts)
    if board is not None:
        n = int(board[1:])
        alone = reading(clock((board, *counts[n])))
        others = reading(clock(*((f"b{m}", *each) for m, each in enumerate(counts) if m != n)))
        assert alone is not None and alone.crossed
        assert others is None or not others.amber


@pytest.mark.parametrize("dark", [0, 1])
def test_a_board_within_the_tolerance_is_hardly_ever_taken_for_a_carrier(dark: int) -> None:
    """Twelve boards of 40 devices, each silent with the tolerated chance; the first one may be dark altogether. Looked
    at after every device, in 2,000 rollouts; the clock's alpha is raised to a fifth so that there is something to
    see."""
    wrong = 0
    for seed in range(2_000):
        dice = Random(f"{seed} {dark}")
        counts = [[0, 0] for _ in range(12)]
        for _ in range(480):
            board = dice.randrange(12)
            silent = board < dark or dice.random() < POINT.tolerated
            counts[board][not silent] += 1
            if not silent:
                continue  # only silence adds evidence
            facts = ClockFacts(
                0.02, 0.2, Answer.HALT, 2_000, 1, tuple(Seen(f"b{n}", 1, POINT, *c) for n, c in enumerate(counts))
            )
            found = reading(facts)
            if found is not None and found.crossed:
                board_ = carries(facts)
                wrong += board_ is not None and int(board_[1:]) >= dark
                break
    assert wrong <= 0.2 * 2_000
