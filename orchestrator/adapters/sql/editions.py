"""Editions, what devices told of themselves, and files of deltas' sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.editions import Edition
from orchestrator.services.edition_store import Told

_COLUMNS: Final = "number, digest, body, expires_at, timestamp_expires_at, root_version, signings"


class EditionReading(Session):
    def edition(self, number: int) -> Edition | None:
        return _edition(self.link.one(f"SELECT {_COLUMNS} FROM edition WHERE number = ?", (number,)))

    def newest_edition(self, digest: str) -> Edition | None:
        return _edition(
            self.link.one(f"SELECT {_COLUMNS} FROM edition WHERE digest = ? ORDER BY number DESC LIMIT 1", (digest,))
        )

    def last_edition(self) -> int:
        row = self.link.one("SELECT max(number) FROM edition")
        return 0 if row is None or row[0] is None else int(row[0])

    def shown_editions(self, device_keys: Collection[int]) -> Mapping[int, int]:
        if not device_keys:
            return {}
        condition, keys = self.link.within("device_key", device_keys)
        return dict(self.link.rows(f"SELECT device_key, number FROM shown_edition WHERE {condition}", (keys,)))

    def told(self, device_key: int) -> Sequence[Told]:
        rows = self.link.rows(
            "SELECT topic, text, size, digest, received_at FROM device_told WHERE device_key = ? ORDER BY topic",
            (device_key,),
        )
        return [Told(topic, text, size, digest, moment(at)) for topic, text, size, digest, at in rows]

    def delta_stats(self, sha256: str) -> str | None:
        row = self.link.one("SELECT text FROM delta_stats WHERE sha256 = ?", (sha256,))
        return None if row is None else str(row[0])


class EditionWriting(EditionReading):
    def lock_editions(self) -> None:
        if self.link.postgres:
            self.link.rows("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", ("wave editions",))

    def save_edition(self, edition: Edition) -> None:
        self.link.run(
            f"INSERT INTO edition ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET "
            "timestamp_expires_at = excluded.timestamp_expires_at, root_version = excluded.root_version, "
            "signings = excluded.signings",
            (
                edition.number,
                edition.digest,
                edition.body,
                stored(edition.expires_at),
                stored(edition.timestamp_expires_at),
                edition.root_version,
                edition.signings,
            ),
        )

    def retire_editions(self, number: int, now: datetime) -> None:
        self.link.run("UPDATE edition SET expires_at = ? WHERE expires_at > ?", (stored(now), stored(now)))
        self.link.run(
            f"INSERT INTO edition ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO NOTHING",
            (number, "passed over", "{}", stored(now), stored(now), 0, 0),
        )

    def show_editions(self, shown: Mapping[int, int]) -> None:
        self.link.many(
            "INSERT INTO shown_edition (device_key, number) VALUES (?, ?) ON CONFLICT (device_key) DO UPDATE SET "
            "number = excluded.number WHERE shown_edition.number < excluded.number",
            sorted(shown.items()),
        )

    def tell(self, device_key: int, told: Told) -> None:
        self.link.run(
            "INSERT INTO device_told (device_key, topic, text, size, digest, received_at) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (device_key, topic) DO UPDATE SET text = excluded.text, size = excluded.size, "
            "digest = excluded.digest, received_at = excluded.received_at",
            (device_key, told.topic, told.text, told.size, told.digest, stored(told.received_at)),
        )

    def keep_delta_stats(self, sha256: str, text: str) -> None:
        self.link.run("INSERT INTO delta_stats (sha256, text) VALUES (?, ?) ON CONFLICT DO NOTHING", (sha256, text))


def _edition(row: tuple[Any, ...] | None) -> Edition | None:
    if row is None:
        return None
    number, digest, body, expires_at, timestamp_expires_at, root_version, signings = row
    return Edition(number, digest, body, moment(expires_at), moment(timestamp_expires_at), root_version, signings)
