"""Deltas, build jobs, the outbox, leases and what there is one of in the house."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.codec import as_json
from orchestrator.adapters.sql.house_tables import FROZEN
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.states import Reason
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import BuildJob, Effect, EffectKind, JobStatus

_SCRATCH: Final = ""
"""``from_commit`` of a delta from scratch."""

_LOG_KEPT: Final = 100_000
"""Characters kept of a build's log, the last ones."""

DELTA_COLUMNS: Final = (
    "from_commit, to_commit, path, parts, bytes, fallbacks, fallback_bytes, build_seconds, cpu_seconds"
)
"""What ``delta_of`` reads, in its order."""

_JOB: Final = (
    "key, from_commit, to_commit, status, weight, fence, owner, lease_until, attempts, stage, done, log, error, "
    "queued_at, started_at, ended_at"
)


def _pair(pair: DeltaPair) -> tuple[str, str]:
    return (pair.from_commit or _SCRATCH, pair.to_commit)


def delta_of(row: tuple[Any, ...]) -> DeltaRecord:
    start, end, *rest = row
    return DeltaRecord(DeltaPair(start or None, end), *rest)


def job_of(row: tuple[Any, ...]) -> BuildJob:
    key, start, end, status, weight, fence, owner, until, attempts, stage, done, log, error, queued, started, ended = (
        row
    )
    return BuildJob(
        key=key,
        pair=DeltaPair(start or None, end),
        status=JobStatus(status),
        weight=weight,
        fence=fence,
        owner=owner,
        lease_until=moment(until),
        attempts=attempts,
        stage=stage,
        done=done,
        log=log,
        error=error,
        queued_at=moment(queued),
        started_at=moment(started),
        ended_at=moment(ended),
    )


class JobReading(Session):
    def delta(self, pair: DeltaPair) -> DeltaRecord | None:
        row = self.link.one(f"SELECT {DELTA_COLUMNS} FROM delta WHERE from_commit = ? AND to_commit = ?", _pair(pair))
        return None if row is None else delta_of(row)

    def deltas(self) -> Sequence[DeltaRecord]:
        return [
            delta_of(row)
            for row in self.link.rows(f"SELECT {DELTA_COLUMNS} FROM delta ORDER BY to_commit, from_commit")
        ]

    def jobs(self, *, statuses: Collection[JobStatus] | None = None, limit: int = 200) -> Sequence[BuildJob]:
        """Newest first."""
        condition, parameters = self.link.of_status(statuses)
        rows = self.link.rows(
            f"SELECT {_JOB} FROM build WHERE {condition} ORDER BY key DESC LIMIT ?", (*parameters, limit)
        )
        return [job_of(row) for row in rows]

    def job(self, pair: DeltaPair) -> BuildJob | None:
        row = self.link.one(
            f"SELECT {_JOB} FROM build WHERE from_commit = ? AND to_commit = ? ORDER BY key DESC LIMIT 1", _pair(pair)
        )
        return None if row is None else job_of(row)

    def job_counts(self, *, newest: int) -> Mapping[JobStatus, int]:
        found: dict[str, int] = dict(
            self.link.rows(
                "SELECT status, count(*) FROM (SELECT status FROM build ORDER BY key DESC LIMIT ?) x GROUP BY status",
                (newest,),
            )
        )
        return {status: found.get(status.value, 0) for status in JobStatus}

    def effects(self, limit: int = 100) -> Sequence[Effect]:
        rows = self.link.rows(
            "SELECT kind, rollout, wave, key, error FROM effect "
            "ORDER BY CASE WHEN kind IN ('withdraw', 'leave_out') THEN 0 ELSE 1 END, key LIMIT ?",
            (limit,),
        )
        return [Effect(EffectKind(kind), rollout, wave, key, error) for kind, rollout, wave, key, error in rows]

    def last_heartbeat(self, name: str) -> datetime | None:
        row = self.link.one("SELECT at FROM house WHERE name = ?", (f"alive:{name}",))
        return None if row is None else moment(row[0])

    def lease_holder(self, name: str) -> tuple[str, datetime] | None:
        row = self.link.one("SELECT owner, until_at FROM lease WHERE name = ?", (name,))
        return None if row is None else (row[0], moment(int(row[1])))


