"""The halting rule once more, written the slow way: 60 decimal digits, products, no limits, nothing of `limits.py`.

The only thing shared with the program is the definition in ``facts/evidence.md`` §3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext


@contextmanager
def _precise() -> Iterator[None]:
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, MAX_EMAX, MIN_EMIN
        yield


def grid(tolerance: str) -> list[tuple[Decimal, Decimal]]:
    """(weight, alternative): 12 points, geometric from 1.5 p0 to 0.95, weights falling by a fifth each."""
    with _precise():
        lowest, highest = Decimal("1.5") * Decimal(tolerance), Decimal("0.95")
        step = (highest / lowest) ** (Decimal(1) / 11)
        whole = sum(Decimal("0.8") ** j for j in range(12))
        return [(Decimal("0.8") ** j / whole, lowest * step**j) for j in range(12)]


def evidence(tolerance: str, places: int, bad: int) -> Decimal:
    with _precise():
        p0 = Decimal(tolerance)
        return sum(
            (w * (p / p0) ** bad * ((1 - p) / (1 - p0)) ** (places - bad) for w, p in grid(tolerance)), Decimal(0)
        )


def halting_counts(tolerance: str, alpha: str, places: int) -> list[int]:
    """For 0 … ``places``: the smallest bad count that halts there (more than the place itself if none can)."""
    with _precise():
        p0, bar = Decimal(tolerance), 1 / Decimal(alpha)
        points = grid(tolerance)
        current = [w for w, _ in points]  # E's terms at (place, count)
        up = [p / p0 * (1 - p0) / (1 - p) for _, p in points]
        down = [(1 - p) / (1 - p0) for _, p in points]
        counts, count = [1], 0
        for place in range(1, places + 1):
            current = [c * d for c, d in zip(current, down, strict=True)]
            while sum(current) < bar and count <= place:
                current = [c * u for c, u in zip(current, up, strict=True)]
                count += 1
            counts.append(count)
            if count > place:  # not even all bad: E(place, place + 1) has no meaning, so start the count again
                current, count = [w * d**place for (w, _), d in zip(points, down, strict=True)], 0
        return counts


def halting_chance(counts: list[int], rate: float) -> float:
    """P(some prefix has as many bad as ``counts`` says), place by place over all bad counts."""
    undecided = [1.0]
    for needed in counts[1:]:
        moved = [0.0, *(chance * rate for chance in undecided)]
        for bad, chance in enumerate(undecided):
            moved[bad] += chance * (1.0 - rate)
        undecided = moved[:needed]
    return 1.0 - sum(undecided)
