"""Deltas and builds as pages list them: by pairs, by pages, and never a build's log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from orchestrator.adapters.sql.codec import decode_names, decode_state
from orchestrator.adapters.sql.jobs import DELTA_COLUMNS, JobReading, delta_of, job_of
from orchestrator.adapters.sql.rollouts import RolloutReading
from orchestrator.core.states import WaveStatus
from orchestrator.services.console_store import Made, NeededBy
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import BuildJob, DeltaNeed

_JOB: Final = (
    "key, from_commit, to_commit, status, weight, fence, owner, lease_until, attempts, stage, done, '' AS log, error, "
    "queued_at, started_at, ended_at"
)
_OVER: Final = (WaveStatus.CANCELLED, WaveStatus.SKIPPED)


class DeltaListReading(JobReading, RolloutReading):
    def needs_of(self, rollout_key: int) -> Mapping[str, Sequence[DeltaNeed]]:
        found: dict[str, list[DeltaNeed]] = defaultdict(list)
        for wave, *need in self.link.rows(
            "SELECT wave, from_commit, to_commit, devices, known FROM need WHERE rollout_key = ? "
            "ORDER BY wave, devices DESC, from_commit, to_commit",
            (rollout_key,),
        ):
            found[wave].append(_need(*need))
        return found

    def needed_now(self) -> Mapping[DeltaPair, Sequence[NeededBy]]:
        condition, parameters = self.offering_condition()
        offering = {
            key: (name, {wave.wave for wave in decode_state(state).waves if wave.status not in _OVER})
            for key, name, state in self.link.rows(
                f"SELECT key, name, state FROM rollout WHERE {condition}", parameters
            )
        }
        found: dict[DeltaPair, list[NeededBy]] = defaultdict(list)
        chosen, keys = self.link.within("rollout_key", sorted(offering))
        for key, wave, *rest in self.link.rows(
            f"SELECT rollout_key, wave, from_commit, to_commit, devices, known FROM need WHERE {chosen} "
            "ORDER BY rollout_key DESC, wave",
            (keys,),
        ):
            name, waves = offering[key]
            if wave in waves:
                need = _need(*rest)
                found[need.pair].append(NeededBy(f"{name}/{wave}", need.devices, need.known))
        return found

    def made_of(self, commits: Collection[str]) -> Mapping[str, Made]:
        versions: dict[str, set[int]] = defaultdict(set)
        hardware_ids: dict[str, set[str]] = defaultdict(set)
        condition, listed = self.link.within("commit_id", sorted(commits))
        for commit, version, names in self.link.rows(
            f"SELECT commit_id, version, hardware_ids FROM target WHERE {condition}", (listed,)
        ):
            versions[commit].add(version)
            hardware_ids[commit].update(decode_names(names))
        return {
            commit: Made(tuple(sorted(versions[commit], reverse=True)), frozenset(hardware_ids[commit]))
            for commit in versions
        }

    def deltas_of(self, pairs: Collection[DeltaPair]) -> Mapping[DeltaPair, DeltaRecord]:
        condition, parameters = self._among(pairs)
        rows = self.link.rows(f"SELECT {DELTA_COLUMNS} FROM delta WHERE {condition}", parameters)
        return {record.pair: record for record in map(delta_of, rows) if record.pair in pairs}

    def jobs_of(self, pairs: Collection[DeltaPair]) -> Mapping[DeltaPair, BuildJob]:
        condition, parameters = self._among(pairs)
        rows = self.link.rows(
            f"SELECT {_JOB} FROM build WHERE key IN (SELECT max(key) FROM build WHERE {condition} "
            "GROUP BY from_commit, to_commit)",
            parameters,
        )
        return {job.pair: job for job in map(job_of, rows) if job.pair in pairs}

    def unsettled(self, *, limit: int) -> Sequence[BuildJob]:
        rows = self.link.rows(
            f"SELECT {_JOB} FROM build b WHERE b.status <> 'done' AND NOT EXISTS (SELECT 1 FROM build n "
            "WHERE n.from_commit = b.from_commit AND n.to_commit = b.to_commit AND n.key > b.key) "
            "AND NOT EXISTS (SELECT 1 FROM delta d WHERE d.from_commit = b.from_commit AND d.to_commit = b.to_commit) "
            "ORDER BY b.key DESC LIMIT ?",
            (limit,),
        )
        return [job_of(row) for row in rows]

    def delta_page(self, *, offset: int, limit: int) -> Sequence[DeltaRecord]:
        rows = self.link.rows(
            f"SELECT {DELTA_COLUMNS} FROM delta ORDER BY recorded_at DESC, to_commit DESC, from_commit DESC "
            "LIMIT ? OFFSET ?",
            (limit, offset),
        )
        return [delta_of(row) for row in rows]

    def count_deltas(self) -> int:
        row = self.link.one("SELECT count(*) FROM delta")
        return 0 if row is None else int(row[0])

    def _among(self, pairs: Collection[DeltaPair]) -> tuple[str, tuple[Any, ...]]:
        """From one of these commits to one of these: the pairs, and perhaps others."""
        first, starts = self.link.within("from_commit", sorted({pair.from_commit or "" for pair in pairs}))
        second, ends = self.link.within("to_commit", sorted({pair.to_commit for pair in pairs}))
        return f"{first} AND {second}", (starts, ends)


def _need(start: str, end: str, devices: int, known: int) -> DeltaNeed:
    return DeltaNeed(DeltaPair(start or None, end), devices, known == 1)
