"""The policy file as it is bound to a rollout: what is tolerated, how long to watch, when to wait for a person.

Every key that is accepted is enforced; what a later version will know is refused by name (RULES 7.8). What a key does
is said in RULES.md; here is what may be written, and the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from orchestrator.core.approving import Approve
from orchestrator.core.document import (
    Allowance,
    Document,
    Duration,
    DurationOrNone,
    Name,
    Problem,
    Share,
    choice,
    problem,
    problems_at,
    some,
)
from orchestrator.core.durations import (
    duration_text,
    share_text,
    shown,
)
from orchestrator.core.evidence.confident import rate_of
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.gates import Gate, each_once, read_gates
from orchestrator.core.notices import MOST_DESTINATIONS, Asked, told_of
from orchestrator.core.outcomes import Outcome, OutcomeClass, Tolerance
from orchestrator.core.pace import Pace
from orchestrator.core.slicing import Slices
from orchestrator.core.stopping import OnHalt, OnHaltField
from orchestrator.core.tolerances import DEFAULT_TOLERANCES, Budget, Limit, Tolerate, Tolerated
from orchestrator.core.window import Window

DIMENSION: Final = re.compile(r"hardware_id|source_version|label:[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""In which ways devices can be alike."""

MOST_DIMENSIONS: Final = 8
"""Each takes an equal part of ``false_exclude``, and every device has a place in each."""


class Otherwise(StrEnum):
    """What to do about devices whose delta is not there when ``within`` is over."""

    HOLD = "hold"
    FULL = "full"
    SKIP = "skip"


class Early(StrEnum):
    """Whether a wave may pass before its bake is over."""

    NEVER = "never"
    CONFIDENT = "confident"


class OnSegment(StrEnum):
    """What to do when the monitor of a segment crosses."""

    EXCLUDE = "exclude"
    HALT = "halt"


class FromUnknown(StrEnum):
    """What to do about devices whose commit is not in the repository."""

    FULL = "full"
    SKIP = "skip"


class UnhealthyBefore(StrEnum):
    """What to do about devices that said that they were unhealthy when they were offered the Target."""

    COUNT = "count"
    EXCLUDE = "exclude"


