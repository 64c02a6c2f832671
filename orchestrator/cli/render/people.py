"""People, their tokens and what happened around them, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.json import iso
from orchestrator.services.house_log_store import HouseEvent
from orchestrator.services.people_store import PersonEvent, PersonRow, TokenRow
from orchestrator.services.people_views import PersonView, TokenView


def person_shape(row: PersonRow | PersonView) -> dict[str, Any]:
    """Everything but the hash of the password."""
    return {
        "name": row.name,
        "roles": sorted(row.roles),
        "disabled_at": iso(row.disabled_at),
        "password": row.has_password,
        "subject": row.subject,
        "created_at": iso(row.created_at),
        "created_by": row.created_by,
    }


def everybody(found: Sequence[PersonRow | PersonView]) -> RenderableType:
    if not found:
        return Text("Nobody.")
    grid = Grid(["~NAME", "STATE", "ROLES", "SIGNS IN", "SINCE", "~BY"])
    for each in found:
        how = "elsewhere" if each.subject else "with a password" if each.has_password else "no"
        grid.add(
            each.name,
            "good" if each.disabled_at is None else "disabled",
            ", ".join(sorted(each.roles)),
            how,
            f"{each.created_at:%Y-%m-%d}",
            each.created_by,
        )
    return grid


def state(row: TokenRow | TokenView, now: datetime) -> str:
    """good, revoked or over."""
    if row.revoked_at is not None:
        return "revoked"
    return "good" if now < row.until else "over"


def token_shape(row: TokenRow | TokenView, now: datetime) -> dict[str, Any]:
    """Everything but the token, which is kept nowhere."""
    return {
        "name": row.name,
        "person": row.person,
        "state": state(row, now),
        "roles": sorted(row.roles),
        "tags": list(row.tags),
        "until": iso(row.until),
        "used_at": iso(row.used_at),
        "created_at": iso(row.created_at),
        "created_by": row.created_by,
        "revoked_at": iso(row.revoked_at),
    }


def only(row: TokenRow | TokenView) -> str:
    """What it orders about, where that is not everything."""
    return f" for {', '.join(row.tags)}" if row.tags else ""


def tokens(found: Sequence[TokenRow | TokenView], now: datetime) -> RenderableType:
    if not found:
        return Text("No token.")
    grid = Grid(["TOKEN", "STATE", "~PERSON", "ROLES", "UNTIL", "USED", "~BY"])
    for each in found:
        grid.add(
            each.name,
            state(each, now),
            each.person,
            ", ".join(sorted(each.roles)) + only(each),
            f"{each.until:%Y-%m-%d %H:%M}",
            "never" if each.used_at is None else f"{each.used_at:%Y-%m-%d %H:%M}",
            each.created_by,
        )
    return grid


def house_shape(each: HouseEvent) -> dict[str, Any]:
    return {
        "number": each.number,
        "at": iso(each.at),
        "by": each.by,
        "event": each.event,
        "what": each.what,
        "sentence": each.sentence,
    }


def house(found: Sequence[HouseEvent]) -> RenderableType:
    if not found:
        return Text("Nothing was ordered.")
    grid = Grid(["AT", "EVENT", "~BY"])
    for each in found:
        grid.add(f"{each.at:%Y-%m-%d %H:%M:%S}", each.event, each.by, under=[each.sentence])
    return grid


def event_shape(each: PersonEvent) -> dict[str, Any]:
    return {"at": iso(each.at), "by": each.by, "event": each.event, "whom": each.whom, "sentence": each.sentence}


def events(found: Sequence[PersonEvent]) -> RenderableType:
    if not found:
        return Text("Nothing happened.")
    grid = Grid(["AT", "EVENT", "~BY"])
    for each in found:
        grid.add(f"{each.at:%Y-%m-%d %H:%M:%S}", each.event, each.by, under=[each.sentence])
    return grid
