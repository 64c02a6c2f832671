"""How findings say numbers."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path


def size(of: int | Path) -> str:
    """Bytes, or those of a file, with a unit of a thousand."""
    number = float(of.stat().st_size if isinstance(of, Path) else of)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def days(span: timedelta) -> str:
    """``in 12 days``, ``3 days ago``, ``today``."""
    whole = abs(span) // timedelta(days=1)
    if not whole:
        return "within a day" if span >= timedelta() else "today"
    counted = f"{whole} day{'s' if whole > 1 else ''}"
    return f"in {counted}" if span > timedelta() else f"{counted} ago"


def date(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"
