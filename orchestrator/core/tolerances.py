"""What a policy tolerates per outcome class, and the operator's hard stops beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from orchestrator.core.codes import MOST_OWN, Classes, classes_of, first_clash
from orchestrator.core.document import (
    LARGEST_COUNT,
    NAME_PATTERN,
    Document,
    Problem,
    Risk,
    choice,
    problem,
    problems_at,
    problems_of,
)
from orchestrator.core.durations import RISK_PATTERN, SHARE_PATTERN, devices_in, parse_share, share_text, shown
from orchestrator.core.outcomes import NOT_BAD, Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

DEFAULT_TOLERANCES: Mapping[Outcome, Tolerance] = MappingProxyType(
    {
        OutcomeClass.FAILED: Tolerance(0.02, Answer.HALT),
        OutcomeClass.ROLLED_BACK: Tolerance(0.01, Answer.HALT),
        OutcomeClass.SILENT: Tolerance(0.05, Answer.HOLD),
        OutcomeClass.IGNORED: Tolerance(0.15, Answer.HOLD),
        OutcomeClass.DOWNLOAD_FAILED: Tolerance(0.15, Answer.HOLD),
    }
)
"""For a class that the policy does not name; of silence as long as nothing is learnt. It then holds instead of
halting: a part of every fleet stays dark whatever the release, and nobody knows how large a part (RULES 4.6).
``verify_failed`` has none: not named, it counts as ``failed``."""

LEARNT_SILENCE: Final = Tolerance(0.02, Answer.HALT)
"""Of silence that the policy does not name, once the fleet's darkness is learnt: on top of that, as much as of failures
and with their answer, because a device that is dark for the release's sake is no better than one that failed."""

MOST_PATTERNS: Final = 32
"""Error codes and patterns of one class."""

LONGEST_PATTERN: Final = 128
"""As long as a code that is kept."""

TAKEN: Final = frozenset({*(outcome.value for outcome in OutcomeClass), *NOT_BAD, "bad"})
"""Words that mean something already where classes are named."""


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


def _default(of: Outcome) -> Callable[[], Tolerated]:
    tolerance = DEFAULT_TOLERANCES[of]
    said = {"at_most": share_text(tolerance.at_most), "then": tolerance.then}
    return lambda: Tolerated.model_validate(said)


Holding = Annotated[Tolerated, BeforeValidator(_holding)]


def _read_patterns(value: object) -> tuple[str, ...]:
    """In the order of the alphabet: it means nothing in which they are written."""
    if not isinstance(value, list | tuple) or not value:
        raise problem(f'must be a list of error codes and patterns such as ["NET-*", E17], not {shown(value)}.')
    if len(value) > MOST_PATTERNS:
        raise problem(f"has {len(value)} codes; {MOST_PATTERNS} at most can stand for one class.")
    for each in value:
        if not isinstance(each, str):
            raise problem(f"has {shown(each)}, which is no text; write it in quotes if it is an error code.")
        if not 0 < len(each) <= LONGEST_PATTERN or not each.isprintable() or each != each.strip():
            raise problem(
                f"has {shown(each)}; a code or pattern has 1 to {LONGEST_PATTERN} printable characters and neither"
                " begins nor ends with a space."
            )
    if len(set(value)) < len(value):
        twice = next(each for each in value if value.count(each) > 1)
        raise problem(f"names {shown(twice)} twice.")
    return tuple(sorted(value))


class OwnClass(Document):
    """A class of the operator's own: the failures with certain error codes, with a tolerance and an answer."""

    match: Annotated[
        tuple[str, ...],
        PlainValidator(_read_patterns),
        PlainSerializer(list, when_used="json"),
        WithJsonSchema(
            {
                "type": "array",
                "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_PATTERN},
                "uniqueItems": True,
                "minItems": 1,
                "maxItems": MOST_PATTERNS,
            }
        ),
    ] = Field(
        description="Error codes of failures that count in this class instead of their own: * stands for any text,"
        " ? for one character; upper and lower case differ. The most specific pattern of all classes counts.",
        examples=['["NET-*", E17]'],
    )
    at_most: Risk = Field(description=Tolerated.model_fields["at_most"].description, examples=["10%"])
    then: Annotated[Answer, BeforeValidator(choice(Answer))] = Field(
        default=Answer.HALT, description=Tolerated.model_fields["then"].description
    )

    @property
    def tolerance(self) -> Tolerance:
        return Tolerance(self.at_most, self.then)


_NAME = re.compile(NAME_PATTERN)
_Read = TypeVar("_Read")


