"""What a backup holds, and what came of making or restoring one. The work itself is the adapters'."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

EDITIONS_A_DAY: Final = 1_000
"""Numbers for aktualizr-lite that are passed over for each day between a backup and its restore: what may have been
given out in it. There are two millions in all."""


def numbers_passed_over(since_backup: timedelta) -> int:
    """At least a day's, whatever the clocks say."""
    return EDITIONS_A_DAY * (1 + max(0, since_backup // timedelta(days=1)))


@dataclass(frozen=True, slots=True)
class Backed:
    """A backup that was made and read back."""

    file: Path
    made_at: datetime
    bytes: int
    members: int
    schema: str
    content: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """``set_aside``: where what was there before lies now. ``warnings``: what a person has to know or do."""

    root: Path
    made_at: datetime
    members: int
    set_aside: Path | None
    warnings: tuple[str, ...] = field(default=())
