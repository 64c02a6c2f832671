"""The description of the operators' API, as it stands in docs."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.web.api.described import describe

OPERATORS = Path(__file__).parents[2] / "docs" / "operators-api.json"


def operators() -> str:
    """What stands in ``docs/operators-api.json``."""
    return json.dumps(describe(), indent=1, ensure_ascii=False) + "\n"
