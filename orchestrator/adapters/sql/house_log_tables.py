"""The table of what people ordered outside rollouts."""

from __future__ import annotations

from orchestrator.adapters.sql.columns import Base, key_field, number_field, text_field


class HouseEventTable(Base, table=True):
    """Orders about devices, content and credentials. Only added to."""

    __tablename__ = "house_event"

    key: int | None = key_field()
    at: int = number_field()
    by_name: str = text_field()
    event: str = text_field()
    what: str = text_field()
    sentence: str = text_field()
