"""Which wave a device is in: a pure predicate, never a row per device.

A device belongs to the first wave, in file order, whose selector holds (RULES 5.5). ``share`` and ``count`` are bounds
on the device's position in that wave: a share's follows from the share, a count's is fixed when the rollout starts,
one for each hardware id when it is spread. The store says the same in SQL; the contract tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from orchestrator.core.position import SPACE, DeviceHash, Salt, position


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

    ``group`` None and ``labels`` empty ask for nothing. At most one of ``bound`` (for all) and ``bounds`` (by hardware
    id, 0 for one that is not named) is given; a device is in only when its position is below it.
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


def why_in(member: Member, selectors: Sequence[WaveSelector]) -> tuple[str, ...]:
    """Why the device is in its wave, or in none: a sentence for each wave before it that fits but for the position,
    and for its own."""
    found: list[str] = []
    for selector in selectors:
        if not selector.asks_for(member):
            continue
        fits = [f"group {selector.group}"] if selector.group is not None else []
        fits += [f"{key}={value}" for key, value in selector.labels]
        asked = f" for {' and '.join(fits)}" if fits else ""
        bound, at = selector.bound_for(member.hardware_id), position(member.hash, selector.salt)
        if bound is None:
            found.append(f"{selector.wave}: it takes all{asked} that no wave before it has.")
            return tuple(found)
        stands = f"{_shown(at)} {'is' if at < bound else 'is not'} below {_shown(bound)}"
        each = f" of {member.hardware_id}" if selector.bounds is not None else ""
        found.append(f"{selector.wave}: a part of all{each}{asked}; its position {stands}.")
        if at < bound:
            return tuple(found)
    return (*found, "No wave has it.")


def _shown(position_: int) -> str:
    return f"{position_ / SPACE:.4f}"


def spread_counts(available: Mapping[str, int], count: int) -> dict[str, int]:
    """Split ``count`` places over strata with that many devices each: in proportion, by largest remainder.

    Every stratum gets at least one while there are enough places, so that the rarest hardware is in the canary too.
    Never more than a stratum has; the sum is ``min(count, all there are)``. Ties go to the larger stratum, then by
    name.
    """
    strata = sorted((name for name, devices in available.items() if devices > 0), key=lambda n: (-available[n], n))
    total = sum(available[name] for name in strata)
    count = min(count, total)
    if count < len(strata):
        return dict.fromkeys(strata[: max(0, count)], 1)
    share = {name: Fraction(count * available[name], total) for name in strata}
    given = {name: max(1, int(share[name])) for name in strata}
    missing = max(0, count - sum(given.values()))
    for name in sorted(strata, key=lambda n: given[n] - share[n])[:missing]:
        given[name] += 1
    while sum(given.values()) > count:
        given[max((n for n in reversed(strata) if given[n] > 1), key=lambda n: given[n] - share[n])] -= 1
    return given
