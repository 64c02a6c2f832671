"""Enrolment and gateway tokens, and revoked certificates, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.json import iso
from orchestrator.services.credentials import Grant, Revoked


def state(grant: Grant, now: datetime) -> str:
    """good, revoked, over or spent."""
    if grant.revoked_at is not None:
        return "revoked"
    if not grant.stands(now):
        return "over"
    return "spent" if grant.left == 0 else "good"


def scope(grant: Grant) -> str:
    """Whom it is for, in a few words."""
    parts = [f"tag {grant.tag}"] if grant.tag else []
    parts += [f"group {grant.group}"] if grant.group else []
    parts += [f"hardware {', '.join(grant.hardware_ids)}"] if grant.hardware_ids else []
    parts += [f"{key}={value}" for key, value in sorted(grant.labels.items())]
    return "; ".join(parts)


def grant_shape(grant: Grant, now: datetime | None = None) -> dict[str, Any]:
    """Everything but the token, which is kept nowhere."""
    return {
        "name": grant.name,
        "kind": grant.kind.value,
        "state": "good" if now is None else state(grant, now),
        "tag": grant.tag,
        "group": grant.group,
        "hardware_ids": list(grant.hardware_ids),
        "labels": dict(grant.labels),
        "uses_left": grant.left,
        "used": grant.used,
        "until": iso(grant.until),
        "replace": grant.may_replace,
        "register": grant.may_register,
        "created_at": iso(grant.created_at),
        "created_by": grant.created_by,
        "revoked_at": iso(grant.revoked_at),
    }


def grants(found: Sequence[Grant], now: datetime) -> RenderableType:
    if not found:
        return Text("No token.")
    grid = Grid(["NAME", "STATE", "KIND", "~FOR", ">USED", ">LEFT", "UNTIL", "~BY"])
    for each in found:
        left = "any" if each.left is None else str(each.left)
        if each.kind == "gateway" and not each.may_register:
            left = "-"
        until = "never" if each.until is None else f"{each.until:%Y-%m-%d %H:%M}"
        grid.add(
            each.name, state(each, now), each.kind.value, scope(each), str(each.used), left, until, each.created_by
        )
    return grid


def revoked_shape(each: Revoked) -> dict[str, Any]:
    return {"kind": each.kind.value, "value": each.value, "revoked_at": iso(each.at), "revoked_by": each.by}


def revoked(found: Sequence[Revoked]) -> RenderableType:
    if not found:
        return Text("No certificate was revoked.")
    grid = Grid(["KIND", "~WHICH", "REVOKED", "~BY"])
    for each in found:
        grid.add(each.kind.value, each.value, f"{each.at:%Y-%m-%d %H:%M:%S}", each.by)
    return grid
