"""What a delta will cost, without building it.

Measured over 12 pairs of a real image: the compressed bytes of the new objects were an upper bound for all; 1.0 x those
without a file of the same name and similar size in the old commit + 0.2 x the rest was within a factor of 3 for all but
one kernel pair (0.28 to 2.75, median error 1.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.adapters.ostree.objects import object_path, read_content, unpacked_size
from orchestrator.errors import ContentUnavailable
from orchestrator.services.delta_provider import DeltaEstimate, DeltaPair

LIKE_BEFORE = 0.2
"""Share of its compressed bytes that a changed file costs, given an old one of its name and about its size."""

SIMILAR = 0.5
"""By how much of its size a file may have grown or shrunk and still be "about its size"."""

SECONDS_PER_MB = 0.6
SECONDS_PER_MB_FULL_BSDIFF = 2.0
SECONDS_PER_MB_FROM_SCRATCH = 1.5
"""Building time per compressed MB of new objects, with bsdiff limited to 8 MB, unlimited, and without an old commit
(where all is packed by LZMA): 0.4 to 1.2, 0.8 to 3.5, and 1.4 to 1.6 measured."""

SECONDS_TO_PROVE = 2.0
"""Of checking out the old commit and applying, for an image of some 80 MB."""


def estimate(repository: Path, pair: DeltaPair, *, max_bsdiff_size: int) -> DeltaEstimate:
    """``max_bsdiff_size`` in MB, as the build will have it. Raises ContentUnavailable for a missing commit or
    object."""
    new = read_content(repository, pair.to_commit)
    old = read_content(repository, pair.from_commit) if pair.from_commit else None
    added = new.objects - old.objects if old else new.objects
    names: dict[str, list[str]] = {}
    for basename, contents in new.by_basename.items():
        for content in contents & added:
            names.setdefault(content, []).append(basename)
    at_most, likely = 0, 0.0
    limit = max_bsdiff_size * 1_000_000
    try:
        for name in added:
            size = object_path(repository, name).stat().st_size
            at_most += size
            before = [other for base in names.get(name, ()) if old for other in old.by_basename.get(base, ())]
            likely += size * (LIKE_BEFORE if _any_similar(repository, name, before, limit) else 1.0)
    except OSError as error:
        raise ContentUnavailable(
            f"{repository} lacks an object of {pair.to_commit}: {error.filename}.", remedy="Push the commit again."
        ) from error
    rate = SECONDS_PER_MB if max_bsdiff_size <= 16 else SECONDS_PER_MB_FULL_BSDIFF
    if old is None:
        rate = SECONDS_PER_MB_FROM_SCRATCH
    return DeltaEstimate(round(likely), at_most, len(added), SECONDS_TO_PROVE + rate * at_most / 1e6)


def _any_similar(repository: Path, name: str, others: Iterable[str], limit: int) -> bool:
    """Whether one of ``others`` is about as big; both together at most ``limit`` bytes, or no difference is made."""
    size: int | None = None
    for other in others:
        size = unpacked_size(repository, name) if size is None else size
        before = unpacked_size(repository, other)
        if abs(before - size) <= SIMILAR * size and before + size <= limit:
            return True
    return False