def _by_name(read: Callable[[object], _Read]) -> Callable[[object], tuple[tuple[str, _Read], ...]]:
    """A validator of a mapping from names of the operator's own classes: sorted pairs, all that is wrong at once."""

    def read_all(value: object) -> tuple[tuple[str, _Read], ...]:
        if isinstance(value, tuple):
            value = dict(value)
        if not isinstance(value, Mapping):
            raise problem(f"must be a mapping of names of your own, not {shown(value)}.")
        if len(value) > MOST_OWN:
            raise problem(f"has {len(value)} classes; {MOST_OWN} at most.")
        wrong: list[Problem] = []
        found: dict[str, _Read] = {}
        for name, below in value.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                sentence = "is no name for a class: small letters, digits and . _ -, beginning with a letter or digit."
                wrong.append(Problem((str(name),), sentence))
            elif name in TAKEN:
                wrong.append(Problem((name,), "means something already: give the class another name."))
            else:
                try:
                    found[name] = read(below)
                except ValidationError as error:
                    wrong += [Problem((name, *each.path), each.sentence) for each in problems_of(error)]
                except PydanticCustomError as error:
                    wrong.append(Problem((name,), error.message()))
        if wrong:
            raise problems_at(wrong)
        return tuple(sorted(found.items(), key=lambda pair: pair[0]))

    return read_all


OwnClasses = Annotated[
    tuple[tuple[str, OwnClass], ...],
    PlainValidator(_by_name(OwnClass.model_validate), json_schema_input_type=dict[str, OwnClass]),
    PlainSerializer(lambda pairs: {name: own.document() for name, own in pairs}, when_used="json"),
]


class Tolerate(Document):
    """Per outcome class: the probability that is still acceptable, and what happens above it."""

    failed: Tolerated = Field(
        default_factory=_default(OutcomeClass.FAILED), description="Could not install, or does not work. Default 2%."
    )
    verify_failed: Tolerated | None = Field(
        default=None,
        description="What it fetched or wrote is not what it should be. Without the key it counts as failed.",
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
    codes: OwnClasses = Field(
        default=(),
        json_schema_extra={
            "propertyNames": {"pattern": NAME_PATTERN, "not": {"enum": [*sorted(TAKEN)]}},
            "maxProperties": MOST_OWN,
        },
        description="Classes of your own by the error code of the failure, by the names you give them. Default none.",
        examples=['{modem: {match: ["NET-*"], at_most: 10%, then: hold}}'],
    )

    @model_validator(mode="after")
    def _one_class_for_a_code(self) -> Self:
        if (clash := first_clash({name: own.match for name, own in self.codes})) is not None:
            one, of_one, other, of_other = clash
            raise problems_at(
                [
                    Problem(
                        ("codes",),
                        f"has {shown(one)} in {of_one} and {shown(other)} in {of_other}: they could match the same code"
                        " and neither is more specific. Write one of them with more characters.",
                    )
                ]
            )
        return self

    def silence(self, *, learnt: bool) -> Tolerance:
        """What the policy says of silence, its default included: where the darkness of the fleet is ``learnt``, what is
        tolerated on top of that."""
        if self.silent is not None:
            return self.silent.tolerance
        return LEARNT_SILENCE if learnt else DEFAULT_TOLERANCES[OutcomeClass.SILENT]

    @classmethod
    def unknown_key(cls, key: str) -> str:
        if key.startswith("error") or any(mark in key for mark in ":/."):
            return (
                "is no class; one of your own by error codes stands below codes, with a name: {match, at_most, then}."
            )
        return super().unknown_key(key)

    @property
    def tolerances(self) -> dict[Outcome, Tolerance]:
        """Of every class that is counted by itself, defaults included: the built-in ones, then those by code. As
        long as no darkness is learnt: ``Policy.tolerances_over``."""
        built_in = ((each, getattr(self, each.value)) for each in OutcomeClass)
        found: dict[Outcome, Tolerance] = {
            name: self.silence(learnt=False) if name is OutcomeClass.SILENT else tolerated.tolerance
            for name, tolerated in built_in
            if tolerated is not None or name is OutcomeClass.SILENT
        }
        return {**found, **{name: own.tolerance for name, own in self.codes}}

    @property
    def classes(self) -> Classes:
        """Which failure counts in which class."""
        return classes_of({name: own.match for name, own in self.codes}, verify=self.verify_failed is not None)


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


OwnLimits = Annotated[
    tuple[tuple[str, Limit], ...],
    PlainValidator(_by_name(_read_limit), json_schema_input_type=dict[str, LimitField]),
    PlainSerializer(lambda pairs: {name: limit.text() for name, limit in pairs}, when_used="json"),
]


class Budget(Document):
    """Hard stops, checked first and outside ``false_halt``; a class without one gets the computed default."""

    failed: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    verify_failed: LimitField | None = Field(
        default=None, description="A count of devices or a share of the rollout's; only beside tolerate.verify_failed."
    )
    rolled_back: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    silent: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    ignored: LimitField | None = Field(default=None, description="A count of devices or a share of the rollout's.")
    download_failed: LimitField | None = Field(
        default=None, description="A count of devices or a share of the rollout's."
    )
    codes: OwnLimits = Field(
        default=(), description="The same for classes of your own, by their names in tolerate.codes."
    )

    def limit(self, of: Outcome) -> Limit | None:
        """What the operator set for the class; None: use the computed default."""
        return self.limits.get(of)

    @property
    def limits(self) -> dict[Outcome, Limit]:
        """All that the operator set, by class."""
        built_in = ((each, getattr(self, each.value)) for each in OutcomeClass)
        found: dict[Outcome, Limit] = {each: limit for each, limit in built_in if limit is not None}
        return {**found, **dict(self.codes)}
