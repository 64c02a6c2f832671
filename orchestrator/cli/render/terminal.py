"""The console that commands write to: what devices, people and other servers wrote cannot act on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from orchestrator.core.harmless import harmless


class Terminal(Console):
    """Every piece of text passes here, whoever wrote it; what moves the cursor comes from rich alone, as a piece of its
    own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for piece in super().render(renderable, options):
            text = piece.text if piece.control else harmless(piece.text)
            yield piece if text == piece.text else Segment(text, piece.style)
