"""A content system of files: commits that exist because a set says so, deltas that are one small file each.

State lies in a folder, so that several processes share one, as they would a repository. What a build does is told by
files in it: ``hang`` (until cancelled), ``fail`` (as often as the number in it says), ``gone`` (ContentUnavailable),
``crash`` (an exception that is no WaveError), ``steps`` (how many steps of 50 ms a build has). Two builds of one pair
at once write ``twice``.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import BuildFailed, ContentUnavailable, CorruptDelta, NotFound
from orchestrator.services.delta_provider import (
    BuildProgress,
    CommitRecord,
    DeltaEstimate,
    DeltaPair,
    DeltaRecord,
)

STEP_SECONDS = 0.05


def commit(name: str | int) -> str:
    """64 hex digits from a short name, such as a version: ``commit(5)`` is 0005 repeated."""
    return f"{int(name):04x}" * 16 if isinstance(name, int) else (name * 64)[:64]


class FakeProvider:
    name = "fake"

    def __init__(self, folder: Path, commits: Sequence[str] = ()) -> None:
        self.folder = folder
        self.known = set(commits)
        self.estimated: list[DeltaPair] = []
        self.found: list[DeltaPair] = []
        self.swept = 0

    def path(self, pair: DeltaPair) -> Path:
        return self.folder / f"{pair.from_commit or 'nothing'}-{pair.to_commit}.delta"

    def order(self, name: str, value: object = "") -> Path:
        file = self.folder / name
        file.write_text(str(value))
        return file

    def publish(self, pair: DeltaPair, size: int = 10) -> DeltaRecord:
        record = DeltaRecord(pair, f"deltas/{self.path(pair).name}", 1, size, 0, 0, 1.0, 1.0)
        beside = self.path(pair).with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({"bytes": size}))
        beside.rename(self.path(pair))
        return record

    def check(self) -> None:
        pass

    def refs(self) -> Mapping[str, str]:
        return {f"lmp/{one[:8]}": one for one in sorted(self.known)}

    def commits(self) -> Sequence[CommitRecord]:
        return [CommitRecord(one, (f"lmp/{one[:8]}",), "", 0) for one in sorted(self.known)]

    def has_commit(self, commit: str) -> bool:
        return commit in self.known

    def estimate(self, pair: DeltaPair) -> DeltaEstimate:
        self.estimated.append(pair)
        self._check(pair)
        return DeltaEstimate(likely_bytes=100, at_most_bytes=1000, objects=7, build_seconds=10.0)

    def settled(self, pair: DeltaPair) -> DeltaRecord | None:
        return None

    def find(self, pair: DeltaPair) -> DeltaRecord | None:
        self.found.append(pair)
        try:
            text = self.path(pair).read_text()
        except FileNotFoundError:
            return None
        if text == "broken":
            raise CorruptDelta("A part is missing.")
        return DeltaRecord(pair, f"deltas/{self.path(pair).name}", 1, json.loads(text)["bytes"], 0, 0)

    def published(self) -> Sequence[DeltaPair]:
        names = (file.stem.split("-") for file in sorted(self.folder.glob("*.delta")))
        return [DeltaPair(None if before == "nothing" else before, after) for before, after in names]

    def build(
        self, pair: DeltaPair, *, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        self._check(pair)
        if (published := self.find(pair)) is not None:
            return published
        mine = self.folder / f"{self.path(pair).stem}.building.{os.getpid()}"
        mine.touch()
        try:
            for other in self.folder.glob(f"{self.path(pair).stem}.building.*"):
                if other != mine and _lives(int(other.suffix[1:])):
                    self.order("twice", pair)
            return self._build(pair, progress, cancelled)
        finally:
            mine.unlink()

    def verify(self, pair: DeltaPair) -> DeltaRecord:
        record = self.find(pair)
        if record is None:
            raise NotFound("No delta is published.")
        return record

    def drop(self, pair: DeltaPair) -> bool:
        with contextlib.suppress(FileNotFoundError):
            self.path(pair).unlink()
            return True
        return False

    def sweep(self) -> int:
        self.swept += 1
        return 0

    def _build(
        self, pair: DeltaPair, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        if (self.folder / "gone").exists():
            raise ContentUnavailable("The commit has been pruned.")
        if (self.folder / "crash").exists():
            raise ZeroDivisionError("nobody expected this")
        fail = self.folder / "fail"
        if fail.exists() and (left := int(fail.read_text())) > 0:
            fail.write_text(str(left - 1))
            raise BuildFailed("The disk is full.")
        steps_file = self.folder / "steps"
        steps = int(steps_file.read_text()) if steps_file.exists() else 0
        number = 0
        while number < steps or (self.folder / "hang").exists():
            if cancelled():
                raise BuildFailed("The build was cancelled.")
            time.sleep(STEP_SECONDS)
            number += 1
            progress(BuildProgress("generate", min(number / max(steps, 1), 1.0), f"step {number}"))
        progress(BuildProgress("publish", 1.0))
        return self.publish(pair)

    def _check(self, pair: DeltaPair) -> None:
        for one in (pair.from_commit, pair.to_commit):
            if one is not None and one not in self.known:
                raise ContentUnavailable(f"The commit {one} is not in the repository.")


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
