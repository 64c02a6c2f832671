"""Deltas that are artifacts themselves: smaller files of the Target's own format, for devices on one source version.

A device installs one as it is, so any protocol that hands over files can hand it over, with sums and a size of its own.
The sums stand in the delta's name, so that its record says all of it::

    deltas/<from>/<to>/<sha256>-<sha1>-<md5>.<program>
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, NamedTuple

from orchestrator.core.artifact import Artifact, Digests
from orchestrator.services.delta_provider import DeltaRecord

_NAME: Final = re.compile(r"([0-9a-f]{64})-([0-9a-f]{40})-([0-9a-f]{32})\.[a-z0-9_-]{1,32}")

_LONGEST_FILENAME: Final = 128


class Download(NamedTuple):
    """A file that a device may install, and its path below the store."""

    artifact: Artifact
    path: str


def name_of(digests: Digests, program: str) -> str:
    """What the file of such a delta is called."""
    return f"{digests.sha256}-{digests.sha1}-{digests.md5}.{program}"


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def installs(record: DeltaRecord | None, *, makes_artifacts: bool) -> bool:
    """Whether what a pair's delta is, or while there is none will be, is installed as it is."""
    return makes_artifacts if record is None else is_name(record.path.rpartition("/")[2])


def whole_file(artifact: Artifact) -> Download:
    return Download(artifact, f"{artifact.sha256}/{artifact.filename}")


def smaller_file(record: DeltaRecord, whole: Artifact) -> Download | None:
    """The delta to ``whole`` as an artifact, under a name of its own, so that nobody goes on with the wrong file; None
    for one that only turns one file into another."""
    found = _NAME.fullmatch(record.path.rpartition("/")[2])
    if found is None:
        return None
    digests = Digests(found[1], found[2], found[3], record.bytes)
    before = f"delta-{digests.sha256[:8]}-"
    filename = before + whole.filename[-(_LONGEST_FILENAME - len(before)) :]
    return Download(replace(whole, digests=digests, filename=filename), record.path)
