"""The rollout file: one Target, the devices of one tag, the waves in the order they may open.

Wave order is a graph: ``after`` names what must have passed, without it the wave above; the first has none. Membership
follows the order of the file instead (RULES 5.5): a device belongs to the first wave whose selector takes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

import networkx as nx
from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from orchestrator.core.document import (
    NAME_PATTERN,
    Count,
    Document,
    Name,
    Problem,
    Share,
    Word,
    did_you_mean,
    one_of,
    problem,
    problems_at,
    some,
)
from orchestrator.core.durations import shown
from orchestrator.core.fleet import LABEL_KEY_PATTERN, LONGEST_LABEL_VALUE, wrong_key, wrong_value
from orchestrator.core.wave_policy import WaveOverride

MOST_WAVES = 200
LARGEST_VERSION = 2**53 - 1
"""Versions travel through JSON, whose readers are exact up to here."""

Version = Annotated[int, Field(strict=True, ge=1, le=LARGEST_VERSION)]
Labels = tuple[tuple[str, str], ...]


def read_labels(value: object) -> Labels:
    """A mapping of label to value, as sorted pairs; refuses what is not text. Raises pydantic's errors."""
    if isinstance(value, tuple):
        value = dict(value)
    if not isinstance(value, Mapping):
        raise problem(f"must be labels such as {{region: emea}}, not {shown(value)}.")
    problems = []
    for key, text in value.items():
        if wrong := wrong_key(key if isinstance(key, str) else ""):
            problems.append(Problem((str(key),), wrong))
        elif not isinstance(text, str):
            sentence = f"must be text, not {shown(text)}; write it in quotes if it is meant as text."
            problems.append(Problem((key,), sentence))
        elif wrong := wrong_value(text):
            problems.append(Problem((key,), wrong))
    if problems:
        raise problems_at(problems)
    return tuple(sorted(value.items()))


LABELS_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": LABEL_KEY_PATTERN},
    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": LONGEST_LABEL_VALUE},
    "examples": [{"region": "emea"}],
}
LabelsField = Annotated[
    Labels,
    BeforeValidator(read_labels),
    PlainSerializer(dict, return_type=dict[str, str], when_used="json"),
    WithJsonSchema(LABELS_SCHEMA),
]


def _spread(value: object) -> str:
    if value != "hardware_id":
        raise problem(one_of(value, ["hardware_id"]))
    return "hardware_id"


