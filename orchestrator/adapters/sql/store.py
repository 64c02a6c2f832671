"""The store of ``services.store`` on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from orchestrator.adapters.sql.artifacts import ArtifactReading, ArtifactWriting
from orchestrator.adapters.sql.check import Recount
from orchestrator.adapters.sql.console import ConsoleReading, ConsoleWriting
from orchestrator.adapters.sql.devices import DeviceWriting
from orchestrator.adapters.sql.editions import EditionReading, EditionWriting
from orchestrator.adapters.sql.engine import BUSY_AFTER, Engine
from orchestrator.adapters.sql.evidence import EvidenceWriting
from orchestrator.adapters.sql.evidence_log import EvidenceReading, EvidenceSealing
from orchestrator.adapters.sql.excluding import ExcludingWriting
from orchestrator.adapters.sql.failing import FailingReading
from orchestrator.adapters.sql.feed import FeedReading, FeedWriting
from orchestrator.adapters.sql.fleet import FleetReading, SliceWriting
from orchestrator.adapters.sql.gates import GateWriting
from orchestrator.adapters.sql.house_log import HouseLogReading, HouseLogWriting
from orchestrator.adapters.sql.identity import IdentityReading, IdentityWriting
from orchestrator.adapters.sql.jobs import JobReading, JobWriting
from orchestrator.adapters.sql.mender import AuthSetReading, AuthSetWriting
from orchestrator.adapters.sql.notices import NoticeReading, NoticeWriting
from orchestrator.adapters.sql.once import OnceWriting
from orchestrator.adapters.sql.pacing import PacingReading, PacingWriting
from orchestrator.adapters.sql.people import PeopleReading, PeopleWriting
from orchestrator.adapters.sql.protocols import ProtocolReading, ProtocolWriting
from orchestrator.adapters.sql.rollouts import RolloutWriting
from orchestrator.adapters.sql.schema import migrate, require, version_of
from orchestrator.adapters.sql.session import Known
from orchestrator.errors import Busy, Conflict, StoreUnavailable


class SqlReading(
    ConsoleReading,
    FleetReading,
    FailingReading,
    PacingReading,
    JobReading,
    EvidenceReading,
    ArtifactReading,
    IdentityReading,
    ProtocolReading,
    EditionReading,
    AuthSetReading,
    NoticeReading,
    PeopleReading,
    HouseLogReading,
    FeedReading,
    Recount,
):
    """One snapshot."""


class SqlWriting(
    ConsoleWriting,
    DeviceWriting,
    RolloutWriting,
    SliceWriting,
    ExcludingWriting,
    EvidenceWriting,
    EvidenceSealing,
    PacingWriting,
    JobWriting,
    ArtifactWriting,
    IdentityWriting,
    ProtocolWriting,
    EditionWriting,
    AuthSetWriting,
    GateWriting,
    NoticeWriting,
    PeopleWriting,
    HouseLogWriting,
    FeedWriting,
    OnceWriting,
    SqlReading,
):
    """One transaction."""


class SqlStore:
    """A database that is open. Thread-safe; a session belongs to one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known = Known()
        self._failures: dict[str, int] = {}
        self._guard = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[SqlReading]:
        try:
            with self._engine.reading() as link:
                yield SqlReading(link, self._known)
        except (StoreUnavailable, Busy, Conflict) as error:
            self._failed(error.kind)
            raise

    @contextmanager
    def writing(self) -> Iterator[SqlWriting]:
        """Raises Busy when the one writer could not be had in time."""
        try:
            with self._engine.writing() as link:
                session = SqlWriting(link, self._known)
                yield session
                if session.rehearsed:
                    raise RuntimeError("What is only rehearsed must be taken back.")
                session.before_commit()
        except (StoreUnavailable, Busy, Conflict) as error:
            self._failed(error.kind)
            raise
        session.committed()

    def _failed(self, kind: str) -> None:
        with self._guard:
            self._failures[kind] = self._failures.get(kind, 0) + 1

    def failures(self) -> Mapping[str, int]:
        with self._guard:
            return dict(self._failures)

    def close(self) -> None:
        self._engine.close()


def open_store(url: str, *, create: bool = True, synchronous: str = "FULL", busy_after: float = BUSY_AFTER) -> SqlStore:
    """Open ``sqlite://`` (in memory), ``sqlite:///PATH`` or ``postgresql+psycopg://…``; with ``create`` a new database
    is made.

    ``synchronous`` NORMAL is quicker on a SQLite file, and may lose the last commits when the machine itself loses
    power.
    ``busy_after``: seconds a writer waits for its turn. Raises StoreUnavailable, InvalidInput.
    """
    engine = Engine(url, create=create, synchronous=synchronous, busy_after=busy_after)
    try:
        require(engine, create=create)
    except BaseException:
        engine.close()
        raise
    return SqlStore(engine)


def upgrade(url: str) -> str:
    """Bring the database to the newest schema, making it where there is none; the version it has now. Raises
    StoreUnavailable."""
    engine = Engine(url)
    try:
        version_of(engine)
        migrate(engine)
        version = version_of(engine)
    finally:
        engine.close()
    assert version is not None
    return version


def schema_version(url: str) -> str | None:
    """The schema's version; None for an empty database. Raises StoreUnavailable."""
    engine = Engine(url, create=False)
    try:
        return version_of(engine)
    finally:
        engine.close()
