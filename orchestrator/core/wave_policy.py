"""What one wave may change of the policy: single keys, merged into the rest and judged with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from orchestrator.core.approving import ApproveOverride
from orchestrator.core.document import (
    Document,
    Duration,
    DurationOrNone,
    InvalidDocument,
    KeyPath,
    Problem,
    Share,
    choice,
    merged,
)
from orchestrator.core.pace import Pace
from orchestrator.core.policy import Bake, Deltas, Early, FromUnknown, Gates, Otherwise, Policy, PromotionField
from orchestrator.core.window import Days, Exceptions, HoursField, Window, Zone


def _as_in(kind: type[Document], name: str) -> Any:
    """A field that may be left out and is described as the one that it replaces."""
    return Field(default=None, description=kind.model_fields[name].description)


class BakeOverride(Document):
    """Single keys of ``bake``."""

    at_least: DurationOrNone | None = _as_in(Bake, "at_least")
    reports: Share | None = _as_in(Bake, "reports")
    at_most: Duration | None = _as_in(Bake, "at_most")
    early: Annotated[Early, BeforeValidator(choice(Early))] | None = _as_in(Bake, "early")


class DeltasOverride(Document):
    """Single keys of ``deltas``."""

    cover: Share | None = _as_in(Deltas, "cover")
    within: DurationOrNone | None = _as_in(Deltas, "within")
    otherwise: Annotated[Otherwise, BeforeValidator(choice(Otherwise))] | None = _as_in(Deltas, "otherwise")
    from_unknown: Annotated[FromUnknown, BeforeValidator(choice(FromUnknown))] | None = _as_in(Deltas, "from_unknown")


class WindowOverride(Document):
    """Single keys of ``window``."""

    days: Days | None = _as_in(Window, "days")
    hours: HoursField | None = _as_in(Window, "hours")
    timezone: Zone | None = _as_in(Window, "timezone")
    except_: Exceptions | None = Field(
        default=None, alias="except", description=Window.model_fields["except_"].description
    )


def _read_window_override(value: object) -> WindowOverride | Literal["always"]:
    return "always" if value == "always" else WindowOverride.model_validate(value)


class WaveOverride(Document):
    """What one wave may change of the policy: single keys, merged into the rest."""

    promote: PromotionField | None = Field(default=None, description="automatic, manual or {approvals: 1}.")
    window: (
        Annotated[
            WindowOverride | Literal["always"],
            PlainValidator(_read_window_override, json_schema_input_type=WindowOverride | Literal["always"]),
            PlainSerializer(lambda window: window if window == "always" else window.document(), when_used="json"),
        ]
        | None
    ) = Field(default=None, description="Single keys of the policy's window, or 'always'.")
    pace: Pace | None = Field(
        default=None, description="How fast this wave's devices are offered the Target, beside the policy's own pace."
    )
    bake: BakeOverride | None = Field(default=None, description="Single keys of the policy's bake.")
    deltas: DeltasOverride | None = Field(default=None, description="Single keys of the policy's deltas.")
    gates: Gates | None = Field(default=None, description="This wave's gates instead of the policy's; [] is none.")
    approve: ApproveOverride | None = Field(
        default=None, description="How many other people must approve its opening; not fewer than in the policy."
    )

    @classmethod
    def unknown_key(cls, key: str) -> str:
        if key in Policy.allowed_keys():
            return f"cannot differ from wave to wave; a wave may change {', '.join(cls.allowed_keys())}."
        if key in Policy.later:
            return Policy.unknown_key(key)
        return super().unknown_key(key)


def policy_for(policy: Policy, overrides: WaveOverride | None) -> Policy:
    """The policy with one wave's single keys. Raises InvalidDocument when the two do not fit together."""
    if overrides is None:
        return policy
    own = None if overrides.approve is None else overrides.approve.open
    if own is not None and own < policy.approvals.open:
        sentence = f"is below the policy's {policy.approvals.open}: a wave may only ask for more."
        raise InvalidDocument([Problem(("approve", "open"), sentence)])
    return Policy.parse(merged(policy.document(), overrides.document()))


def wave_policy_problems(policy: Policy, overrides: WaveOverride, at: KeyPath) -> tuple[Problem, ...]:
    """What is wrong with a wave's override under this policy; ``at`` is where the override stands in its file."""
    try:
        policy_for(policy, overrides)
    except InvalidDocument as error:
        return tuple(Problem((*at, *each.path), each.sentence) for each in error.problems)
    return ()
