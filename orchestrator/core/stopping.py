"""What a halt does beyond giving no offers: the policy's ``on_halt``.

Offers of devices that have not started are always withdrawn. Devices that have started may finish, unless the policy
says ``cancel``: then those whose protocol knows how are told to stop, until they have written the Target. It holds in a
rollout that was halted and in one that was cancelled. With ``notify`` a halt is told to all whom the policy names.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from orchestrator.core.course import Course, UpdateStatus
from orchestrator.core.document import choice, problem
from orchestrator.core.durations import shown
from orchestrator.core.states import RolloutStatus


class OnHalt(StrEnum):
    """What to do when a rollout halts."""

    WITHDRAW = "withdraw"
    CANCEL = "cancel"
    NOTIFY = "notify"


STOPPED: Final = frozenset({RolloutStatus.HALTED, RolloutStatus.CANCELLED})
"""Rollouts whose started devices are told to stop, where the policy says so."""


def _read(value: object) -> tuple[OnHalt, ...]:
    if not isinstance(value, list | tuple):
        raise problem(f"must be [withdraw], with cancel or notify beside it, not {shown(value)}.")
    found = tuple(choice(OnHalt)(each) for each in value)
    if OnHalt.WITHDRAW not in found or len(set(found)) < len(found):
        raise problem("must have withdraw, cancel or notify beside it: a halt always withdraws offers not started.")
    return tuple(each for each in OnHalt if each in found)


OnHaltField = Annotated[
    tuple[OnHalt, ...],
    PlainValidator(_read),
    PlainSerializer(lambda answers: [str(each) for each in answers], when_used="json"),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"enum": [str(each) for each in OnHalt]},
            "contains": {"const": str(OnHalt.WITHDRAW)},
            "uniqueItems": True,
        }
    ),
]


def told_to_stop(status: RolloutStatus, update: Course, *, cancels: bool) -> bool:
    """Whether a started device of a rollout in this status is told to stop; ``cancels``: the policy says so."""
    under_way = update.status in (UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING)
    return cancels and under_way and status in STOPPED
