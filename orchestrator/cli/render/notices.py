"""``wave notify list``: messages to people and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid
from orchestrator.cli.render.json import iso
from orchestrator.cli.render.words import clock, plural
from orchestrator.services.notice_store import NoticeRow, Post

_STYLE = {Post.SENT: "green", Post.WAITING: "yellow", Post.DEAD: "red"}


def listed(rows: Sequence[NoticeRow], counts: Mapping[Post, int], now: datetime) -> RenderableType:
    if not rows:
        return Text("No messages.")
    grid = Grid([">NUMBER", "~ROLLOUT", "~WHAT", "~TO", "STATUS", ">TRIES", "WHEN"])
    for row in rows:
        told = row.notice
        what = told.event.replace("_", " ") if told.wave is None else f"{told.event.replace('_', ' ')} {told.wave}"
        grid.add(
            str(row.key),
            told.rollout,
            what,
            row.destination,
            Text(row.status.value, style=_STYLE[row.status]),
            str(row.attempts),
            clock(row.ended_at or row.queued_at, now),
            under=_under(row, now),
        )
    parts: list[RenderableType] = [grid]
    if dead := counts[Post.DEAD]:
        parts += [Text(), Text(f"{plural(dead, 'message')} given up: `wave notify retry` tries again.")]
    return Group(*parts)


def _under(row: NoticeRow, now: datetime) -> list[str]:
    if row.error is None or row.status is Post.SENT:
        return []
    again = f" Next try {clock(row.next_at, now)}." if row.status is Post.WAITING else ""
    return [f"{row.error}{again}"]


def shape(row: NoticeRow) -> dict[str, Any]:
    told = row.notice
    return {
        "number": row.key,
        "id": told.id,
        "rollout": told.rollout,
        "wave": told.wave,
        "event": told.event,
        "journal_seq": told.seq,
        "to": row.destination,
        "status": row.status.value,
        "tries": row.attempts,
        "error": row.error,
        "queued_at": iso(row.queued_at),
        "next_at": iso(row.next_at) if row.status is Post.WAITING else None,
        "ended_at": iso(row.ended_at),
        "title": told.title,
    }