class Promotion(StrEnum):
    """Who lets a wave open."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


def _read_promotion(value: object) -> Promotion:
    if isinstance(value, Mapping):
        approvals = value.get("approvals")
        if set(value) != {"approvals"} or type(approvals) is not int or approvals < 1:
            raise problem("must be automatic, manual or {approvals: 1}.")
        if approvals > 1:
            raise problem(
                f"takes one promotion, not {approvals}: a second person's word is asked for by approve: {{open: 1}}. "
                "Allowed are automatic, manual and {approvals: 1}."
            )
        return Promotion.MANUAL
    return choice(Promotion)(value)


def _read_dimensions(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise problem(f"must be a list such as [hardware_id, label:region], not {shown(value)}.")
    for each in value:
        if not isinstance(each, str) or not DIMENSION.fullmatch(each):
            raise problem(f"has {shown(each)}; a dimension is hardware_id, source_version or label:KEY.")
    if len(set(value)) < len(value):
        twice = next(each for each in value if value.count(each) > 1)
        raise problem(f"names {twice} twice.")
    if len(value) > MOST_DIMENSIONS:
        raise problem(f"has {len(value)} dimensions; {MOST_DIMENSIONS} at most can be watched.")
    return tuple(value)


def _always_is_none(value: object) -> object:
    return None if value == "always" else value


class Deltas(Document):
    """What must be built before a wave opens."""

    cover: Share = Field(
        default=1.0, description="Share of the wave's reachable devices that must have a delta. Default 100%."
    )
    within: DurationOrNone = Field(
        default=timedelta(hours=6), description="How long to wait for that before `otherwise` applies. Default 6h."
    )
    otherwise: Annotated[Otherwise, BeforeValidator(choice(Otherwise))] = Field(
        default=Otherwise.HOLD,
        description="After that: hold the wave, serve the uncovered in full, or skip them for now. Default hold.",
    )
    from_unknown: Annotated[FromUnknown, BeforeValidator(choice(FromUnknown))] = Field(
        default=FromUnknown.FULL,
        description="Devices whose commit is not in the repository: full or skip. Default full.",
    )


class Bake(Document):
    """How long a wave is watched, in reports with a floor and a ceiling in time."""

    at_least: DurationOrNone = Field(default=timedelta(hours=12), description="Never shorter than this. Default 12h.")
    reports: Share = Field(default=0.95, description="Share of the offers that must have an outcome. Default 95%.")
    at_most: Duration = Field(
        default=timedelta(hours=48), description="When this is over, the wave holds for a person. Default 2d."
    )
    early: Annotated[Early, BeforeValidator(choice(Early))] = Field(
        default=Early.NEVER,
        description="confident: it passes before `at_least` and `reports` when it is proven, at 95 %, that fewer than "
        "the tolerated part fail, with every device that has not confirmed counted as failed. Default never.",
    )

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> Self:
        if self.at_most < self.at_least:
            raise problem(
                f"has at_most {duration_text(self.at_most)} below at_least {duration_text(self.at_least)}; "
                f"give an at_most of at least {duration_text(self.at_least)}."
            )
        return self


Dimensions = Annotated[
    tuple[str, ...],
    PlainValidator(_read_dimensions),
    PlainSerializer(list, when_used="json"),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "pattern": f"^({DIMENSION.pattern})$"},
            "uniqueItems": True,
            "maxItems": MOST_DIMENSIONS,
        }
    ),
]

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


Gates = Annotated[tuple[Gate, ...], BeforeValidator(read_gates)]


class Policy(Document):
    """What a release manager decides beforehand, on one page."""

    later: ClassVar[Mapping[str, str]] = {
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
    segments: Dimensions = Field(
        default=(),
        description="Dimensions of which each value is watched by itself: hardware_id, source_version, label:KEY."
        " Default none.",
        examples=[["hardware_id", "source_version", "label:region"]],
    )
    false_exclude: Allowance = Field(
        default=0.05,
        description="Chance that a segment within its tolerance is excluded by mistake, in all. Default 5%.",
    )
    on_segment: Annotated[OnSegment, BeforeValidator(choice(OnSegment))] = Field(
        default=OnSegment.EXCLUDE,
        description="A segment that fails: exclude it and go on with the rest, or halt. Default exclude.",
    )
    escalate_over: Share = Field(
        default=0.2,
        description="With more than this share of the rollout's devices excluded it halts instead. Default 20%.",
    )
    budget: Budget = Field(default_factory=Budget, description="Hard stops of the operator's own, checked first.")
    on_halt: OnHaltField | None = Field(
        default=None,
        description="A halt always takes back offers that have not started: withdraw. With cancel, devices that have"
        " started are told to stop too, where their protocol knows how. With notify, everybody named in notify is told."
        " Default [withdraw].",
        examples=[["withdraw", "cancel"]],
    )
    unhealthy_before: Annotated[UnhealthyBefore, BeforeValidator(choice(UnhealthyBefore))] = Field(
        default=UnhealthyBefore.COUNT,
        description="Devices that said that they were unhealthy at their offer: count them as all others, or exclude"
        " them from what is counted. Default count.",
    )
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
    deltas: Deltas = Field(default_factory=Deltas, description="The deltas that must be there before a wave opens.")
    bake: Bake = Field(default_factory=Bake, description="How long a wave is watched.")
    promote: PromotionField = Field(
        default=Promotion.AUTOMATIC,
        description="Who lets a wave open: automatic (default), manual, or {approvals: 1}, the same as manual.",
    )
    gates: Gates | None = Field(
        default=None,
        description="What is asked outside before a wave opens: all must say yes. Default: nothing.",
        examples=["[{gate: errors, asks: prometheus, query: 'sum(errors)', below: 5}]"],
    )
    # None and not its defaults: the bound copies of policies that do not have it keep their digests.
    approve: Approve | None = Field(
        default=None,
        description="How many other people must approve what. Default none.",
        examples=[{"start": 1, "open": 1, "resume": 1}],
    )
    window: MaybeWindow = Field(
        default=None, description="When waves may open and pass by themselves. Default 'always'."
    )
    offer_window: MaybeWindow = Field(default=None, description="When offers may be given. Default 'always'.")
    pace: Pace | None = Field(default=None, description="How fast offers are given. Default: no limit.")
    notify: Annotated[tuple[Asked, ...], BeforeValidator(some(MOST_DESTINATIONS))] | None = Field(
        default=None,
        description="Who is told of what: a list of destinations of the installation. Default: nobody.",
        examples=["[{to: oncall, on: [halted, held]}]"],
    )

    @model_validator(mode="after")
    def _confident_of_something(self) -> Self:
        rate = rate_of(self.tolerances)
        if self.bake.early is Early.CONFIDENT and not 0.0 < rate < 1.0:
            what = f"those that halt sum to {share_text(rate)}" if rate else "no class halts"
            sentence = f"needs classes that halt, with tolerances of less than 100% together; {what}."
            raise problems_at([Problem(("bake", "early"), sentence)])
        return self

    @model_validator(mode="after")
    def _budgets_of_classes_that_count(self) -> Self:
        own = [name for name, _ in self.tolerate.codes]
        wrong = [
            Problem(
                ("budget", "codes", name),
                f"is no class of tolerate.codes{_those(own)}.",
            )
            for name, _ in self.budget.codes
            if name not in own
        ]
        if self.budget.verify_failed is not None and self.tolerate.verify_failed is None:
            sentence = "needs tolerate.verify_failed: without it a failed verification counts as failed."
            wrong.append(Problem(("budget", "verify_failed"), sentence))
        if wrong:
            raise problems_at(wrong)
        return self

    @model_validator(mode="after")
    def _names_each_gate_once(self) -> Self:
        each_once(self.gates or ())
        return self

    @model_validator(mode="after")
    def _notifies_somebody(self) -> Self:
        if self.notify is None:
            if self.on_halt is not None and OnHalt.NOTIFY in self.on_halt:
                raise problems_at([Problem(("on_halt",), "has notify, and the key notify names nobody to be told.")])
            return self
        names = [asked.to for asked in self.notify]
        twice = [place for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise problems_at([Problem(("notify", twice[0], "to"), f"names {names[twice[0]]} a second time.")])
        return self

    def told_of(self, event: str, by: str) -> tuple[str, ...]:
        """The destinations that are told of a journal entry of that event by that person or by the policy."""
        of_halts = self.on_halt is not None and OnHalt.NOTIFY in self.on_halt
        return told_of(self.notify or (), event, by, all_of_halts=of_halts)

    @property
    def cancels(self) -> bool:
        """Whether a halt tells devices that have started to stop."""
        return self.on_halt is not None and OnHalt.CANCEL in self.on_halt

    @property
    def approvals(self) -> Approve:
        return self.approve or Approve()

    @property
    def tolerances(self) -> Mapping[Outcome, Tolerance]:
        """Of every class that is counted by itself, defaults included, as long as no darkness is learnt."""
        return self.tolerances_over(None)

    def tolerances_over(self, dark: Darkness | None, *, segment: bool = False) -> Mapping[Outcome, Tolerance]:
        """The same where a part of the devices stays silent whatever the release, of the fleet or of a ``segment``;
        None: nothing is learnt. What the policy says of silence comes on top of it."""
        silent = self.tolerate.silence(learnt=dark is not None)
        if dark is not None:
            silent = silent.over(dark.segment if segment else dark.fleet)
        return {**self.tolerate.tolerances, OutcomeClass.SILENT: silent}


def _those(names: Iterable[str]) -> str:
    known = ", ".join(sorted(names))
    return f", which are {known}" if known else ", and there is none"


__all__ = [
    "DEFAULT_TOLERANCES",
    "Approve",
    "Bake",
    "Budget",
    "Deltas",
    "Early",
    "FromUnknown",
    "Limit",
    "OnHalt",
    "OnSegment",
    "Otherwise",
    "Pace",
    "Policy",
    "Promotion",
    "Slices",
    "Tolerate",
    "Tolerated",
    "UnhealthyBefore",
]
