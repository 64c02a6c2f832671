"""How often somebody may ask: a steady rate and a burst, as people write it (``10/s burst 60``, ``off``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

_LIMIT: Final = re.compile(r"([1-9][0-9]{0,6})/(s|min) burst ([1-9][0-9]{0,6})", re.ASCII)
_SECONDS: Final = {"s": 1, "min": 60}


@dataclass(frozen=True, slots=True)
class Limit:
    """``asks`` in each ``unit`` (``s`` or ``min``) steadily, ``burst`` of them at once; 0 asks: no limit."""

    asks: int
    unit: str = "s"
    burst: int = 1

    @property
    def off(self) -> bool:
        return self.asks == 0

    @property
    def every(self) -> float:
        """Seconds between two, steadily."""
        return _SECONDS[self.unit] / self.asks

    def __str__(self) -> str:
        return "off" if self.off else f"{self.asks}/{self.unit} burst {self.burst}"


OFF: Final = Limit(0)


def parse_limit(text: Any) -> Limit:
    """Raises ValueError with what is allowed."""
    if isinstance(text, Limit):
        return text
    # YAML reads a bare ``off`` as false
    if text is False or text == "off":
        return OFF
    found = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("write it as 10/s burst 60 or 30/min burst 5, or off")
    return Limit(int(found[1]), found[2], int(found[3]))


LimitField = Annotated[Limit, BeforeValidator(parse_limit)]
