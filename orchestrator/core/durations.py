"""The units that people write in files and on the command line: durations and shares.

Answers for the text forms only. A number without a unit is refused: ``24`` might be hours or days, and ``2`` might be
two per cent or twice the whole.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from orchestrator.errors import InvalidInput

LONGEST = timedelta(days=365)
"""No duration in a file is longer: a wait of more than a year is a slip of the unit."""

DURATION_PATTERN = r"^(?=[0-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$"
"""What editors hold a duration to (ECMA and Python read it alike)."""

SHARE_PATTERN = r"^(?!0(\.0+)?%$)(100(\.0{1,6})?|(0|[1-9][0-9]?)(\.[0-9]{1,6})?)%$"
"""What editors hold a share to: above 0 %, at most 100 %, at most six places."""

RISK_PATTERN = r"^(?!0(\.0+)?%$)(0|[1-9][0-9]?)(\.[0-9]{1,6})?%$"
"""The same below 100 %."""

_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_SHARE = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?%", re.ASCII)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPANS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
"""Seconds of a unit, its name, and the same of the one below it."""
_ONE_UNIT_BELOW = 100
"""One unit is used while its number stays below this: ``36h`` and ``90m``, but ``4d4h`` and not ``100h``."""


def parse_duration(text: object) -> timedelta:
    """``24h``, ``7d``, ``90m``, ``30s`` or units together, largest first (``1d12h``); whole numbers, at most 365 days.

    Raises InvalidInput with what is allowed.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise InvalidInput(f"must be a duration such as 90m, 24h or 1d12h, not {shown(text)}.")
    if not isinstance(text, str):
        raise InvalidInput(
            f"has no unit: write {shown(text)}s, {shown(text)}m, {shown(text)}h or {shown(text)}d."
            if isinstance(text, int)
            else f"must be a duration in whole numbers such as 90m, 24h or 1d12h, not {shown(text)}."
        )
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise InvalidInput(f"has no unit: write {text}s, {text}m, {text}h or {text}d.")
    if not _DURATION.fullmatch(text):
        raise InvalidInput(
            f"must be a duration such as 30s, 90m, 24h, 7d or 1d12h (whole numbers, largest unit first), "
            f"not {shown(text)}."
        )
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"([0-9]+)([dhms])", text))
    if seconds > LONGEST.total_seconds():
        raise InvalidInput(f"is longer than a year: at most {duration_text(LONGEST)} is allowed, not {shown(text)}.")
    return timedelta(seconds=seconds)


def duration_text(duration: timedelta) -> str:
    """The shortest readable text: one unit while its number is below 100 (``36h``), else largest first (``4d4h``).

    Parts of a second are dropped; a negative duration has a leading minus and is for display only.
    """
    seconds = duration // timedelta(seconds=1)
    if seconds < 0:
        return "-" + duration_text(-duration)
    if seconds == 0:
        return "0s"
    for unit, size in _SECONDS.items():
        if seconds % size == 0 and seconds // size < _ONE_UNIT_BELOW:
            return f"{seconds // size}{unit}"
    text = ""
    for unit, size in _SECONDS.items():
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text


def span_text(span: timedelta) -> str:
    """A duration in at most two units: ``2 d 3 h``, ``11 h 30 min``, ``45 s``."""
    seconds = max(0, span.days * 86_400 + span.seconds + (span.microseconds > 0))
    for size, name, below_size, below in _SPANS:
        if seconds >= size:
            smaller = seconds % size // below_size
            return f"{seconds // size} {name} {smaller} {below}" if smaller else f"{seconds // size} {name}"
    return f"{seconds} s"


def parse_share(text: object) -> float:
    """``2%``, ``0.5%``, ``100%`` as a number in [0, 1]; at most six places.

    Raises InvalidInput with what is allowed.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise InvalidInput(_without_unit(str(text)))
    if not isinstance(text, str):
        raise InvalidInput(f"must be a share such as 2% or 0.5%, not {shown(text)}.")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text, re.ASCII):
        raise InvalidInput(_without_unit(text))
    match = _SHARE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"must be a share between 0% and 100% such as 2% or 0.5%, not {shown(text)}.")
    percent = Decimal(match[1] + (match[2] or ""))
    if percent > 100:
        raise InvalidInput(f"is more than the whole: a share is at most 100%, not {shown(text)}.")
    return float(percent / 100)


def _without_unit(number: str) -> str:
    guesses = f"{shown(float(number))}%"
    if 0 < float(number) < 1:
        guesses = f"{float(number):.4%}".rstrip("%").rstrip("0").rstrip(".") + f"% or {guesses}"
    return f"has no unit: a share is written with a per cent sign, such as {guesses.replace('.0%', '%')}."


def share_text(share: float) -> str:
    """``0.02`` as ``2%``; the inverse of parse_share."""
    return f"{(Decimal(repr(share)) * 100).normalize():f}%"


def devices_in(share: float, of: int) -> int:
    """How many of ``of`` devices reach ``share``: rounded up, and exact where floats are not (3 % of 100 is 3)."""
    wanted = Fraction(repr(share)) * of
    return -(-wanted.numerator // wanted.denominator)


def shown(value: object, limit: int = 40) -> str:
    """``value`` as it is quoted back in a sentence: short, on one line, printable."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            text = ascii(value) if not value.isprintable() else f"'{value}'"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
