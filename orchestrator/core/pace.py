"""How fast offers may be given: what people write under ``pace``, and the arithmetic of a rate.

Every key stands for itself and all that are given hold at once: the tightest rules. Budgets are checked before any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Protocol, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from orchestrator.core.document import LARGEST_COUNT, Count, Document, did_you_mean, problem
from orchestrator.core.durations import shown
from orchestrator.core.fleet import LABEL_KEY_PATTERN, wrong_key

STAKE: Final = 20
"""What ``pace: evidence`` stakes: so many devices at most are expected to fail before anybody knows."""

BURST_PART: Final = 10
"""A rate gives at most one in so many of its offers at once."""

RATE_PATTERN: Final = r"^[1-9][0-9]{0,8}/(min|h|d)$"
"""What editors hold a rate to."""

_SPANS: Final = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_WORDS: Final = {"min": "minute", "h": "hour", "d": "day"}
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many offers in any stretch of ``unit`` (``min``, ``h`` or ``d``) at most, wherever the stretch begins.

    Kept by one moment, that of the generic cell rate algorithm (GCRA): ``spent_until`` says until when the rate is used
    up. It only moves forward, however many offers there were, and survives a restart. At most ``burst`` offers come at
    once; steadily it gives ``offers - burst + 1`` in each unit, so that a burst never exceeds the rate.
    """

    offers: int
    unit: str

    def __str__(self) -> str:
        return f"{self.offers}/{self.unit}"

    @property
    def words(self) -> str:
        """For people: ``200 in any hour``."""
        return f"{self.offers} in any {_WORDS[self.unit]}"

    @property
    def burst(self) -> int:
        """Offers that may be given at once: a tenth of the rate, at least one."""
        return max(1, self.offers // BURST_PART)

    @property
    def every(self) -> timedelta:
        """The steady time between two offers, rounded up to the microsecond."""
        return -(-_SPANS[self.unit] // (_MICROSECOND * (self.offers - self.burst + 1))) * _MICROSECOND

    def next_at(self, spent_until: datetime | None) -> datetime | None:
        """When the next offer may be given; None: at any time."""
        return None if spent_until is None else spent_until - (self.burst - 1) * self.every

    def spend(self, spent_until: datetime | None, now: datetime) -> datetime:
        """``spent_until`` after one offer at ``now``."""
        return (now if spent_until is None else max(spent_until, now)) + self.every

    def time_for(self, offers: int) -> timedelta:
        """The shortest time between the first and the last of so many offers."""
        return max(0, offers - self.burst) * self.every


def parse_rate(text: object) -> Rate:
    """``20/min``, ``200/h``, ``1000/d``. Raises pydantic's error with what is allowed."""
    if isinstance(text, Rate):
        return text
    if not isinstance(text, str) or not re.fullmatch(RATE_PATTERN, text, re.ASCII):
        raise problem(f"must be offers in a time such as 20/min, 200/h or 1000/d, not {shown(text)}.")
    offers, unit = text.split("/")
    if int(offers) > LARGEST_COUNT:
        raise problem(f"must be at most {LARGEST_COUNT:,} in a time.")
    return Rate(int(offers), unit)


RateField = Annotated[
    Rate,
    BeforeValidator(parse_rate),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": RATE_PATTERN, "examples": ["200/h", "20/min", "1000/d"]}),
]


def _label(value: object) -> str:
    wrong = wrong_key(value) if isinstance(value, str) else f"must be the name of a label, not {shown(value)}."
    if wrong is not None or not isinstance(value, str):
        raise problem(wrong or "")
    return value


class Per(Document):
    """How many devices that share a value of a label may be at it at once."""

    label: Annotated[
        str,
        BeforeValidator(_label),
        WithJsonSchema({"type": "string", "pattern": LABEL_KEY_PATTERN}),
    ] = Field(
        description="The label. A device without it is limited by no other: it shares a value with nobody.",
        examples=["site"],
    )
    at_most: Count = Field(
        description="Devices with an offer and no outcome, at most, for each value of the label.", examples=[2]
    )


class Pace(Document):
    """How fast offers are given. ``evidence`` alone is short for ``{stake: 20}``."""

    in_flight: Count | None = Field(
        default=None,
        description="Devices with an offer and no outcome, at most, over the whole rollout.",
        examples=[500],
    )
    stake: Count | None = Field(
        default=None,
        description="As many may be under way as the evidence so far bears: this many over the upper bound of the "
        "failure rate, at confidence 95 %, with every device that has a place and no confirmation counted as failed.",
        examples=[STAKE],
    )
    per: Per | None = Field(
        default=None, description="Devices under way at once that share a value of a label.", examples=["{label: site}"]
    )
    rate: RateField | None = Field(
        default=None,
        description="Offers in any minute, hour or day, at most; a tenth of them at once.",
        examples=["200/h"],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _evidence(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, str):
            if value != "evidence":
                allowed = f"must be evidence or a mapping with {', '.join(cls.allowed_keys())}, not {shown(value)}."
                raise problem(allowed + did_you_mean(value, ["evidence"]))
            value = {"stake": STAKE}
        made = handler(value)
        if not any((made.in_flight, made.stake, made.per, made.rate)):
            raise problem(f"limits nothing: give {', '.join(cls.allowed_keys()[:-1])} or {cls.allowed_keys()[-1]}.")
        return made

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        whole = dict(schema)
        description = whole.pop("description", "")
        schema.clear()
        schema |= {"description": description, "anyOf": [{"const": "evidence"}, {**whole, "minProperties": 1}]}
        return schema


class Paced(Protocol):
    """Whatever carries a pace as rules: a rollout, a wave."""

    @property
    def in_flight(self) -> int | None: ...

    @property
    def stake(self) -> int | None: ...

    @property
    def per(self) -> Per | None: ...

    @property
    def rate(self) -> Rate | None: ...


def counts_devices(paced: Paced) -> bool:
    """Whether it limits how many may be at it at once, over all."""
    return paced.in_flight is not None or paced.stake is not None


def limits(paced: Paced) -> bool:
    """Whether it limits anything."""
    return counts_devices(paced) or paced.per is not None or paced.rate is not None
