"""Authentication sets, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.json import iso
from orchestrator.cli.render.words import ago, status
from orchestrator.services.mender.sets import AuthSet


def auth_sets(found: Sequence[AuthSet], now: datetime) -> RenderableType:
    if not found:
        return Text("No authentication set.")
    grid = Grid(["~SET", "STATUS", "~DEVICE", "ASKED", "SEEN", "~IDENTITY"])
    for one in found:
        seen = ago(one.seen_at, now)
        grid.add(
            one.id[:12], status(one.status.value), one.device_id or "-", ago(one.asked_at, now), seen, one.identity
        )
    return grid


def shape(one: AuthSet) -> dict[str, Any]:
    return {
        "id": one.id,
        "status": one.status.value,
        "device": one.device_id,
        "identity": json.loads(one.identity),
        "public_key": one.public_key,
        "asked_at": iso(one.asked_at),
        "seen_at": iso(one.seen_at),
        "decided_at": iso(one.decided_at),
        "decided_by": one.decided_by,
    }
