"""What every part of a session stands on: its link, and the short names of what devices run and of slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from orchestrator.adapters.sql.codec import Software
from orchestrator.adapters.sql.link import Link
from orchestrator.core.codes import MOST_OWN
from orchestrator.core.evidence.left_out import LeftOut
from orchestrator.core.outcomes import Outcome
from orchestrator.errors import Refused

_MOST_KEPT: Final = 100_000
"""Rows of one table kept in memory; a fleet has a few hundred."""

_MOST_LEFT_OUT: Final = 16
"""Rollouts of which the decoded ranks of slices are kept in memory."""

SliceName = tuple[int, str, int, int, int]
"""Rollout key, wave and number of a slice; 1 for the part of it that is left out with excluded segments, else 0; 1 for
the part that stands apart because it was unhealthy before."""


class Kept:
    """Rows of a table, seen in committed transactions, both ways. They never change, so they are kept for the store's
    life."""

    def __init__(self) -> None:
        self.keys: dict[Any, int] = {}
        self.names: dict[int, Any] = {}

    def learn(self, found: Iterable[tuple[int, Any]]) -> None:
        if len(self.names) > _MOST_KEPT:
            self.keys, self.names = {}, {}
        for key, name in found:
            self.keys[name] = key
            self.names[key] = name


class Known:
    """What a store keeps of the tables that are only added to."""

    def __init__(self) -> None:
        self.software = Kept()
        self.slices = Kept()
        self.left_out: dict[tuple[int, str], tuple[int, LeftOut]] = {}
        """Of rollouts with excluded segments, by key and salt: how many slices there were, and who is left out."""

    def keep_left_out(self, fresh: Mapping[tuple[int, str], tuple[int, LeftOut]]) -> None:
        if len(self.left_out) > _MOST_LEFT_OUT:
            self.left_out = {}
        self.left_out.update(fresh)


class ShortNames:
    """A table that gives rows of ``columns`` a short key, as one session sees it. Rows are only added."""

    def __init__(self, link: Link, kept: Kept, table: str, columns: str) -> None:
        self._link = link
        self._kept = kept
        self._table = table
        self._columns = columns
        self._fresh: dict[Any, int] = {}
        self._fresh_names: dict[int, Any] = {}

    def committed(self) -> None:
        """The rows that this transaction added are there for everybody now."""
        self._kept.learn((key, name) for name, key in self._fresh.items())

    def name(self, key: int) -> Any:
        """What a key stands for."""
        found = self._kept.names.get(key) or self._fresh_names.get(key)
        if found is None:
            row = self._link.one(f"SELECT {self._columns} FROM {self._table} WHERE key = ?", (key,))
            assert row is not None, f"{self._table} {key} is missing"
            found = self._fresh_names[key] = tuple(row)
        return found

    def learn(self, keys: Iterable[int]) -> None:
        """Have many at hand with one query."""
        missing = {key for key in keys if key not in self._kept.names and key not in self._fresh_names}
        if missing:
            condition, parameter = self._link.within("key", sorted(missing))
            for key, *name in self._link.rows(
                f"SELECT key, {self._columns} FROM {self._table} WHERE {condition}", (parameter,)
            ):
                self._fresh_names[key] = tuple(name)

    def key(self, name: tuple[Any, ...]) -> int:
        """Its key; the row is added where there is none. In a writing session only."""
        found = self._kept.keys.get(name) or self._fresh.get(name)
        if found is not None:
            return found
        condition = " AND ".join(f"{column} = ?" for column in self._columns.split(", "))
        where = f"SELECT key FROM {self._table} WHERE {condition}"
        row = self._link.one(where, name)
        if row is None:
            marks = ", ".join("?" * len(name))
            self._link.run(f"INSERT INTO {self._table} ({self._columns}) VALUES ({marks}) ON CONFLICT DO NOTHING", name)
            row = self._link.one(where, name)
        assert row is not None
        key = int(row[0])
        self._fresh[name] = key
        self._fresh_names[key] = name
        return key


class Session:
    """The part that all of them share. A session belongs to one thread and ends with its transaction."""

    def __init__(self, link: Link, known: Known) -> None:
        self.link = link
        self._software = ShortNames(link, known.software, "software", "hardware_id, commit_id, version")
        self._slice_keys = ShortNames(link, known.slices, "slice_key", "rollout_key, wave, number, excluded, apart")
        self._own_classes: dict[int, tuple[Outcome, ...]] = {}
        self._known = known
        self._left_out: dict[tuple[int, str], tuple[int, LeftOut]] = {}
        self.appended: list[tuple[int, int]] = []
        """Entries of journals, by rollout key and ``seq``, that this transaction added."""
        self.rehearsed = False

    def rehearse(self) -> None:
        self.rehearsed = True

    def committed(self) -> None:
        """What this transaction added is there for everybody now."""
        self._known.keep_left_out(self._left_out)
        self._software.committed()
        self._slice_keys.committed()

    def software(self, key: int) -> Software:
        """What a key of ``software`` stands for."""
        found: Software = self._software.name(key)
        return found

    def learn_software(self, keys: Iterable[int]) -> None:
        """Have many at hand with one query."""
        self._software.learn(keys)

    def software_key(self, software: Software) -> int:
        """Its key; the row is added where there is none. In a writing session only."""
        return self._software.key(software)

    def slice_name(self, key: int) -> SliceName:
        """What a key of ``slice_key`` stands for."""
        found: SliceName = self._slice_keys.name(key)
        return found

    def slice_key(
        self, rollout_key: int, wave: str, number: int, *, excluded: bool = False, apart: bool = False
    ) -> int:
        """The key of a slice, or of the part of it that is left out or apart; the row is added where there is none. In
        a writing session only."""
        return self._slice_keys.key((rollout_key, wave, number, int(excluded), int(apart)))

    def own_classes(self, rollout_key: int) -> tuple[Outcome, ...]:
        """The operator's own classes of a rollout, in the order of their slots. Who counts holds the rollout's lock,
        and so does who adds one."""
        found = self._own_classes.get(rollout_key)
        if found is None:
            found = self._own_classes[rollout_key] = tuple(
                name
                for (name,) in self.link.rows(
                    "SELECT name FROM own_class WHERE rollout_key = ? ORDER BY slot", (rollout_key,)
                )
            )
        return found

    def name_classes(self, rollout_key: int, names: Iterable[Outcome]) -> None:
        self._own_classes.pop(rollout_key, None)
        known = self.own_classes(rollout_key)
        fresh = sorted(set(names).difference(known))
        if len(known) + len(fresh) > MOST_OWN:
            raise Refused(
                f"A rollout can have {MOST_OWN} classes of your own in its life; it has had {', '.join(known)}.",
                remedy="Use names that it has had.",
            )
        self.link.many(
            "INSERT INTO own_class (rollout_key, slot, name) VALUES (?, ?, ?)",
            [(rollout_key, slot, name) for slot, name in enumerate(fresh, len(known))],
        )
        self._own_classes[rollout_key] = (*known, *fresh)
