"""A virtual fleet: so many devices with hardware ids, source versions, labels and habits, as plain arrays.

Answers for: who there is, which wave each is in under one salt, by the core's own hash and selectors.
Does not answer for: what happens to them (``conduct``), who is offered what and when (``play``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import fsum
from random import Random
from typing import Final

from orchestrator.core.membership import WaveSelector, spread_counts
from orchestrator.core.position import SPACE, DeviceHash, bound_of_share, device_hash, position, wave_salt
from orchestrator.core.rollout_file import RolloutFile, Wave
from orchestrator.core.slices import segment_population
from orchestrator.errors import InvalidInput

MOST_DEVICES: Final = 1_000_000
"""More than that would not fit the memory of an ordinary machine, and tell nothing that fewer do not."""

Shares = Mapping[str, float]
"""Values of one dimension and their shares, which sum to 1."""

_HARDWARE: Final = {"hw-a": 0.60, "hw-b": 0.25, "hw-c": 0.10, "hw-d": 0.05}
_VERSIONS: Final = {"41": 0.70, "40": 0.25, "39": 0.05}
_REGIONS: Final = {"north": 0.30, "south": 0.25, "east": 0.20, "west": 0.15, "sea": 0.10}


@dataclass(frozen=True, slots=True)
class Habit:
    """How a kind of device behaves: it asks every ``gap`` seconds; after an offer half of them report an outcome within
    ``median`` seconds (log-normal, ``spread`` its sigma), or in the next night when ``nightly``."""

    share: float
    gap: int
    median: int
    spread: float = 0.5
    nightly: bool = False


HABITS: Final = (Habit(0.70, 300, 360), Habit(0.20, 900, 3_600), Habit(0.10, 3_600, 3_600, nightly=True))
"""Seven of ten report within minutes, two within the hour, one installs at night."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A fleet to be made. The default has 12 segment values: four hardware ids, three versions, five regions.

    ``hashed``: positions by the hash of a device's id and the rollout's salt, as in the field; else drawn uniformly.
    """

    devices: int = 2_000
    hardware: Shares = field(default_factory=lambda: dict(_HARDWARE))
    versions: Shares = field(default_factory=lambda: dict(_VERSIONS))
    labels: Mapping[str, Shares] = field(default_factory=lambda: {"region": dict(_REGIONS)})
    groups: Mapping[str, int] = field(default_factory=dict)
    habits: tuple[Habit, ...] = HABITS
    hashed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= MOST_DEVICES:
            raise InvalidInput(f"A fleet to simulate has 1 to {MOST_DEVICES:,} devices, not {self.devices:,}.")
        shares = [self.hardware, self.versions, *self.labels.values()]
        if any(not each or abs(fsum(each.values()) - 1.0) > 1e-6 or min(each.values()) < 0 for each in shares):
            raise InvalidInput("The shares of a fleet's hardware ids, versions and labels each sum to 100 %.")


@dataclass(frozen=True, slots=True)
class Kind:
    """Devices alike in all dimensions."""

    hardware_id: str
    version: str
    labels: Mapping[str, str]
    group: str | None
    habit: Habit

    def value(self, dimension: str) -> str | None:
        """What it has in a dimension such as ``hardware_id`` or ``label:region``; None when it has nothing there."""
        if dimension == "hardware_id":
            return self.hardware_id
        if dimension == "source_version":
            return self.version
        return self.labels.get(dimension.removeprefix("label:"))

    def segments(self, dimensions: Sequence[str]) -> tuple[str, ...]:
        """The segments it is in, as populations."""
        return tuple(segment_population(name, value) for name in dimensions if (value := self.value(name)) is not None)


@dataclass(frozen=True, slots=True)
class Fleet:
    """``kinds`` by number; ``kind_of`` and ``hashes`` by device, which are numbered from 0."""

    shape: Shape
    kinds: tuple[Kind, ...]
    kind_of: Sequence[int]
    hashes: Sequence[DeviceHash]

    @property
    def devices(self) -> int:
        return len(self.kind_of)

    def sizes(self, dimension: str) -> dict[str, int]:
        """How many devices there are of each value of a dimension."""
        found: dict[str, int] = {}
        for kind in self.kind_of:
            value = self.kinds[kind].value(dimension)
            if value is not None:
                found[value] = found.get(value, 0) + 1
        return found


@lru_cache(maxsize=8)
def _made(key: ShapeKey) -> Fleet:
    shape = key.shape
    rng = Random(f"fleet of {shape.devices}")
    labels = sorted(shape.labels)
    draws = [shape.hardware, shape.versions, *(shape.labels[name] for name in labels)]
    columns: list[list[str | None]] = [list(_dealt(each, shape.devices, rng)) for each in draws]
    shares = {str(number): habit.share for number, habit in enumerate(shape.habits)}
    habits: list[str | None] = list(_dealt(shares, shape.devices, rng))
    groups: list[str | None] = [None] * shape.devices
    held = [name for name, many in shape.groups.items() for _ in range(many)][: shape.devices]
    groups[: len(held)] = held
    numbers: dict[tuple[str | None, ...], int] = {}
    kinds: list[Kind] = []
    kind_of: list[int] = []
    for hardware_id, version, *rest, habit, group in zip(*columns, habits, groups, strict=True):
        row = (hardware_id, version, *rest, habit, group)
        if row not in numbers:
            numbers[row] = len(kinds)
            assert hardware_id is not None and version is not None and habit is not None  # for the type checker
            said = {name: value for name, value in zip(labels, rest, strict=True) if value is not None}
            kinds.append(Kind(hardware_id, version, said, group, shape.habits[int(habit)]))
        kind_of.append(numbers[row])
    hashes = [device_hash(f"device-{number}") for number in range(shape.devices)] if shape.hashed else []
    return Fleet(shape, tuple(kinds), kind_of, hashes)


class ShapeKey:
    """A shape as a key of the cache: mappings have no hash, what they say has."""

    __slots__ = ("shape", "text")

    def __init__(self, shape: Shape) -> None:
        self.shape, self.text = shape, repr(shape)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeKey) and other.text == self.text


def made(shape: Shape) -> Fleet:
    """The fleet of a shape: always the same one. The last few are kept."""
    return _made(ShapeKey(shape))


def _dealt(shares: Shares, devices: int, rng: Random) -> list[str]:
    """So many values in these shares, to the device, in random order."""
    edges = [round(edge * devices) for edge in accumulate(shares.values())]
    edges[-1] = devices
    before = [0, *edges[:-1]]
    values = [name for name, low, high in zip(shares, before, edges, strict=True) for _ in range(high - low)]
    rng.shuffle(values)
    return values


def fitting(shape: Shape, spec: RolloutFile) -> Shape:
    """The shape with what the waves of a rollout file ask for: the groups and labels that they name exist.

    A group that a wave names has 5 devices, or a fiftieth of the fleet if that is less. The values of a label that the
    waves name share the fleet equally, and one more part has none of them.
    """
    groups = dict(shape.groups)
    values: dict[str, list[str]] = {}
    for wave in spec.waves:
        if wave.devices.group is not None:
            groups.setdefault(wave.devices.group, max(1, min(5, shape.devices // 50)))
        for key, value in wave.devices.labels:
            if value not in values.setdefault(key, []):
                values[key].append(value)
    labels = dict(shape.labels)
    for key, named in values.items():
        if key not in labels or not set(named) <= set(labels[key]):
            part = 1.0 / (len(named) + 1)
            labels[key] = {**dict.fromkeys(named, part), "other": 1.0 - part * len(named)}
    return Shape(shape.devices, shape.hardware, shape.versions, labels, groups, shape.habits, shape.hashed)


def allotted(fleet: Fleet, spec: RolloutFile, salt: str, rng: Random) -> dict[str, list[tuple[int, int]]]:
    """Who is in which wave under one salt (RULES 5.5): by wave, (position, device) by rising position."""
    left: list[int] = list(range(fleet.devices))
    members: dict[str, list[tuple[int, int]]] = {}
    for wave in spec.waves:
        asked = wave.devices
        selector = WaveSelector(wave.name, wave_salt(salt, wave.name), asked.group, tuple(asked.labels))
        if asked.group is None and not asked.labels:
            asking = left
        else:
            fits = [_asks(selector, kind) for kind in fleet.kinds]
            asking = [device for device in left if fits[fleet.kind_of[device]]]
        if fleet.shape.hashed:
            salted = selector.salt
            placed = sorted((position(fleet.hashes[device], salted), device) for device in asking)
        else:
            placed = sorted((int(rng.random() * SPACE), device) for device in asking)
        mine = _bounded(wave, placed, fleet)
        members[wave.name] = mine
        if len(mine) == len(left):
            left = []
        elif mine:
            taken = {device for _, device in mine}
            left = [device for device in left if device not in taken]
    return members


def _asks(selector: WaveSelector, kind: Kind) -> bool:
    if selector.group is not None and kind.group != selector.group:
        return False
    return all(kind.labels.get(key) == value for key, value in selector.labels)


def _bounded(wave: Wave, placed: list[tuple[int, int]], fleet: Fleet) -> list[tuple[int, int]]:
    """Those within the wave's bound: a share of positions, so many of the lowest, or so many of each hardware id."""
    asked = wave.devices
    if asked.share is not None:
        bound = bound_of_share(asked.share)
        return [each for each in placed if each[0] < bound]
    if asked.count is None:
        return placed
    if asked.spread is None:
        return placed[: asked.count]
    hardware = [kind.hardware_id for kind in fleet.kinds]
    available: dict[str, int] = {}
    for _, device in placed:
        name = hardware[fleet.kind_of[device]]
        available[name] = available.get(name, 0) + 1
    room = spread_counts(available, asked.count)
    found: list[tuple[int, int]] = []
    for place, device in placed:
        name = hardware[fleet.kind_of[device]]
        if room.get(name, 0) > 0:
            room[name] -= 1
            found.append((place, device))
    return found
