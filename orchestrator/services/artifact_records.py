"""The part of the store's port that concerns artifacts: what is known of the files, not where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.artifact import Artifact


class ReadsArtifacts(Protocol):
    """A consistent snapshot."""

    def artifact(self, sha256: str) -> Artifact | None:
        """What is known of a file."""

    def artifacts(self) -> Sequence[Artifact]:
        """All, newest first."""

    def artifact_of_version(self, hardware_id: str, version: str) -> str | None:
        """The sha256, which is the commit, of what a device of this hardware runs when it says this: of an artifact for
        this hardware the version (of Mender's, the artifact's name too); of one that names no hardware the version,
        where exactly one is this hardware's by a Target. None when nothing is called so."""


class WritesArtifacts(ReadsArtifacts, Protocol):
    """One transaction."""

    def add_artifact(self, artifact: Artifact) -> bool:
        """False when exactly this one is there already. Raises Refused when it is there with another name, version or
        hardware, or when another is recognised by the same word on the same hardware."""

    def remove_artifact(self, sha256: str) -> bool: ...
