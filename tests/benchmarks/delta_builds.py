"""Deltas built by two builders at once against one after the other: ``python -m tests.benchmarks.delta_builds``.

The repository of the demo (real programs and libraries of this machine, two boards, four versions); every delta to the
last version, in real builder processes on one queue. Time is from the first lease to the last delta recorded, so that
starting Python is not counted. A round builds both ways on fresh copies of the same commits; of several rounds the
shortest time of each way counts, for on a shared machine others only ever add to it.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from examples.demo.trees import VERSIONS, make_repository, repository_path
from orchestrator.adapters.ostree.provider import OstreeProvider, OstreeSettings
from orchestrator.adapters.sql.store import open_store
from orchestrator.services.builder import Builder, Pace
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.records import JobStatus
from tests.benchmarks.figures import figure

BUILDERS = 2
ROUNDS = 3
AT_LEAST = 1.3
"""How many times as fast two builders on two cores must be."""


@dataclass(frozen=True, slots=True)
class Run:
    """``seconds`` on the clock, ``cpu_seconds`` of all processes, ``parts`` as digests by path, bytes of deltas.
    ``load``: the machine's load average when the run began: above its cores, ``seconds`` say little."""

    load: float
    seconds: float
    cpu_seconds: float
    parts: dict[str, str]
    bytes: int


def work(repository: Path, database: str, owner: str) -> None:
    """A builder that ends when nothing is left to do."""
    store = open_store(database)
    provider = OstreeProvider(OstreeSettings(repository, nice=0))
    builder = Builder(store, provider, lambda: datetime.now(UTC), owner=owner, pace=Pace(idle=timedelta(seconds=0.05)))
    while builder.work_once(threading.Event()):
        pass
    store.close()


def run(original: Path, folder: Path, pairs: list[DeltaPair], builders: int) -> Run:
    """Build all pairs in an own copy of the repository. Raises RuntimeError when one could not be built."""
    repository, database = folder / "repo", f"sqlite:///{folder / 'wave.db'}"
    folder.mkdir()
    load = os.getloadavg()[0]
    subprocess.run(["cp", "-al", original, repository], check=True)
    store = open_store(database)
    with store.writing() as w:
        # the largest first, as the planner would have it
        w.queue_builds({pair: float(len(pairs) - number) for number, pair in enumerate(pairs)}, now=datetime.now(UTC))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tests.benchmarks.delta_builds", "work", str(repository), database]
    processes = [subprocess.Popen([*command, f"builder-{number}"]) for number in range(builders)]
    for process in processes:
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with store.reading() as r:
        jobs, records = r.jobs(), r.deltas()
    store.close()
    if not all(job.status is JobStatus.DONE for job in jobs) or len(records) != len(pairs):
        raise RuntimeError(f"Not all was built: {[(job.status, job.error) for job in jobs]}.")
    started = min(job.started_at for job in jobs if job.started_at is not None)
    ended = max(job.ended_at for job in jobs if job.ended_at is not None)
    deltas = repository / "deltas"
    parts = {
        str(file.relative_to(deltas)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(deltas.rglob("*"))
        # a superblock carries the time of its making
        if file.is_file() and file.name != "superblock"
    }
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(load, (ended - started).total_seconds(), cpu, parts, sum(record.bytes for record in records))


def main(rounds: int = ROUNDS) -> int:
    """Print the table; 0 when two builders are fast enough and build the same."""
    scratch = Path(".benchmarks")
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        root = Path(place).absolute()
        commits = make_repository(root, report=lambda sentence: None)
        last = VERSIONS[-1]
        pairs = [DeltaPair(commits[of, version], commits[of, last]) for of, version in commits if version != last]
        runs: dict[int, list[Run]] = {1: [], BUILDERS: []}
        for number in range(rounds):
            for builders, found in runs.items():
                found.append(run(repository_path(root), root / f"run-{number}-{builders}", pairs, builders))
    alone, together = (min(found, key=lambda each: each.seconds) for found in runs.values())
    print(
        f"{len(pairs)} deltas, {alone.bytes / 1e6:.1f} MB, {len(alone.parts)} parts; {rounds} rounds, the best of each"
    )
    print("builders   seconds   CPU seconds   all rounds (load when it began)")
    for builders, best in ((1, alone), (BUILDERS, together)):
        every = ", ".join(f"{each.seconds:.1f} ({each.load:.1f})" for each in runs[builders])
        print(f"{builders:8d} {best.seconds:9.1f} {best.cpu_seconds:13.1f}   {every}")
    gain = alone.seconds / together.seconds
    same = all(each.parts == alone.parts for found in runs.values() for each in found)
    print(f"{BUILDERS} builders are {gain:.2f} times as fast (at least {AT_LEAST} are asked for).")
    print(f"Parts are {'byte-identical' if same else 'NOT the same'} in all runs.")
    figure(
        f"{len(pairs)} deltas by {BUILDERS} builders against one after the other",
        f"{gain:.2f} times as fast; {together.cpu_seconds:.0f} against {alone.cpu_seconds:.0f} CPU seconds; parts "
        + ("byte-identical" if same else "NOT the same"),
        f"at least {AT_LEAST:g} times, parts identical",
    )
    return 0 if gain >= AT_LEAST and same else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        sys.exit(main(*map(int, sys.argv[1:2])))
