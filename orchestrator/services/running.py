"""What a device is and runs, from what it says in the words of its own software: ``1.4.2``, ``release-7``.

The version of an artifact, or the number of a Target's version, names a commit. Any other version stands for a commit
of its own that nobody has: so a device on unknown software can be offered something, and seen to go back to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from orchestrator.core.artifact import LONGEST_VERSION
from orchestrator.core.rollout_file import LARGEST_VERSION
from orchestrator.core.update import Update
from orchestrator.services.remembered import Remembered
from orchestrator.services.store import Reading, Store

BELIEVED_FOR: Final = timedelta(seconds=10)
"""How long something is taken for unknown before it is looked up again: a Target or an artifact may be added."""

MOST_KNOWN: Final = 10_000

_LONGEST_NUMBER: Final = 18


class Words(NamedTuple):
    """What a device said: ``enrolled`` is its hardware id so far, ``hardware`` what it calls its hardware, the best
    first; ``version`` None: it does not say."""

    enrolled: str
    hardware: tuple[str, ...]
    version: str | None


class Runs(NamedTuple):
    """What that means. ``commit`` None: nothing is said of it."""

    hardware_id: str
    commit: str | None


def unknown_commit(hardware_id: str, version: str) -> str:
    """What stands for a version on this hardware that nothing here is called by."""
    return hashlib.sha256(f"version\0{hardware_id}\0{version}".encode("utf-8", "surrogatepass")).hexdigest()


def as_offered(hardware_id: str, version: str, commit: str, updates: Iterable[Update]) -> str:
    """The commit that this software has for the device's updates: what had no name here when the device was offered
    something keeps the one it had then, so that going back to it is seen; until the device is to run it by its name."""
    nameless, found = unknown_commit(hardware_id, version), commit
    for update in updates:
        if update.to_commit == commit:
            return commit
        if update.from_commit == nameless:
            found = nameless
    return found


def short_of(version: str) -> str:
    """A version as it may be remembered: one that nothing here can be called by becomes as short as one that can."""
    if len(version) <= LONGEST_VERSION:
        return version
    return hashlib.sha256(version.encode("utf-8", "surrogatepass")).hexdigest()


class Dictionary:
    """What words mean, as far as they were looked up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Remembered[Words, tuple[Runs, datetime | None]] = Remembered(MOST_KNOWN)

    def known(self, words: Words, now: datetime) -> Runs | None:
        """From memory; None: it must be looked up."""
        found = self._known.get(words)
        if found is None or (found[1] is not None and now >= found[1]):
            return None
        return found[0]

    def remembered(self) -> tuple[Words, ...]:
        """What it has in memory now."""
        return self._known.keys()

    def look_up(self, words: Words, now: datetime) -> Runs:
        """Raises StoreUnavailable, Busy."""
        with self._store.reading() as r:
            hardware_id = _hardware(r, words)
            commit = None if words.version is None else _commit(r, hardware_id, words.version)
        sure = (commit is not None or words.version is None) and hardware_id in (*words.hardware[:1], words.enrolled)
        if commit is None and words.version is not None:
            commit = unknown_commit(hardware_id, words.version)
        found = Runs(hardware_id, commit)
        self._known.put(words, (found, None if sure else now + BELIEVED_FOR))
        return found


def _hardware(r: Reading, words: Words) -> str:
    """A name that no Target is for would only cut the device off."""
    asked = [each for each in words.hardware if each != words.enrolled]
    if not asked:
        return words.enrolled
    there = {hardware_id for target in r.targets() for hardware_id in target.hardware_ids}
    return next((each for each in words.hardware if each in there), words.enrolled)


def _commit(r: Reading, hardware_id: str, version: str) -> str | None:
    found = r.artifact_of_version(hardware_id, version)
    if found is not None:
        return found
    if not (version.isascii() and version.isdecimal() and len(version) <= _LONGEST_NUMBER):
        return None
    number = int(version)
    if number > LARGEST_VERSION:
        return None
    return next((each.commit for each in r.targets(version=number) if hardware_id in each.hardware_ids), None)
