"""The builder: one job after the other, whatever fails and whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.processes import Workers
from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.errors import Busy, Unavailable
from orchestrator.services.builder import LEASED_AT_MOST, LOG_AT_MOST, Builder, Pace
from orchestrator.services.delta_provider import BuildProgress, DeltaPair, DeltaRecord
from orchestrator.services.records import BuildJob, JobStatus
from tests.services.fake_provider import FakeProvider, commit
from tests.waiting import gone, until

T0 = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
PAIR = DeltaPair(commit(5), commit(9))
OTHER = DeltaPair(commit(7), commit(9))
COMMITS = [commit(5), commit(7), commit(9)]


class Bench:
    """A store in memory, a fake provider, a builder and a clock that only the test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = T0
        self.store = open_store("sqlite://")
        self.provider = FakeProvider(folder, COMMITS)
        self.pokes = 0
        self.stop = threading.Event()
        self.builder = self.another("b1")

    def clock(self) -> datetime:
        return self.now

    def poke(self) -> None:
        self.pokes += 1

    def another(self, owner: str, pace: Pace | None = None) -> Builder:
        return Builder(self.store, self.provider, self.clock, owner=owner, pace=pace, poke=self.poke)

    def queue(self, *pairs: DeltaPair) -> None:
        with self.store.writing() as w:
            w.queue_builds(dict.fromkeys(pairs, 1.0), now=self.now, again=True)

    def job(self, pair: DeltaPair = PAIR) -> BuildJob:
        return job_of(self.store, pair)


def job_of(store: SqlStore, pair: DeltaPair = PAIR) -> BuildJob:
    with store.reading() as r:
        job = r.job(pair)
    assert job is not None
    return job


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# ---------------------------------------------------------------------------------------------------- one builder


def test_a_job_is_built_recorded_and_told(bench: Bench) -> None:
    bench.queue(PAIR)
    assert bench.builder.work_once(bench.stop)
    assert not bench.builder.work_once(bench.stop)
    job = bench.job()
    assert (job.status, job.done, job.error, bench.pokes) == (JobStatus.DONE, 1.0, None, 1)
    assert job.log.splitlines()[0] == "--- try 1 by b1 at 2026-05-04 09:00:00 UTC"
    with bench.store.reading() as r:
        assert r.delta(PAIR) is not None


def test_what_may_pass_is_tried_three_times_with_growing_waits(bench: Bench) -> None:
    """0 s: fails; 20 s later: fails; 60 s after that: works. Meanwhile nobody takes the job."""
    bench.provider.order("fail", 2)
    bench.queue(PAIR)
    bench.builder.work_once(bench.stop)
    assert bench.job().stage == "waiting for try 2 of 3"
    bench.now += timedelta(seconds=19)
    assert not bench.another("b2").work_once(bench.stop)
    bench.now += timedelta(seconds=2)
    assert bench.builder.work_once(bench.stop)
    bench.now += timedelta(seconds=59)
    assert not bench.builder.work_once(bench.stop)
    assert bench.pokes == 0
    bench.now += timedelta(seconds=2)
    assert bench.another("b2").work_once(bench.stop)
    assert (bench.job().status, bench.job().attempts, bench.pokes) == (JobStatus.DONE, 3, 1)
    assert bench.job().log.count("failed: The disk is full.") == 2


def test_after_the_third_failure_it_has_failed(bench: Bench) -> None:
    bench.provider.order("fail", 9)
    bench.queue(PAIR)
    for _ in range(3):
        assert bench.builder.work_once(bench.stop)
        bench.now += timedelta(hours=1)
    assert not bench.builder.work_once(bench.stop)
    assert (bench.job().status, bench.job().error, bench.pokes) == (JobStatus.FAILED, "The disk is full.", 1)


def test_content_that_is_not_there_is_not_waited_for(bench: Bench) -> None:
    bench.provider.order("gone")
    bench.queue(PAIR)
    bench.builder.work_once(bench.stop)
    assert (bench.job().status, bench.job().error) == (JobStatus.FAILED, "The commit has been pruned.")


def test_a_fault_of_the_provider_ends_the_try_and_not_the_builder(bench: Bench) -> None:
    crash = bench.provider.order("crash")
    bench.queue(PAIR)
    assert bench.builder.work_once(bench.stop)
    assert "ZeroDivisionError" in bench.job().log
    crash.unlink()
    bench.now += timedelta(hours=1)
    assert bench.builder.work_once(bench.stop)
    assert bench.job().status is JobStatus.DONE


def test_a_job_that_kills_its_builders_is_given_up(bench: Bench) -> None:
    bench.queue(PAIR)
    for _ in range(LEASED_AT_MOST):
        with bench.store.writing() as w:
            assert w.lease_build("dies", now=bench.now, until=bench.now + timedelta(seconds=30)) is not None
        bench.now += timedelta(minutes=1)
    assert bench.builder.work_once(bench.stop)
    assert bench.job().status is JobStatus.FAILED
    assert "never came to an end" in (bench.job().error or "")


