"""The policy file as it is bound to a rollout: what is tolerated, how long to watch, when to wait for a person.

Every key that is accepted is enforced; what a later version will know is refused by name (RULES 7.8). What a key does
is said in RULES.md; here is what may be written, and the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from orchestrator.core.document import (
    Allowance,
    Count,
    Document,
    Duration,
    DurationOrNone,
    InvalidDocument,
    KeyPath,
    Name,
    Problem,
    Risk,
    Share,
    merged,
    one_of,
    problem,
)
from orchestrator.core.durations import devices_in, duration_text, parse_share, share_text, shown
from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from orchestrator.core.window import Days, Exceptions, HoursField, Window, Zone
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
"""For a class that the policy does not name. Silence holds instead of halting: there is no history yet (RULES 4.6)."""

_HOLDS_BY_DEFAULT = frozenset({OutcomeClass.IGNORED, OutcomeClass.DOWNLOAD_FAILED})
"""Classes whose cause is often not the release: named without ``then``, they hold; the others halt."""


class Otherwise(StrEnum):
    """What to do about devices whose delta is not there when ``within`` is over."""

    HOLD = "hold"
    FULL = "full"
    SKIP = "skip"


class FromUnknown(StrEnum):
    """What to do about devices whose commit is not in the repository."""

    FULL = "full"
    SKIP = "skip"


class Promotion(StrEnum):
    """Who lets a wave open."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice]) -> Callable[[object], _Choice]:
    def read(value: Any) -> _Choice:
        try:
            return kind(value)
        except ValueError:
            raise problem(one_of(value, [each.value for each in kind])) from None

    return read


def _read_promotion(value: object) -> Promotion:
    if isinstance(value, Mapping):
        approvals = value.get("approvals")
        if set(value) != {"approvals"} or type(approvals) is not int or approvals < 1:
            raise problem("must be automatic, manual or {approvals: 1}.")
        if approvals > 1:
            raise problem(
                f"is not in this version with {approvals} approvals: more than one needs accounts. "
                "Allowed are automatic, manual and {approvals: 1}."
            )
        return Promotion.MANUAL
    return _choice(Promotion)(value)


def _read_pace(value: object) -> object:
    if value == "evidence":
        raise problem("is not in this version as 'evidence'. Allowed is {in_flight: 500}.")
    return value


def _always_is_none(value: object) -> object:
    return None if value == "always" else value


def _growth(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= 2:
        raise problem(
            f"must be a number above 1 and at most 2 (a slice is never larger than all before it), not {shown(value)}."
        )
    return float(value)


class Tolerated(Document):
    """One outcome class: a share, or ``{at_most: share, then: halt | hold | count}``."""

    at_most: Risk = Field(
        description="The probability of this outcome that is still acceptable: above 0%, below 100%.", examples=["2%"]
    )
    then: Annotated[Answer, BeforeValidator(_choice(Answer))] = Field(
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
    schema |= {"description": description, "anyOf": [_SHARE_SCHEMA, whole]}
    return schema


_SHARE_SCHEMA = {"type": "string", "pattern": r"^[0-9]{1,2}(\.[0-9]{1,6})?%$", "examples": ["2%", "0.5%"]}


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
    silent: Tolerated = Field(
        default_factory=_default(OutcomeClass.SILENT),
        description="Not heard of within silent_after. Without the key: 5%, then hold.",
    )
    ignored: Holding = Field(
        default_factory=_default(OutcomeClass.IGNORED),
        description="Came back three times and never started. Default 15%, then hold.",
    )
    download_failed: Holding = Field(
        default_factory=_default(OutcomeClass.DOWNLOAD_FAILED),
        description="Could not fetch the content. Default 15%, then hold.",
    )

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
        if value < 1:
            raise problem(f"must be a count of at least 1 device or a share such as 3%, not {value}.")
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
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)%$"},
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


class Slices(Document):
    """How a wave opens: ``first`` devices, then as many as it has had so far (times ``growth - 1``)."""

    first: Count = Field(default=20, description="Devices in the first slice of a wave. Default 20.")
    growth: Annotated[
        float,
        BeforeValidator(_growth),
        PlainSerializer(lambda growth: int(growth) if growth == int(growth) else growth, when_used="json"),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 1, "maximum": 2}),
    ] = Field(default=2.0, description="The wave after a slice, as a multiple of before: above 1, at most 2.")

    def next_size(self, so_far: int) -> int:
        """How many devices the next slice has when the wave's slices had ``so_far``; at least one."""
        return self.first if so_far <= 0 else max(1, int(so_far * (Fraction(repr(self.growth)) - 1)))


