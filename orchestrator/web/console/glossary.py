"""The page of words: what each means here, for whoever meets one on another page at night."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from orchestrator.core.glossary import explained, words
from orchestrator.web.console.rendering import page
from orchestrator.web.console.routes import Viewer, console_of, kept, router


@router.get("/words")
@kept
def glossary(request: Request, person: Viewer) -> Response:
    """Each under an anchor of its own: ``/words#hardware-id``."""
    found = [(word, word.lower().replace(" ", "-"), explained(word)) for word in words()]
    return page(request, "glossary.html", person, console_of(request).clock(), found=found)
