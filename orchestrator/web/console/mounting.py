"""The console as a part of the operators' side: importing the pages gives the router its routes."""

from __future__ import annotations

from fastapi import FastAPI

from orchestrator.web.console import glossary, live, orders, pages, policies
from orchestrator.web.console.rendering import Kept
from orchestrator.web.console.routes import router
from orchestrator.web.console.studies import Studies

PARTS = (glossary, live, orders, pages, policies)
"""What has routes."""


def mount(app: FastAPI) -> None:
    """Under ``/``."""
    app.state.studies = Studies()
    app.state.kept = Kept()
    app.include_router(router)
