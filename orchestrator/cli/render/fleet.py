"""Devices for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.words import ago, status
from orchestrator.core.fleet import Device


def devices(found: Sequence[Device], now: datetime) -> RenderableType:
    if not found:
        return Text("No device.")
    grid = Grid(["~DEVICE", "STATUS", ">RUNS", "~TAG", "~GROUP", "~HARDWARE", "SEEN"])
    for each in found:
        word = each.status.value if each.healthy else f"{each.status.value}, unhealthy"
        runs = "-" if each.version is None else str(each.version)
        grid.add(
            each.id,
            status(word),
            runs,
            each.tag,
            each.group or "-",
            each.hardware_id,
            ago(each.last_seen_at, now),
        )
    return grid