class JobWriting(JobReading):
    # Deltas
    def queue_builds(self, pairs: Mapping[DeltaPair, float], *, now: datetime, again: bool = False) -> int:
        queued = 0
        # In one order: two that queue the same builds at once wait for each other, never in a circle.
        for pair, weight in sorted(pairs.items(), key=lambda item: _pair(item[0])):
            newest = self.job(pair)
            if self.delta(pair) is not None or (newest is not None and newest.status is JobStatus.FAILED and not again):
                continue
            queued += self.link.run(
                "INSERT INTO build (from_commit, to_commit, status, weight, fence, attempts, stage, done, log, "
                "queued_at) "
                "VALUES (?, ?, 'queued', ?, 0, 0, '', 0, '', ?) ON CONFLICT DO NOTHING",
                (*_pair(pair), float(weight), stored(now)),
            )
        return queued

    def lease_build(self, owner: str, *, now: datetime, until: datetime) -> BuildJob | None:
        # Two workers on PostgreSQL pass over each other's choice; on SQLite the writer is alone.
        row = self.link.one(
            self.link.locked(
                "SELECT key FROM build WHERE status = 'queued' OR (status = 'running' AND lease_until <= ?) "
                "ORDER BY weight DESC, key LIMIT 1",
                "FOR UPDATE SKIP LOCKED",
            ),
            (stored(now),),
        )
        if row is None:
            return None
        self.link.run(
            "UPDATE build SET status = 'running', owner = ?, lease_until = ?, fence = fence + 1, attempts = attempts "
            "+ 1, "
            "started_at = ?, stage = '', done = 0, error = NULL WHERE key = ?",
            (owner, stored(until), stored(now), row[0]),
        )
        return job_of(self.link.rows(f"SELECT {_JOB} FROM build WHERE key = ?", row)[0])

    def renew_build(self, key: int, fence: int, *, until: datetime, stage: str, done: float, log: str) -> bool:
        tail = f"right(log || ?, {_LOG_KEPT})" if self.link.postgres else f"substr(log || ?, -{_LOG_KEPT})"
        return bool(
            self.link.run(
                f"UPDATE build SET lease_until = ?, stage = ?, done = ?, log = {tail} WHERE key = ? AND fence = ? "
                f"AND status = 'running'",
                (stored(until), stage, float(done), log, key, fence),
            )
        )

    def finish_build(
        self, key: int, fence: int, record: DeltaRecord | None, error: str | None, *, now: datetime, retry: bool = False
    ) -> bool:
        status = JobStatus.DONE if record is not None else JobStatus.QUEUED if retry else JobStatus.FAILED
        ended = self.link.run(
            "UPDATE build SET status = ?, error = ?, ended_at = ?, lease_until = NULL, owner = CASE WHEN ? THEN NULL "
            "ELSE owner END, attempts = attempts - ?, "
            "done = CASE WHEN ? THEN 1 ELSE done END WHERE key = ? AND fence = ? AND status = 'running'",
            (
                status.value,
                error,
                stored(now),
                status is JobStatus.QUEUED,
                1 if status is JobStatus.QUEUED else 0,
                record is not None,
                key,
                fence,
            ),
        )
        if ended and record is not None:
            self.record_delta(record, now=now)
        return bool(ended)

    def record_delta(self, record: DeltaRecord, *, now: datetime) -> None:
        self.link.run(
            f"INSERT INTO delta ({DELTA_COLUMNS}, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT "
            f"(from_commit, to_commit) DO UPDATE "
            "SET path = excluded.path, parts = excluded.parts, bytes = excluded.bytes, fallbacks = excluded.fallbacks, "
            "fallback_bytes = excluded.fallback_bytes, build_seconds = excluded.build_seconds, cpu_seconds = "
            "excluded.cpu_seconds, "
            "recorded_at = excluded.recorded_at",
            (
                *_pair(record.pair),
                record.path,
                record.parts,
                record.bytes,
                record.fallbacks,
                record.fallback_bytes,
                record.build_seconds,
                record.cpu_seconds,
                stored(now),
            ),
        )

    def forget_delta(self, pair: DeltaPair) -> bool:
        return bool(self.link.run("DELETE FROM delta WHERE from_commit = ? AND to_commit = ?", _pair(pair)))

    # The house
    def add_effects(self, effects: Sequence[Effect]) -> None:
        for one in effects:
            kind, wave = one.kind.value, one.wave
            # Of looks one is enough, however long it cannot be done. What withdraws is added always: the one that
            # waits may be under way, and not see the offers of since.
            waits = one.kind in (EffectKind.ENSURE_DELTAS, EffectKind.ASK_GATES) and self.link.one(
                "SELECT 1 FROM effect WHERE kind = ? AND rollout = ? AND coalesce(wave, '') = ? LIMIT 1",
                (kind, one.rollout, wave or ""),
            )
            if not waits:
                self.link.run("INSERT INTO effect (kind, rollout, wave) VALUES (?, ?, ?)", (kind, one.rollout, wave))

    def finish_effect(self, key: int) -> None:
        self.link.run("DELETE FROM effect WHERE key = ?", (key,))

    def fail_effect(self, key: int, error: str) -> None:
        self.link.run("UPDATE effect SET error = ? WHERE key = ?", (error, key))

    def freeze(self, reason: Reason | None) -> None:
        self.link.run("UPDATE house SET note = ? WHERE name = ?", (None if reason is None else as_json(reason), FROZEN))

    def take_lease(self, name: str, owner: str, *, now: datetime, until: datetime) -> bool:
        found = self.link.rows(
            "INSERT INTO lease (name, owner, until_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
            "SET owner = excluded.owner, until_at = excluded.until_at WHERE lease.owner = excluded.owner OR "
            "lease.until_at <= ? "
            "RETURNING owner",
            (name, owner, stored(until), stored(now)),
        )
        return bool(found)

    def drop_lease(self, name: str, owner: str) -> None:
        self.link.run("DELETE FROM lease WHERE name = ? AND owner = ?", (name, owner))

    def heartbeat(self, name: str, *, now: datetime) -> datetime | None:
        row = self.link.one(self.link.locked("SELECT at FROM house WHERE name = ?"), (f"alive:{name}",))
        self._note(f"alive:{name}", now, later="excluded.at")
        return None if row is None else moment(row[0])

    def latest_tick(self, *, now: datetime) -> datetime:
        later = "CASE WHEN house.at > excluded.at THEN house.at ELSE excluded.at END"
        return self._note("tick", now, later=later)

    def _note(self, name: str, now: datetime, *, later: str) -> datetime:
        row = self.link.rows(
            f"INSERT INTO house (name, at) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET at = {later} RETURNING at",
            (name, stored(now)),
        )[0]
        return moment(int(row[0]))
