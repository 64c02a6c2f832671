"""A change of a rollout that runs, for people: the difference, in words, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Paragraph, heading
from orchestrator.services.editing import Edited

_STYLE = {"+": "green", "-": "red", "@": "cyan"}


def edited(found: Edited, *, written: bool, dry_run: bool) -> RenderableType:
    return Group(*_edited(found, written=written, dry_run=dry_run))


def _edited(found: Edited, *, written: bool, dry_run: bool) -> Iterator[RenderableType]:
    for line in found.diff:
        bold = line.startswith(("+++", "---"))
        yield Text(line, style="bold" if bold else _STYLE.get(line[:1], ""))
    yield heading("In words")
    for change in found.changes:
        yield Paragraph(str(change), indent=2, hang=2)
    for wider in found.wider:
        yield Paragraph(Text(f"! looser: {wider}", style="yellow"), indent=2, hang=4)
    for key in found.closes:
        yield Paragraph(f"monitor {key} is closed", indent=2, hang=2)
    for key in found.begins:
        yield Paragraph(f"monitor {key} begins with the next slice, paid from the reserve", indent=2, hang=2)
    yield heading("It would decide now" if not written else "Decided next")
    yield Paragraph(found.would, indent=2, hang=2)
    for sentence in found.waits:
        yield Paragraph(sentence, indent=2, hang=2)
    if written:
        yield Text(f"Rollout {found.rollout} is changed; no evidence was reset. It is {found.status}.")
    elif dry_run:
        lacks = f" To make it, add `{found.lacks}`." if found.lacks else ""
        yield Paragraph(f"Dry run, nothing was changed.{lacks}")
