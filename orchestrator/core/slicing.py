"""How a policy says that a wave opens slice by slice."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from orchestrator.core.document import Count, Document, problem
from orchestrator.core.durations import shown


def _growth(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= 2:
        raise problem(
            f"must be a number above 1 and at most 2 (a slice is never larger than all before it), not {shown(value)}."
        )
    return float(value)


class Slices(Document):
    """How a wave opens: ``first`` devices, then as many as it has had so far (times ``growth - 1``)."""

    first: Count = Field(default=20, description="Devices in the first slice of a wave. Default 20.")
    growth: Annotated[
        float,
        BeforeValidator(_growth),
        PlainSerializer(lambda growth: int(growth) if growth == int(growth) else growth, when_used="json"),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 1, "maximum": 2}),
    ] = Field(default=2.0, description="The wave after a slice, as a multiple of before: above 1, at most 2.")
