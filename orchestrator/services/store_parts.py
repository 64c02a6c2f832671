"""The parts of the store whose ports are declared beside what uses them."""

from __future__ import annotations

from typing import Protocol

from orchestrator.services.artifact_records import ReadsArtifacts, WritesArtifacts
from orchestrator.services.edition_store import ReadsEditions, WritesEditions
from orchestrator.services.identity_store import IdentityReading, IdentityWriting
from orchestrator.services.mender.sets import ReadsAuthSets, WritesAuthSets
from orchestrator.services.notice_store import ReadsNotices, WritesNotices
from orchestrator.services.protocols import ReadsProtocols, WritesProtocols


class ReadsParts(
    ReadsArtifacts,
    IdentityReading,
    ReadsProtocols,
    ReadsAuthSets,
    ReadsEditions,
    ReadsNotices,
    Protocol,
):
    """What a snapshot has besides."""


class WritesParts(
    WritesArtifacts,
    IdentityWriting,
    WritesProtocols,
    WritesAuthSets,
    WritesEditions,
    WritesNotices,
    Protocol,
):
    """What a transaction has besides."""