def test_stopping_ends_the_build_and_gives_the_job_back(bench: Bench) -> None:
    hang = bench.provider.order("hang")
    bench.queue(PAIR)
    thread = threading.Thread(target=bench.builder.run, args=(bench.stop,))
    thread.start()
    until("it is built", lambda: bench.job().status is JobStatus.RUNNING, within=20)
    bench.stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive()
    job = bench.job()
    assert (job.status, job.owner) == (JobStatus.QUEUED, None)
    assert "the builder was stopped" in job.log
    hang.unlink()
    assert bench.another("b2").work_once(threading.Event())
    assert bench.job().status is JobStatus.DONE
    assert "try 1 by b1" in bench.job().log and "try 1 by b2" in bench.job().log


def test_a_builder_that_is_stopped_uses_up_no_try(bench: Bench) -> None:
    """Three restarts of the server, then a failure that may pass: it is the first, and the job is tried again."""
    hang = bench.provider.order("hang")
    bench.queue(PAIR)
    for _ in range(3):
        stopped = threading.Event()
        stopped.set()
        assert bench.builder.work_once(stopped)
        assert (bench.job().status, bench.job().attempts) == (JobStatus.QUEUED, 0)
    hang.unlink()
    bench.provider.order("fail", 1)
    assert bench.builder.work_once(bench.stop)
    assert bench.job().stage == "waiting for try 2 of 3"


def test_who_has_lost_the_lease_stops_and_writes_nothing(bench: Bench) -> None:
    """By another machine's clock the lease is over, so it takes the job; the first must not say that it failed."""
    hang = bench.provider.order("hang")
    bench.queue(PAIR)
    slow = bench.another("slow", Pace(lease=timedelta(seconds=0.3)))
    thread = threading.Thread(target=slow.work_once, args=(bench.stop,))
    thread.start()
    until("it has begun", lambda: "step" in bench.job().log, within=20)
    later = bench.now + timedelta(minutes=5)
    with bench.store.writing() as w:
        taken = w.lease_build("quick", now=later, until=later + timedelta(hours=1))
    assert taken is not None
    thread.join(timeout=5)
    assert not thread.is_alive()
    hang.unlink()
    job = bench.job()
    assert (job.status, job.owner, job.fence) == (JobStatus.RUNNING, "quick", taken.fence)


def test_a_long_build_keeps_its_lease_and_writes_at_most_once_a_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[float] = []

    class Chatty(FakeProvider):
        def _build(
            self, pair: DeltaPair, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
        ) -> DeltaRecord:
            until = time.monotonic() + 2.5
            number = 0
            while time.monotonic() < until:
                number += 1
                progress(BuildProgress("generate", 0.5, f"line {number}"))
                time.sleep(0.001)
            return self.publish(pair)

    bench.queue(PAIR)
    provider = Chatty(bench.provider.folder, COMMITS)
    real = bench.store.writing

    def counted() -> object:
        writes.append(time.monotonic())
        return real()

    builder = Builder(bench.store, provider, bench.clock, owner="b")
    monkeypatch.setattr(bench.store, "writing", counted)
    assert builder.work_once(bench.stop)
    assert len(writes) <= 2 + 3  # the lease, the end, and one for each second
    log = bench.job().log
    assert "line 1\n" in log and log.count("\nline ") > 500
    assert len(set(log.splitlines())) == len(log.splitlines())


def test_a_log_that_runs_wild_is_cut(bench: Bench) -> None:
    class Wild(FakeProvider):
        def _build(
            self, pair: DeltaPair, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
        ) -> DeltaRecord:
            for _ in range(300):
                progress(BuildProgress("generate", 0.5, "x" * 1000))
            return self.publish(pair)

    bench.queue(PAIR)
    provider = Wild(bench.provider.folder, COMMITS)
    assert Builder(bench.store, provider, bench.clock, owner="b").work_once(bench.stop)
    log = bench.job().log
    assert len(log) < LOG_AT_MOST + 2000
    assert "more than fits" in log and log.endswith("--- ready: 10 bytes\n")


def test_a_store_that_is_busy_for_a_while_stops_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.queue(PAIR)
    real, failures = bench.store.writing, [Busy("The database is busy.")]

    def writing() -> object:
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(bench.store, "writing", writing)
    stop = threading.Event()
    thread = threading.Thread(target=bench.builder.run, args=(stop,))
    thread.start()
    until("it is done", lambda: bench.job().status is JobStatus.DONE, within=20)
    stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive()


# ---------------------------------------------------------------------------------------------------- several processes


