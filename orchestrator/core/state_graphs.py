"""The tables of states as people see them: Mermaid graphs of the moves, and a table of what an update can be.

README holds what these return, word for word; a test keeps it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from orchestrator.core.states import (
    ROLLOUT_MOVES,
    WAVE_MOVES,
    Actor,
    RolloutStatus,
    WaveStatus,
)
from orchestrator.core.update import UPDATE_MEANING

_WHO: Final[Mapping[frozenset[Actor], str]] = {
    frozenset({Actor.MACHINE}): "policy",
    frozenset({Actor.PERSON}): "person",
    frozenset({Actor.MACHINE, Actor.PERSON}): "policy or person",
}


def rollout_graph() -> str:
    """The life of a rollout as a Mermaid state diagram; each arrow says who may make the move."""
    return _graph(RolloutStatus.DRAFT, ROLLOUT_MOVES)


def wave_graph() -> str:
    """The life of a wave as a Mermaid state diagram; each arrow says who may make the move."""
    return _graph(WaveStatus.PENDING, WAVE_MOVES)


def update_table() -> str:
    """What one device's update can be, as a Markdown table."""
    rows = [f"| `{status}` | {meaning} |" for status, meaning in UPDATE_MEANING.items()]
    return "\n".join(["| update | |", "|---|---|", *rows])


def _graph(first: StrEnum, moves: Mapping[Any, frozenset[Actor]]) -> str:
    return "\n".join(["stateDiagram-v2", *_lines(first, moves)])


def _lines(first: StrEnum, moves: Mapping[Any, frozenset[Actor]]) -> Iterator[str]:
    yield f"    [*] --> {first}"
    for (before, after), who in moves.items():
        yield f"    {before} --> {after}: {_WHO[who]}"
    left = {before for before, _ in moves}
    for status in type(first):
        if status not in left:
            yield f"    {status} --> [*]"
