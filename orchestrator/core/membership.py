"""Which wave a device is in: a pure predicate, never a row per device.

A device belongs to the first wave, in file order, whose selector holds (RULES 5.5). ``share`` and ``count`` are bounds on the
device's position in that wave: a share's follows from the share, a count's is fixed when the rollout starts, one
for each hardware id when it is spread. The store says the same in SQL; the contract tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.position import DeviceHash, Salt, position


@dataclass(frozen=True, slots=True)
class Member:
    """What membership asks of a device."""

    hash: DeviceHash
    hardware_id: str
    group: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WaveSelector:
    """A wave's selector with its bounds worked out.

    ``group`` None and ``labels`` empty ask for nothing. At most one of ``bound`` (for all) and ``bounds`` (by hardware id, 0
    for one that is not named) is given; a device is in only when its position is below it.
    """

    wave: str
    salt: Salt
    group: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    bound: int | None = None
    bounds: tuple[tuple[str, int], ...] | None = None

    def asks_for(self, member: Member) -> bool:
        """Whether group and labels fit, whatever the position."""
        if self.group is not None and member.group != self.group:
            return False
        return all(member.labels.get(key) == value for key, value in self.labels)

    def bound_for(self, hardware_id: str) -> int | None:
        """The bound for devices of this hardware id; None when every position is in."""
        if self.bounds is not None:
            return dict(self.bounds).get(hardware_id, 0)
        return self.bound

    def holds(self, member: Member) -> bool:
        """Whether the device is in this wave, were no earlier wave to have it."""
        if not self.asks_for(member):
            return False
        bound = self.bound_for(member.hardware_id)
        return bound is None or position(member.hash, self.salt) < bound


def wave_of(member: Member, selectors: Sequence[WaveSelector]) -> WaveSelector | None:
    """The first selector, in file order, that holds; None when no wave has the device."""
    return next((selector for selector in selectors if selector.holds(member)), None)


def spread_counts(available: Mapping[str, int], count: int) -> dict[str, int]:
    """Split ``count`` places over strata with that many devices each, as evenly in proportion as whole numbers allow.

    Every stratum gets at least one while there are enough places, so that the rarest hardware is in the canary too; the rest
    by largest remainder. Never more than a stratum has; the sum is ``min(count, all there are)``.
    """
    strata = sorted((name for name, devices in available.items() if devices > 0), key=lambda n: (-available[n], n))
    total = sum(available[name] for name in strata)
    count = min(count, total)
    if not strata or count <= 0:
        return {}
    given = {name: 1 if rank < count else 0 for rank, name in enumerate(strata)}
    while (left := count - sum(given.values())) > 0:
        # The stratum furthest below its exact share gets the next place; ties go to the larger, then by name.
        open_strata = [name for name in strata if given[name] < available[name]]
        short = {name: count * available[name] / total - given[name] for name in open_strata}
        for name in sorted(open_strata, key=lambda n: (-short[n], strata.index(n)))[:left]:
            step = min(max(1, int(short[name])), available[name] - given[name], count - sum(given.values()))
            given[name] += step
            if step > 1:
                break
    return {name: places for name, places in given.items() if places}