class Processes:
    """Builders as processes on one database file and one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = f"sqlite:///{folder / 'wave.db'}"
        self.store = open_store(self.database)
        self.provider = FakeProvider(folder, COMMITS)
        self.started: list[subprocess.Popen[bytes]] = []

    def argv(self, owner: str, lease: float) -> list[str]:
        module = "tests.services.builder_process"
        return [sys.executable, "-m", module, self.database, str(self.folder), owner, str(lease), *COMMITS]

    def start(self, owner: str, lease: float = 1.0) -> subprocess.Popen[bytes]:
        self.started.append(subprocess.Popen(self.argv(owner, lease)))
        return self.started[-1]

    def queue(self, *pairs: DeltaPair) -> None:
        with self.store.writing() as w:
            w.queue_builds(dict.fromkeys(pairs, 1.0), now=datetime.now(UTC))

    def job(self, pair: DeltaPair = PAIR) -> BuildJob:
        return job_of(self.store, pair)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        self.store.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.close()


@pytest.mark.slow
def test_a_builder_that_is_killed_loses_nothing_but_time(processes: Processes) -> None:
    """0 s the first builds; killed with its log half written; a lease later the second builds it to its end."""
    processes.provider.order("steps", 40)
    processes.queue(PAIR)
    first = processes.start("first")
    until("it is under way", lambda: "step 3" in processes.job().log, within=20)
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed_at = time.monotonic()
    processes.provider.order("steps", 2)
    processes.start("second")
    until("it is done", lambda: processes.job().status is JobStatus.DONE, within=20)
    assert time.monotonic() - killed_at < 10
    job = processes.job()
    assert (job.attempts, job.fence) == (2, 2)
    assert "try 1 by first" in job.log and "step 3" in job.log and "try 2 by second" in job.log
    assert not (processes.folder / "twice").exists()


@pytest.mark.slow
def test_killed_at_any_moment_every_job_is_done_once(processes: Processes) -> None:
    """Three builders, killed and replaced every 0.3 s for a while: nothing is lost, nothing built twice at once."""
    pairs = [DeltaPair(before, after) for before in COMMITS for after in COMMITS if before != after]
    processes.provider.order("steps", 4)
    processes.queue(*pairs)
    for number in range(6):
        victim = processes.start(f"victim{number}", lease=2.0)
        time.sleep(0.3 + 0.15 * number)
        victim.kill()
        victim.wait()
    processes.start("a", lease=2.0)
    processes.start("b", lease=2.0)

    def done() -> bool:
        with processes.store.reading() as r:
            return len(r.deltas()) == len(pairs)

    until("every delta is there", done, within=60)
    until("all are done", lambda: all(processes.job(pair).status is JobStatus.DONE for pair in pairs), within=20)
    assert not (processes.folder / "twice").exists()
    assert set(processes.provider.published()) == set(pairs)


@pytest.mark.slow
def test_workers_are_started_again_when_they_die_and_stopped_by_their_own_pids(processes: Processes) -> None:
    processes.provider.order("hang")
    processes.queue(PAIR, OTHER)
    workers = Workers(processes.argv("w{number}", 1.0), count=2, nice=5)
    with workers:
        jobs = (PAIR, OTHER)
        until("both run", lambda: all(processes.job(each).status is JobStatus.RUNNING for each in jobs), within=20)
        before = workers.pids
        assert len(before) == 2
        assert all(os.getpgid(pid) == pid for pid in before)
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in before} == {min(os.nice(0) + 5, 19)}
        os.kill(before[0], signal.SIGKILL)
        until("it is replaced", lambda: len(workers.pids) == 2 and before[0] not in workers.pids, within=20)
        assert before[1] in workers.pids
    assert workers.pids == ()
    for pair in (PAIR, OTHER):
        assert processes.job(pair).status in (JobStatus.QUEUED, JobStatus.RUNNING)
    assert "the builder was stopped" in processes.job(PAIR).log + processes.job(OTHER).log


@pytest.mark.slow
def test_a_worker_that_dies_at_once_is_started_ever_more_rarely(tmp_path: Path) -> None:
    """0 s, 0.5 s, 1.5 s, 3.5 s after the first: not a storm."""
    starts = tmp_path / "starts"
    with Workers(["sh", "-c", f"echo {{number}} >> {starts}; exit 3"], count=1):
        time.sleep(3)
    assert 2 <= len(starts.read_text().split()) <= 3


def test_a_worker_that_cannot_be_run_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be started"):
        Workers([str(tmp_path / "nothing")], count=1).start()


@pytest.mark.slow
def test_a_worker_that_will_not_stop_is_killed_with_all_it_started(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    workers = Workers([sys.executable, str(script)], count=1, grace=timedelta(seconds=0.5))
    workers.start()
    child = tmp_path / "child"
    until("it has a child", lambda: child.exists() and child.read_text() != "", within=20)
    began = time.monotonic()
    workers.stop()
    assert time.monotonic() - began < 5
    gone([int(child.read_text())], within=20)


@pytest.mark.slow
def test_a_worker_whose_starter_is_killed_stops_by_itself(processes: Processes, tmp_path: Path) -> None:
    processes.provider.order("hang")
    processes.queue(PAIR)
    script = tmp_path / "starter.py"
    script.write_text(
        "import sys, time\n"
        "from orchestrator.adapters.processes import Workers\n"
        "workers = Workers(sys.argv[1:], count=1)\n"
        "workers.start()\n"
        "print(*workers.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = [sys.executable, str(script), *processes.argv("orphan", 1.0)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    starter = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment)
    processes.started.append(starter)
    assert starter.stdout is not None
    worker = int(starter.stdout.readline())
    until("it has begun", lambda: "step" in processes.job().log, within=20)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until("it is queued again", lambda: processes.job().status is JobStatus.QUEUED, within=20)
    gone([worker], within=20)
