"""Gates: what is asked outside before a wave opens, as it is written in a policy, and what was answered.

A gate names a source of the installation (its file of sources has addresses, programs and tokens) and says what a
policy may say of it: the query and its bounds, how long, and what then. Answers for: the words. Not for: what follows
from answers (``gating``), nor for asking (``services.gatekeeping``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.core.document import Document, Duration, Name, Problem, choice, problem, problems_at
from orchestrator.core.durations import duration_text

MOST_GATES: Final = 8
"""Of one wave."""

LONGEST_QUERY: Final = 4_000
"""Characters."""

LONGEST_REASON: Final = 200
"""Characters kept of what a gate says to its answer."""


class GateAnswer(StrEnum):
    """What a gate said. ``no_data`` is that nothing usable was said: no answer in time, nonsense, a query that found
    nothing. It is never taken for a yes, nor for a no."""

    YES = "yes"
    NO = "no"
    NOT_YET = "not_yet"
    NO_DATA = "no_data"


class Unmet(StrEnum):
    """What a value outside its bounds means."""

    NOT_YET = "not_yet"
    NO = "no"


class AtTheEnd(StrEnum):
    """What to do when a gate has not said yes in all its time."""

    HOLD = "hold"
    OPEN = "open"


def _a_query(value: object) -> object:
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_QUERY:
        raise problem(f"must be a query of at most {LONGEST_QUERY:,} characters.")
    return value


class Gate(Document):
    """One gate of a wave."""

    gate: Name = Field(description="The gate's name, as people see it.", examples=["errors"])
    asks: Name = Field(description="A source of the installation that is asked.", examples=["prometheus"])
    query: Annotated[str, BeforeValidator(_a_query)] | None = Field(
        default=None,
        description="What a Prometheus is asked, in PromQL. Every value that it finds must be within the bounds.",
        examples=["'sum(rate(errors_total[10m])) / sum(rate(requests_total[10m]))'"],
    )
    above: float | None = Field(default=None, description="Each value must be above this.", examples=[0.5])
    below: float | None = Field(default=None, description="Each value must be below this.", examples=[0.01])
    unmet: Annotated[Unmet, BeforeValidator(choice(Unmet))] = Field(
        default=Unmet.NOT_YET, description="A value outside its bounds says not_yet, or no. Default not_yet."
    )
    timeout: Duration = Field(
        default=timedelta(seconds=10), description="How long one answer may take, a minute at most. Default 10s."
    )
    every: Duration = Field(
        default=timedelta(minutes=1), description="How soon it is asked again after not_yet or no answer. Default 1m."
    )
    at_most: Duration = Field(
        default=timedelta(hours=2), description="How long it is asked in all before `otherwise` applies. Default 2h."
    )
    otherwise: Annotated[AtTheEnd, BeforeValidator(choice(AtTheEnd))] = Field(
        default=AtTheEnd.HOLD,
        description="After that: hold it for a person, or open it without a yes. A no holds at once. Default hold.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wrong = []
        for key, least, most in (
            ("timeout", timedelta(seconds=1), timedelta(minutes=1)),
            ("every", timedelta(seconds=5), timedelta(hours=1)),
        ):
            if not least <= getattr(self, key) <= most:
                wrong.append(Problem((key,), f"must be from {duration_text(least)} to {duration_text(most)}."))
        bounded = self.above is not None or self.below is not None
        if self.query is not None and not bounded:
            wrong.append(Problem(("query",), "needs above or below: which values are good is not to be guessed."))
        if self.query is None and (bounded or self.unmet is Unmet.NO):
            wrong.append(Problem(("query",), "is missing: above, below and unmet are about the values that it finds."))
        if self.above is not None and self.below is not None and self.above >= self.below:
            wrong.append(Problem(("below",), f"must be more than above, which is {self.above:g}."))
        if wrong:
            raise problems_at(wrong)
        return self

    @property
    def question(self) -> str:
        """Another text for another question: an answer counts for the question that was asked."""
        said = [self.asks, self.query, self.above, self.below, self.unmet.value]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    @property
    def bounds(self) -> str:
        """``below 0.01``, ``above 1 and below 5``."""
        words = [("above", self.above), ("below", self.below)]
        return " and ".join(f"{word} {value:g}" for word, value in words if value is not None)


def read_gates(value: object) -> object:
    """A validator of the list, before its items are looked at; empty is none."""
    if not isinstance(value, list | tuple):
        raise problem("must be a list of gates, such as [{gate: errors, asks: prometheus, …}].")
    if len(value) > MOST_GATES:
        raise problem(f"has {len(value)} gates; at most {MOST_GATES} are allowed.")
    return value


def each_once(gates: tuple[Gate, ...]) -> None:
    """Raises a problem for a name that comes twice."""
    names = [each.gate for each in gates]
    twice = next((place for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise problems_at([Problem(("gates", twice, "gate"), f"names {names[twice]} a second time.")])


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What a gate said last: to which ``question``, with what reason, when, and ``since`` when it is asked without a
    long pause."""

    gate: str
    question: str
    answer: GateAnswer
    because: str
    got_at: datetime
    since: datetime
