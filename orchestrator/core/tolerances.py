"""What a policy tolerates per outcome class, and the operator's hard stops beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Self

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

from orchestrator.core.document import LARGEST_COUNT, Document, Risk, choice, problem
from orchestrator.core.durations import RISK_PATTERN, SHARE_PATTERN, devices_in, parse_share, share_text, shown
from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

DEFAULT_TOLERANCES: Mapping[OutcomeClass, Tolerance] = MappingProxyType(
    {
        OutcomeClass.FAILED: Tolerance(0.02, Answer.HALT),
        OutcomeClass.ROLLED_BACK: Tolerance(0.01, Answer.HALT),
        OutcomeClass.SILENT: Tolerance(0.05, Answer.HOLD),
        OutcomeClass.IGNORED: Tolerance(0.15, Answer.HOLD),
        OutcomeClass.DOWNLOAD_FAILED: Tolerance(0.15, Answer.HOLD),
    }
)
"""For a class that the policy does not name; of silence as long as nothing is learnt. It then holds instead of
halting: a part of every fleet stays dark whatever the release, and nobody knows how large a part (RULES 4.6)."""

LEARNT_SILENCE: Final = Tolerance(0.02, Answer.HALT)
"""Of silence that the policy does not name, once the fleet's darkness is learnt: on top of that, as much as of failures
and with their answer, because a device that is dark for the release's sake is no better than one that failed."""

_HOLDS_BY_DEFAULT = frozenset({OutcomeClass.IGNORED, OutcomeClass.DOWNLOAD_FAILED})
"""Classes whose cause is often not the release: named without ``then``, they hold; the others halt."""


class Tolerated(Document):
    """One outcome class: a share, or ``{at_most: share, then: halt | hold | count}``."""

    at_most: Risk = Field(
        description="The probability of this outcome that is still acceptable: above 0%, below 100%.", examples=["2%"]
    )
    then: Annotated[Answer, BeforeValidator(choice(Answer))] = Field(
        default=Answer.HALT, description="What happens above it: halt, hold for a person, or only count."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _share_alone(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                share = parse_share(value)
            except InvalidInput as error:
                raise problem(error.message) from None
            if not 0 < share < 1:
                raise problem(f"must be more than 0% and less than 100%, not {shown(value)}.")
            value = {"at_most": value}
        return handler(value)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return _or_share(handler.resolve_ref_schema(handler(core_schema)))

    @property
    def tolerance(self) -> Tolerance:
        return Tolerance(self.at_most, self.then)


def _or_share(schema: dict[str, Any]) -> dict[str, Any]:
    whole = dict(schema)
    description = whole.pop("description", "")
    schema.clear()
    schema |= {"description": description, "anyOf": [_RISK_SCHEMA, whole]}
    return schema


_RISK_SCHEMA = {"type": "string", "pattern": RISK_PATTERN, "examples": ["2%", "0.5%"]}


def _holding(value: object) -> object:
    """The class's own default answer is to hold."""
    if isinstance(value, str):
        return {"at_most": value, "then": "hold"} if _is_risk(value) else value
    return {"then": "hold", **value} if isinstance(value, Mapping) else value


def _is_risk(text: str) -> bool:
    try:
        return 0 < parse_share(text) < 1
    except InvalidInput:
        return False


def _default(of: OutcomeClass) -> Callable[[], Tolerated]:
    tolerance = DEFAULT_TOLERANCES[of]
    return lambda: Tolerated(at_most=share_text(tolerance.at_most), then=tolerance.then)  # type: ignore[arg-type]


Holding = Annotated[Tolerated, BeforeValidator(_holding)]


class Tolerate(Document):
    """Per outcome class: the probability that is still acceptable, and what happens above it."""

    failed: Tolerated = Field(
        default_factory=_default(OutcomeClass.FAILED), description="Could not install, or does not work. Default 2%."
    )
    rolled_back: Tolerated = Field(
        default_factory=_default(OutcomeClass.ROLLED_BACK), description="Went back to what it had. Default 1%."
    )
    silent: Tolerated | None = Field(
        default=None,
        description="Not heard of within silent_after, on top of the darkness learnt from earlier releases. "
        "Default 2%, then halt; while nothing is learnt 5%, then hold.",
    )
    ignored: Holding = Field(
        default_factory=_default(OutcomeClass.IGNORED),
        description="Came back three times and never started. Default 15%, then hold.",
    )
    download_failed: Holding = Field(
        default_factory=_default(OutcomeClass.DOWNLOAD_FAILED),
        description="Could not fetch the content. Default 15%, then hold.",
    )

    def of(self, outcome: OutcomeClass, *, learnt: bool) -> Tolerance:
        """What the policy says of a class, its default included. Of silence, where the darkness of the fleet is
        ``learnt``, it is what is tolerated on top of that."""
        named: Tolerated | None = getattr(self, outcome.value)
        if named is not None:
            return named.tolerance
        return LEARNT_SILENCE if learnt else DEFAULT_TOLERANCES[outcome]

    @classmethod
    def unknown_key(cls, key: str) -> str:
        if key.startswith("error") or any(mark in key for mark in ":/."):
            return (
                f"is not in this version: outcome classes by error code. Allowed are {', '.join(cls.allowed_keys())}."
            )
        return super().unknown_key(key)


class Limit(Document):
    """A hard stop of the operator's own: a count of devices, or a share of the rollout's."""

    count: int | None = None
    share: float | None = None

    def devices(self, of: int) -> int:
        """The number of bad outcomes that stops a rollout of ``of`` devices; at least one."""
        return self.count if self.count is not None else max(1, devices_in(self.share or 0.0, of))

    def text(self) -> str | int:
        return self.count if self.count is not None else share_text(self.share or 0.0)


def _read_limit(value: object) -> Limit:
    if isinstance(value, Limit):
        return value
    if type(value) is int:
        if not 1 <= value <= LARGEST_COUNT:
            raise problem(f"must be a count of at least 1 device or a share such as 3%, not {shown(value)}.")
        return Limit(count=value)
    if not isinstance(value, str):
        raise problem(f"must be a count of devices such as 40 or a share such as 3%, not {shown(value)}.")
    try:
        share = parse_share(value)
    except InvalidInput as error:
        raise problem(error.message) from None
    if share == 0:
        raise problem("must be more than 0%; a count of 1 stops at the first.")
    return Limit(share=share)


LimitField = Annotated[
    Limit,
    BeforeValidator(_read_limit),
    PlainSerializer(Limit.text, when_used="json-unless-none"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": LARGEST_COUNT},
                {"type": "string", "pattern": SHARE_PATTERN},
            ]
        }
    ),
]


class Budget(Document):
    """Hard stops, checked first and outside ``false_halt``; a class without one gets the computed default."""

    failed: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    rolled_back: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    silent: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    ignored: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    download_failed: LimitField | None = Field(
        default=None, description="A count of devices or a share of the rollout's."
    )

    def limit(self, of: OutcomeClass) -> Limit | None:
        """What the operator set for the class; None: use the computed default."""
        limit: Limit | None = getattr(self, of.value)
        return limit
