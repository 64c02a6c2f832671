"""A repository of commits that exist in name only: deltas take virtual time, fail when told to, and are never there by
half."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import BuildFailed, ContentUnavailable, NotFound
from orchestrator.services.delta_provider import BuildProgress, CommitRecord, DeltaEstimate, DeltaPair, DeltaRecord


def commit_of(hardware_id: str, version: int) -> str:
    """The content of a version on a board; the same in every run."""
    return hashlib.sha256(f"{hardware_id} {version}".encode()).hexdigest()


@dataclass
class Content:
    """The provider of the stories. ``seconds``: what a build takes; ``failures``: how often each from commit's build
    still fails (a large number: for ever)."""

    name: str = "ostree"
    seconds: float = 600.0
    known: set[str] = field(default_factory=set)
    whole: dict[DeltaPair, DeltaRecord] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    built: list[DeltaPair] = field(default_factory=list)

    def check(self) -> None: ...

    def refs(self) -> Mapping[str, str]:
        return {}

    def commits(self) -> Sequence[CommitRecord]:
        return [CommitRecord(commit, (), "", 0) for commit in sorted(self.known)]

    def has_commit(self, commit: str) -> bool:
        return commit in self.known

    def estimate(self, pair: DeltaPair) -> DeltaEstimate:
        for commit in (pair.from_commit, pair.to_commit):
            if commit is not None and commit not in self.known:
                raise ContentUnavailable(f"The commit {commit} is not there.")
        return DeltaEstimate(likely_bytes=1_000_000, at_most_bytes=20_000_000, objects=100, build_seconds=self.seconds)

    def settled(self, pair: DeltaPair) -> DeltaRecord | None:
        return None

    def find(self, pair: DeltaPair) -> DeltaRecord | None:
        return self.whole.get(pair)

    def published(self) -> Sequence[DeltaPair]:
        return list(self.whole)

    def build(
        self, pair: DeltaPair, *, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        left = self.failures.get(pair.from_commit or "", 0)
        if left:
            self.failures[pair.from_commit or ""] = left - 1
            raise BuildFailed(f"The builder ran out of memory at {pair.from_commit}.")
        self.built.append(pair)
        path = f"deltas/{(pair.from_commit or '')[:8]}-{pair.to_commit[:8]}"
        self.whole[pair] = DeltaRecord(pair, path, 1, 1_000_000, 0, 0, build_seconds=self.seconds)
        return self.whole[pair]

    def verify(self, pair: DeltaPair) -> DeltaRecord:
        if pair not in self.whole:
            raise NotFound("There is no such delta.")
        return self.whole[pair]

    def drop(self, pair: DeltaPair) -> bool:
        return self.whole.pop(pair, None) is not None

    def sweep(self) -> int:
        return 0
