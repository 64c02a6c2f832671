"""The waves of a simulated rollout: the usual ones, those of a rollout file, or written in a line."""

from __future__ import annotations

import re
from typing import Any, Final

from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import InvalidInput

USUAL: Final = "lab 5, canary 20, early 10%, rest"
"""A few on the bench, twenty in the field, a tenth, everybody."""

_PART: Final = re.compile(r"(?:(?P<name>[A-Za-z][A-Za-z0-9_.-]*)\s*)?(?P<size>\d+(?:\.\d+)?%|\d+)?")


def waves_of(text: str, policy: str = "simulated") -> RolloutFile:
    """Waves written as ``lab 5, canary 20, early 10%, rest``: names with a number of devices or a share of those that
    are left. A last wave without a size takes the rest; where there is none it is added.

    Raises InvalidInput for what is no such line, and InvalidDocument as a rollout file does.
    """
    waves: list[dict[str, Any]] = []
    parts = [part.strip() for part in text.split(",")]
    for number, part in enumerate(parts, start=1):
        found = _PART.fullmatch(part)
        if found is None or not part:
            raise InvalidInput(
                f"{part[:40]!r} is no wave: write a name with a number of devices or a share, such as `{USUAL}`."
            )
        name, size = found["name"] or f"wave-{number}", found["size"]
        if size is None and number < len(parts):
            raise InvalidInput(f"Wave {name} takes all that are left, so nothing can come after it.")
        devices: object = "all"
        if size is not None:
            devices = {"share": size} if size.endswith("%") else {"count": int(size)}
        waves.append({"wave": name, "devices": devices})
    if waves[-1]["devices"] != "all":
        waves.append({"wave": "rest", "devices": "all"})
    return RolloutFile.parse(
        {"rollout": "simulated", "target": 42, "tag": "simulated", "policy": policy, "waves": waves}
    )
