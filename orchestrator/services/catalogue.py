"""Targets at hand, for the path of devices: by name, by what a device of a hardware id runs, and the tags there are.

A Target never changes but for its tags, so what is found is good; what is not found is looked for again, once a second
at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from orchestrator.core.fleet import Target
from orchestrator.errors import WaveError
from orchestrator.services.store import Store

MISSED_AFTER: Final = timedelta(seconds=1)
READ_AFTER: Final = timedelta(seconds=30)
"""How old tags may be."""

Found = TypeVar("Found")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Targets:
    """As they were read."""

    by_name: dict[str, Target] = field(default_factory=dict)
    by_version: dict[tuple[str, int], Target] = field(default_factory=dict)
    by_commit: dict[tuple[str, str], Target] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


class Catalogue:
    """``later`` runs work soon in another thread (without it, at once); only for what nobody knows a caller waits."""

    def __init__(
        self, store: Store, clock: Callable[[], datetime], *, later: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._later = later or (lambda work: work())
        self._read_at: datetime | None = None
        self._asked = False
        self._targets = Targets()

    def named(self, name: str) -> Target | None:
        return self._sought(lambda targets: targets.by_name.get(name))

    def version(self, hardware_id: str, version: int) -> Target | None:
        return self._sought(lambda targets: targets.by_version.get((hardware_id, version)))

    def running(self, hardware_id: str, commit: str) -> Target | None:
        """The newest with that commit."""
        return self._sought(lambda targets: targets.by_commit.get((hardware_id, commit)))

    def has_tag(self, tag: str) -> bool:
        """Whether a Target carries it."""
        return self._sought(lambda targets: tag if tag in targets.tags else None) is not None

    def _sought(self, look: Callable[[Targets], Found | None]) -> Found | None:
        age = MISSED_AFTER if self._read_at is None else abs(self._clock() - self._read_at)
        found = look(self._targets)
        if found is None and age >= MISSED_AFTER:
            self._read()
            found = look(self._targets)
        elif age >= READ_AFTER and not self._asked:
            self._asked = True
            self._later(self._read)
        return found

    def _read(self) -> None:
        try:
            with self._store.reading() as r:
                self._targets = _sorted(r.targets())
        except WaveError as error:
            _log.warning("the Targets could not be read: %s", error)
        finally:
            self._read_at, self._asked = self._clock(), False


def _sorted(targets: Iterable[Target]) -> Targets:
    """From the newest version on."""
    found = Targets()
    tags: set[str] = set()
    for target in targets:
        found.by_name.setdefault(target.name, target)
        tags.update(target.tags)
        for hardware_id in target.hardware_ids:
            found.by_version.setdefault((hardware_id, target.version), target)
            found.by_commit.setdefault((hardware_id, target.commit), target)
    return Targets(found.by_name, found.by_version, found.by_commit, frozenset(tags))
