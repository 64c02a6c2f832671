"""What every part of a session stands on: its link, and the short names of what devices run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from orchestrator.adapters.sql.codec import Software
from orchestrator.adapters.sql.link import Link

_MOST_KEPT: Final = 100_000
"""Rows of ``software`` kept in memory; a fleet has a few hundred."""


class SoftwareNames:
    """Rows of ``software`` seen in committed transactions, both ways. They never change, so they are kept for the
    store's life."""

    def __init__(self) -> None:
        self.keys: dict[Software, int] = {}
        self.names: dict[int, Software] = {}

    def learn(self, found: Iterable[tuple[int, Software]]) -> None:
        if len(self.names) > _MOST_KEPT:
            self.keys, self.names = {}, {}
        for key, software in found:
            self.keys[software] = key
            self.names[key] = software


class Session:
    """The part that all of them share. A session belongs to one thread and ends with its transaction."""

    def __init__(self, link: Link, names: SoftwareNames) -> None:
        self.link = link
        self._names = names
        self._fresh: dict[Software, int] = {}
        self._fresh_names: dict[int, Software] = {}

    def committed(self) -> None:
        """The rows that this transaction added are there for everybody now."""
        self._names.learn((key, software) for software, key in self._fresh.items())

    def software(self, key: int) -> Software:
        """What a key of ``software`` stands for."""
        found = self._names.names.get(key) or self._fresh_names.get(key)
        if found is None:
            row = self.link.one("SELECT hardware_id, commit_id, version FROM software WHERE key = ?", (key,))
            assert row is not None, f"software {key} is missing"
            found = (row[0], row[1], row[2])
            self._fresh_names[key] = found
        return found

    def learn_software(self, keys: Iterable[int]) -> None:
        """Have many at hand with one query."""
        missing = {key for key in keys if key not in self._names.names and key not in self._fresh_names}
        if missing:
            condition, parameter = self.link.within("key", sorted(missing))
            for key, *software in self.link.rows(
                f"SELECT key, hardware_id, commit_id, version FROM software WHERE {condition}", (parameter,)
            ):
                self._fresh_names[key] = (software[0], software[1], software[2])

    def software_key(self, software: Software) -> int:
        """Its key; the row is added where there is none. In a writing session only."""
        found = self._names.keys.get(software) or self._fresh.get(software)
        if found is not None:
            return found
        where = "SELECT key FROM software WHERE hardware_id = ? AND commit_id = ? AND version = ?"
        row = self.link.one(where, software)
        if row is None:
            self.link.run(
                "INSERT INTO software (hardware_id, commit_id, version) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                software,
            )
            row = self.link.one(where, software)
        assert row is not None
        key = int(row[0])
        self._fresh[software] = key
        self._fresh_names[key] = software
        return key
