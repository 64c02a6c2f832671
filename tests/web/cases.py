"""The operations of the operators' API as schemathesis reads them from docs."""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from tests.web.described import OPERATORS


@schemathesis.serializer("application/offset+octet-stream")
def _piece(context: Any, value: Any) -> bytes:
    """A piece of a file is what it is."""
    return value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "surrogatepass")


def operations() -> list[Any]:
    """Every one. Raises AssertionError for one that cannot be read."""
    made = []
    for found in from_dict(json.loads(OPERATORS.read_text(encoding="utf-8"))).get_all_operations():
        assert isinstance(found, Ok)
        made.append(found.ok())
    return made
