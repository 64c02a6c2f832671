"""Tables of what a device's protocol needs remembered."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field

from orchestrator.adapters.sql.columns import Base, number_field, text_field


class DeviceProtocolTable(Base, table=True):
    """Devices that were ever heard over another protocol than the own one."""

    __tablename__ = "device_protocol"

    device_key: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="device.key")
    protocol: str = text_field()
    highest_version: int | None = number_field()