class Deltas(Document):
    """What must be built before a wave opens."""

    cover: Share = Field(
        default=1.0, description="Share of the wave's reachable devices that must have a delta. Default 100%."
    )
    within: DurationOrNone = Field(
        default=timedelta(hours=6), description="How long to wait for that before `otherwise` applies. Default 6h."
    )
    otherwise: Annotated[Otherwise, BeforeValidator(_choice(Otherwise))] = Field(
        default=Otherwise.HOLD,
        description="After that: hold the wave, serve the uncovered in full, or skip them for now. Default hold.",
    )
    from_unknown: Annotated[FromUnknown, BeforeValidator(_choice(FromUnknown))] = Field(
        default=FromUnknown.FULL,
        description="Devices whose commit is not in the repository: full or skip. Default full.",
    )


class Bake(Document):
    """How long a wave is watched, in reports with a floor and a ceiling in time."""

    later: ClassVar[Mapping[str, str]] = {"early": ""}

    at_least: DurationOrNone = Field(default=timedelta(hours=12), description="Never shorter than this. Default 12h.")
    reports: Share = Field(default=0.95, description="Share of the offers that must have an outcome. Default 95%.")
    at_most: Duration = Field(
        default=timedelta(hours=48), description="When this is over, the wave holds for a person. Default 2d."
    )

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> Self:
        if self.at_most < self.at_least:
            raise problem(
                f"has at_most {duration_text(self.at_most)} below at_least {duration_text(self.at_least)}; "
                f"give an at_most of at least {duration_text(self.at_least)}."
            )
        return self


class Pace(Document):
    """How many devices may be at it at once."""

    later: ClassVar[Mapping[str, str]] = {"per": "Allowed is in_flight.", "rate": "Allowed is in_flight."}

    in_flight: Count = Field(
        description="Devices with an offer and no outcome, at most, over the whole rollout.", examples=[500]
    )