class Devices(Document):
    """A selector: ``all``, or a group and labels that must all hold, with a share or a count of those.

    ``share`` and ``count`` are of the selector's devices that no earlier wave has.
    """

    group: Word | None = Field(default=None, description="Devices of this device group.")
    labels: LabelsField = Field(default=(), description="Devices that carry all of these labels.")
    share: Share | None = Field(default=None, description="Only this share of them, such as 25%.")
    count: Count | None = Field(default=None, description="Only this many of them.")
    spread: Annotated[Literal["hardware_id"], BeforeValidator(_spread)] | None = Field(
        default=None, description="With count: evenly over hardware ids."
    )

    @classmethod
    def unknown_key(cls, key: str) -> str:
        if key == "all":
            return "is written alone, as `devices: all`; leave it out here: {share: 25%} is of all devices."
        return super().unknown_key(key)

    @model_validator(mode="wrap")
    @classmethod
    def _all_alone(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, str):
            if value != "all":
                raise problem(f"must be all, or a mapping such as {{group: lab}}, not {shown(value)}.")
            value = {}
        elif isinstance(value, Mapping) and not value:
            raise problem("is an empty mapping: write `devices: all`, or a group, labels, a share or a count.")
        return handler(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.share is not None and self.count is not None:
            raise problem("has both share and count: one of them is allowed.")
        if self.spread is not None and self.count is None:
            raise problem("has spread without count: write {count: 20, spread: hardware_id}.")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        fields = {key: value for key, value in handler(self).items() if value not in (None, {}, ())}
        return fields or "all"

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        mapping = dict(schema)
        description = mapping.pop("description", "")
        mapping |= {
            "minProperties": 1,
            "not": {"required": ["share", "count"]},
            "dependentRequired": {"spread": ["count"]},
        }
        schema.clear()
        schema |= {"description": description, "anyOf": [{"const": "all"}, mapping]}
        return schema

    @property
    def is_whole(self) -> bool:
        """Takes everything its group and labels select: neither a share below 100 % nor a count."""
        return self.count is None and self.share in (None, 1.0)

    @property
    def is_all(self) -> bool:
        return self.is_whole and self.group is None and not self.labels

    def covers(self, other: Devices) -> bool:
        """Whether every device that ``other`` could take is certainly taken by this one; false when in doubt."""
        if not self.is_whole or (self.group is not None and self.group != other.group):
            return False
        return set(self.labels) <= set(other.labels)

    def __str__(self) -> str:
        parts = [f"group {self.group}"] if self.group else []
        parts += [f"{key}={value}" for key, value in self.labels]
        return " and ".join(parts) or "all devices"


def _read_after(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Wave(Document):
    """One wave as it is written."""

    later: ClassVar[Mapping[str, str]] = {
        "start_at": "It is allowed at the top, for the whole rollout.",
    }

    name: Name = Field(alias="wave", description="The wave's name, unique in the rollout.", examples=["canary"])
    devices: Devices = Field(
        description="Which devices: all, a group, labels, with a share or a count.", examples=["{group: lab}"]
    )
    after: (
        Annotated[
            tuple[Name, ...],
            BeforeValidator(_read_after),
            WithJsonSchema(
                {
                    "anyOf": [
                        {"type": "string", "pattern": NAME_PATTERN},
                        {"type": "array", "items": {"type": "string", "pattern": NAME_PATTERN}},
                    ]
                }
            ),
        ]
        | None
    ) = Field(default=None, description="Waves that must have passed. Without it: the wave above.")
    override: WaveOverride | None = Field(
        default=None, alias="policy", description="Single keys of the policy that differ for this wave."
    )


def _read_start(value: object) -> datetime:
    example = "such as 2026-12-01T09:00:00+01:00 or 2026-12-01T08:00:00Z"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise problem(f"must be a date and time with an offset, {example}, not {shown(value)}.") from None
    if not isinstance(value, datetime):
        raise problem(f"must be a date and time with an offset, {example}, not {shown(value)}.")
    if value.tzinfo is None:
        raise problem(f"has no offset from UTC: write it {example}.")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise problem(f"must be a date and time with an offset, {example}, not {shown(value.isoformat())}.") from None


StartAt = Annotated[
    datetime,
    BeforeValidator(_read_start),
    PlainSerializer(lambda at: at.isoformat().replace("+00:00", "Z"), return_type=str, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def _read_policy_name(value: object) -> str:
    if isinstance(value, Mapping):
        raise problem("must be the name of a policy or a path to one; single keys may differ per wave.")
    if not isinstance(value, str):
        raise problem(f"must be the name of a policy or a path to one, not {shown(value)}.")
    is_path = "/" in value or value.endswith((".yaml", ".yml", ".json"))
    if not value.isprintable() or len(value) > 1024 or not (is_path or re.fullmatch(NAME_PATTERN, value)):
        raise problem(
            f"must be the name of a policy (such as standard) or a path (such as ./mine.yaml), not {shown(value)}."
        )
    return value


def _excluded(value: object) -> str:
    if value != "others":
        raise problem(
            f"must be 'others' (devices that no wave names are not eligible) or be left out, not {shown(value)}."
        )
    return "others"


class RolloutFile(Document):
    """One Target to the devices of one tag, in waves, under one policy."""

    later: ClassVar[Mapping[str, str]] = {
        "barriers": "",
        "segments": "",
    }

    name: Name = Field(alias="rollout", description="The rollout's name.", examples=["lmp-42"])
    target: Version = Field(description="The Target's version; every hardware id that has it.", examples=[42])
    tag: Word = Field(description="The devices that follow this tag.", examples=["promoted"])
    policy: Annotated[str, BeforeValidator(_read_policy_name)] = Field(
        description="The name of a policy, or a path to one.", examples=["standard"]
    )
    waves: Annotated[tuple[Wave, ...], BeforeValidator(some(MOST_WAVES))] = Field(
        description="The waves, in the order of membership.",
        examples=["[{wave: all, devices: all}]"],
        json_schema_extra={"minItems": 1, "maxItems": MOST_WAVES},
    )
    start_at: StartAt | None = Field(default=None, description="When the rollout starts by itself; with an offset.")
    supersedes: Name | None = Field(default=None, description="The live rollout that is cancelled when this starts.")
    allow_older: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Permit a lower version, for the devices that run what `running` names."
    )
    running: tuple[Version, ...] = Field(
        default=(), description="With allow_older: the versions that may go back.", examples=["[42]"]
    )
    excluded: Annotated[Literal["others"], BeforeValidator(_excluded)] | None = Field(
        default=None, description="'others': devices that no wave names are not eligible."
    )

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        problems = [*self._order_problems(), *self._membership_problems()]
        if self.supersedes == self.name:
            problems.append(Problem(("supersedes",), "names this rollout itself."))
        if self.allow_older and not self.running:
            problems.append(Problem(("running",), "is missing: allow_older needs the versions that may go back."))
        if self.running and not self.allow_older:
            problems.append(Problem(("running",), "is allowed only with allow_older: true."))
        for index, version in enumerate(self.running if self.allow_older else ()):
            if version <= self.target:
                sentence = f"must be above the target {self.target}, not {version}: only a newer version can go back."
                problems.append(Problem(("running", index), sentence))
        if problems:
            raise problems_at(problems)
        return self

    def _order_problems(self) -> list[Problem]:
        names: dict[str, int] = {}
        problems = []
        for index, wave in enumerate(self.waves):
            if wave.name in names:
                sentence = f"is the name of waves[{names[wave.name]}] too: each wave needs its own."
                problems.append(Problem(("waves", index, "wave"), sentence))
            names.setdefault(wave.name, index)
        for index, wave in enumerate(self.waves):
            for place, before in enumerate(wave.after or ()):
                if before not in names:
                    sentence = f"names no wave of this rollout: {shown(before)}.{did_you_mean(before, names)}"
                    problems.append(Problem(("waves", index, "after", place), sentence))
                elif before in (wave.after or ())[:place]:
                    problems.append(Problem(("waves", index, "after", place), f"names {shown(before)} a second time."))
        if not problems and not nx.is_directed_acyclic_graph(self.graph):
            cycle = [edge[0] for edge in nx.find_cycle(self.graph)]
            start = min(range(len(cycle)), key=lambda at: names[cycle[at]])
            cycle = [*cycle[start:], *cycle[:start], cycle[start]]
            sentence = f"goes round in a circle, so that none could ever open: {' → '.join(cycle)}."
            problems.append(Problem(("waves", names[cycle[0]], "after"), sentence))
        return problems

    def _membership_problems(self) -> list[Problem]:
        problems = []
        for index, wave in enumerate(self.waves):
            taken_by = next((each for each in self.waves[:index] if each.devices.covers(wave.devices)), None)
            if taken_by is not None:
                sentence = (
                    f"can never have a device: wave {taken_by.name} above takes {taken_by.devices}. "
                    f"Put {wave.name} above {taken_by.name}, or give {taken_by.name} a share."
                )
                problems.append(Problem(("waves", index, "devices"), sentence))
        whole = next((wave for wave in self.waves if wave.devices.is_all), None)
        if whole is None and self.excluded is None:
            sentence = (
                "leave some devices in no wave: end with a wave of `devices: all` (no share, no count), "
                "or write `excluded: others` at the top if those are to be left out."
            )
            problems.append(Problem(("waves",), sentence))
        if whole is not None and self.excluded is not None:
            sentence = f"excludes nobody: wave {whole.name} takes all devices. Leave out one of the two."
            problems.append(Problem(("excluded",), sentence))
        return problems

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """An edge from each wave to those that come after it; nodes in file order."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(wave.name for wave in self.waves)
        for index, wave in enumerate(self.waves):
            above = (self.waves[index - 1].name,) if index else ()
            graph.add_edges_from((before, wave.name) for before in (above if wave.after is None else wave.after))
        return graph

    def wave(self, name: str) -> Wave:
        """Raises KeyError when there is none of that name."""
        return next((wave for wave in self.waves if wave.name == name), None) or _no_wave(name)

    def predecessors(self, name: str) -> tuple[str, ...]:
        """What must have passed before ``name`` opens, in file order."""
        before = set(self.graph.predecessors(name))
        return tuple(wave.name for wave in self.waves if wave.name in before)

    def ancestors(self, name: str) -> set[str]:
        """All that must have passed before ``name`` opens, near and far."""
        return set(nx.ancestors(self.graph, name))

    def successors(self, name: str) -> tuple[str, ...]:
        """What comes directly after ``name``, in file order."""
        after = set(self.graph.successors(name))
        return tuple(wave.name for wave in self.waves if wave.name in after)

    @cached_property
    def topological_order(self) -> tuple[str, ...]:
        """All waves, each after its predecessors; file order where the graph leaves a choice."""
        place = {wave.name: index for index, wave in enumerate(self.waves)}
        return tuple(nx.lexicographical_topological_sort(self.graph, key=place.__getitem__))

    @property
    def policy_is_path(self) -> bool:
        return "/" in self.policy or self.policy.endswith((".yaml", ".yml", ".json"))


def _no_wave(name: str) -> Wave:
    raise KeyError(name)
