"""How dark a fleet is whatever the release: the part of its devices that is not heard of before the hard stop.

Answers for: the conservative end of what past devices say of it. Does not answer for: what a policy tolerates on top of
it (``Policy.tolerances_over``), nor for how long devices take that do report (``clock``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from orchestrator.core.evidence.budgets import chance_of_reaching

MOST_DARK: Final = 0.9
"""No larger darkness is granted: beyond it the devices' silence says nothing of a release."""

_PARTS: Final = 1_000
"""Darkness is told in whole thousandths."""


class Darkness(NamedTuple):
    """The chance that a device is not heard of before the hard stop, whatever the release: in the fleet as a whole, and
    in any part of it that there was enough to learn of."""

    fleet: float = 0.0
    segment: float = 0.0


def darkness(fleet: tuple[int, int], parts: Iterable[tuple[int, int]], *, risk: float) -> Darkness:
    """What past devices say of it, rounded up. ``fleet`` and ``parts``: those silent at the hard stop, and all there
    were. ``risk``: the chance with which each may take the past devices for more talkative than the truth."""
    whole, *others = (most_silent(silent, devices, risk) for silent, devices in (fleet, *parts))
    return Darkness(*(min(math.ceil(each * _PARTS) / _PARTS, MOST_DARK) for each in (whole, max(whole, *others, 0.0))))


@lru_cache(maxsize=1_024)
def most_silent(silent: int, devices: int, risk: float) -> float:
    """The largest chance of silence under which so few silent devices come up with a chance of ``risk`` or more
    (Clopper and Pearson)."""
    if silent >= devices:
        return 1.0
    low, high = silent / devices, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        # At most `silent` are silent: at least the others are not.
        if chance_of_reaching(devices, 1.0 - middle, devices - silent) >= risk:
            low = middle
        else:
            high = middle
    return high
