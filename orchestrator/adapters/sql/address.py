"""The address of a database, read once and never said: it may hold a password."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import InvalidInput


def read_address(text: str) -> URL:
    """Raises InvalidInput for what is none of SQLite's or PostgreSQL's."""
    try:
        address = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidInput(
            "What `database` says is no address of a database.",
            remedy="Write sqlite:///PATH, or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",
        ) from None
    backend = address.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise InvalidInput(f"{backend!r} is no database this program uses.", remedy="Use sqlite or postgresql+psycopg.")
    return address
