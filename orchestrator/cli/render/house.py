"""The journal and what the house says of itself, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Paragraph
from orchestrator.cli.render.json import plain
from orchestrator.cli.render.words import STYLE
from orchestrator.core.journal import Entry


def journal(entries: Sequence[Entry], *, facts: bool = False) -> RenderableType:
    if not entries:
        return Text("No entry.")
    return Group(*_entries(entries, facts))


def _entries(entries: Sequence[Entry], facts: bool) -> Iterator[RenderableType]:
    import json

    seq_width = max(len(str(entry.seq)) for entry in entries)
    for entry in entries:
        word = entry.event.rsplit("_", 1)[-1]
        wave = f" {entry.wave}" if entry.wave else ""
        yield Text.assemble(
            (f"{entry.seq:>{seq_width}}", "dim"),
            f"  {entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}  ",
            (f"{entry.event.replace('_', ' ')}{wave}", STYLE.get(word, "bold")),
            (f"  by {entry.by}", "dim"),
        )
        yield Paragraph(entry.sentence, indent=seq_width + 2)
        if facts and entry.facts:
            said = json.dumps(plain(entry.facts), ensure_ascii=False, sort_keys=True)
            yield Paragraph(Text(said, style="dim"), indent=seq_width + 2)
