"""The parts of the port to the store that are described in modules of their own, put together."""

from __future__ import annotations

from typing import Protocol

from orchestrator.services.artifact_records import ReadsArtifacts, WritesArtifacts
from orchestrator.services.console_store import ReadsConsole, WritesConsole
from orchestrator.services.edition_store import ReadsEditions, WritesEditions
from orchestrator.services.failing_store import ReadsFailing
from orchestrator.services.feed import ReadsFeed
from orchestrator.services.gate_store import ReadsGates, WritesGates
from orchestrator.services.house_log_store import ReadsHouseLog, WritesHouseLog
from orchestrator.services.identity_store import IdentityReading, IdentityWriting
from orchestrator.services.mender.sets import ReadsAuthSets, WritesAuthSets
from orchestrator.services.notice_store import ReadsNotices, WritesNotices
from orchestrator.services.once import WritesOnce
from orchestrator.services.people_store import ReadsPeople, WritesPeople
from orchestrator.services.protocols import ReadsProtocols, WritesProtocols


class ReadsParts(
    ReadsArtifacts,
    IdentityReading,
    ReadsProtocols,
    ReadsAuthSets,
    ReadsEditions,
    ReadsPeople,
    ReadsHouseLog,
    ReadsFeed,
    ReadsConsole,
    ReadsNotices,
    ReadsGates,
    ReadsFailing,
    Protocol,
):
    """What a snapshot has besides ``services.store.Reading``."""


class WritesParts(
    WritesArtifacts,
    IdentityWriting,
    WritesProtocols,
    WritesAuthSets,
    WritesEditions,
    WritesPeople,
    WritesHouseLog,
    WritesConsole,
    WritesNotices,
    WritesGates,
    WritesOnce,
    Protocol,
):
    """What a transaction has besides ``services.store.Writing``."""
