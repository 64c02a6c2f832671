"""The console as a part of the operators' side: importing the pages gives the router its routes."""

from __future__ import annotations

from fastapi import FastAPI

from orchestrator.web.console import live, orders, pages
from orchestrator.web.console.routes import router

PARTS = (live, orders, pages)
"""What has routes."""


def mount(app: FastAPI) -> None:
    """Under ``/``."""
    app.include_router(router)
