"""The operators' HTTP API, below ``/api/v1``: what the command line does, over HTTP."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from orchestrator.web.api import described, journal_feed, routes, uploads

PREFIX: Final = "/api/v1"


def router() -> APIRouter:
    """Every route. Those with a name of their own come first: ``{which}`` would take them."""
    made = APIRouter(prefix=PREFIX)
    for part in (described.router(), journal_feed.router(), uploads.router(), routes.router()):
        made.include_router(part)
    return made