MaybeWindow = Annotated[
    Window | None, BeforeValidator(_always_is_none, json_schema_input_type=Window | Literal["always"])
]
PromotionField = Annotated[
    Promotion,
    BeforeValidator(_read_promotion),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["automatic", "manual"]},
                {
                    "type": "object",
                    "properties": {"approvals": {"const": 1}},
                    "required": ["approvals"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class BakeOverride(Document):
    """Single keys of ``bake``."""

    later: ClassVar[Mapping[str, str]] = Bake.later
    at_least: DurationOrNone | None = None
    reports: Share | None = None
    at_most: Duration | None = None


class DeltasOverride(Document):
    """Single keys of ``deltas``."""

    cover: Share | None = None
    within: DurationOrNone | None = None
    otherwise: Annotated[Otherwise, BeforeValidator(_choice(Otherwise))] | None = None
    from_unknown: Annotated[FromUnknown, BeforeValidator(_choice(FromUnknown))] | None = None


class WindowOverride(Document):
    """Single keys of ``window``."""

    days: Days | None = None
    hours: HoursField | None = None
    timezone: Zone | None = None
    except_: Exceptions | None = Field(default=None, alias="except")


def _read_window_override(value: object) -> WindowOverride | Literal["always"]:
    return "always" if value == "always" else WindowOverride.model_validate(value)


class WaveOverride(Document):
    """What one wave may change of the policy: single keys, merged into the rest (RULES 5, 7.4)."""

    promote: PromotionField | None = Field(default=None, description="automatic, manual or {approvals: 1}.")
    window: (
        Annotated[
            WindowOverride | Literal["always"],
            PlainValidator(_read_window_override, json_schema_input_type=WindowOverride | Literal["always"]),
        ]
        | None
    ) = Field(default=None, description="Single keys of the policy's window, or 'always'.")
    pace: Annotated[Pace, BeforeValidator(_read_pace)] | None = None
    bake: BakeOverride | None = Field(default=None, description="Single keys of the policy's bake.")
    deltas: DeltasOverride | None = Field(default=None, description="Single keys of the policy's deltas.")

    @classmethod
    def unknown_key(cls, key: str) -> str:
        if key in Policy.allowed_keys():
            return f"cannot differ from wave to wave; a wave may change {', '.join(cls.allowed_keys())}."
        if key in Policy.later:
            return Policy.unknown_key(key)
        return super().unknown_key(key)


class Policy(Document):
    """What a release manager decides beforehand, on one page."""

    later: ClassVar[Mapping[str, str]] = {
        "segments": "The whole rollout is watched as one.",
        "false_exclude": "It belongs to segments.",
        "on_segment": "It belongs to segments.",
        "escalate_over": "It belongs to segments.",
        "early": "",
        "notify": "",
        "on_halt": "A halt always withdraws the offers of devices that have not started.",
        "gates": "For a person's word before a wave opens, write promote: manual.",
        "observe_only": "To only count a class, write {at_most: 2%, then: count}.",
        "retain": "",
    }

    name: Name = Field(alias="policy", description="The policy's name, as its file is named.", examples=["standard"])
    tolerate: Tolerate = Field(
        default_factory=Tolerate, description="Per outcome class: the probability that is still acceptable."
    )
    false_halt: Allowance = Field(
        default=0.05,
        description="Chance that a release within its tolerance is halted by mistake, in all. Default 5%.",
    )
    budget: Budget = Field(default_factory=Budget, description="Hard stops of the operator's own, checked first.")
    silent_after: Duration = Field(
        default=timedelta(hours=24), description="No outcome for this long since the start is silence. Default 24h."
    )
    slices: Slices = Field(default_factory=Slices, description="How a wave opens, slice by slice.")
    slice_at_most: Duration = Field(
        default=timedelta(hours=24),
        description="After this the next slice opens if half of the last is confirmed, else it holds. Default 24h.",
    )
    reach: Duration = Field(
        default=timedelta(days=7),
        description="Devices seen in this time before a wave opens are reachable. Default 7d.",
    )
    open_at_most: Duration = Field(
        default=timedelta(days=7), description="After this the bake starts whoever was not offered yet. Default 7d."
    )
    deltas: Deltas = Field(default_factory=Deltas, description="What must be built before a wave opens.")
    bake: Bake = Field(default_factory=Bake, description="How long a wave is watched.")
    promote: PromotionField = Field(
        default=Promotion.AUTOMATIC,
        description="Who lets a wave open: automatic (default), manual, or {approvals: 1}, the same as manual.",
    )
    window: MaybeWindow = Field(
        default=None, description="When waves may open and pass by themselves. Default 'always'."
    )
    offer_window: MaybeWindow = Field(default=None, description="When offers may be given. Default 'always'.")
    pace: Annotated[Pace, BeforeValidator(_read_pace)] | None = Field(
        default=None, description="How many devices may be at it at once. Default: no limit."
    )

    @property
    def tolerances(self) -> Mapping[OutcomeClass, Tolerance]:
        """Of every class, defaults included."""
        return {each: getattr(self.tolerate, each.value).tolerance for each in OutcomeClass}

    @property
    def needs_promotion(self) -> bool:
        return self.promote is Promotion.MANUAL

    def for_wave(self, overrides: WaveOverride | None) -> Policy:
        """This policy with one wave's single keys. Raises InvalidDocument when the two do not fit together."""
        if overrides is None:
            return self
        return Policy.parse(merged(self.document(), overrides.document()))


def wave_policy_problems(policy: Policy, overrides: WaveOverride, at: KeyPath) -> tuple[Problem, ...]:
    """What is wrong with a wave's override under this policy; ``at`` is where the override stands in its file."""
    try:
        policy.for_wave(overrides)
    except InvalidDocument as error:
        return tuple(Problem((*at, *each.path), each.sentence) for each in error.problems)
    return ()
