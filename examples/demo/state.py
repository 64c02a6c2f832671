"""What the demo reads from the installation while it runs, through the store. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from examples.demo.stage import Stage
from orchestrator.bootstrap import load_settings, open_store, utc_now
from orchestrator.core.journal import Entry
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus
from orchestrator.errors import Busy
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.queries import Queries
from orchestrator.services.records import BuildJob, JobStatus, LoggedEvent, RunningCount, UpdateRow
from orchestrator.services.views import RolloutView


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look. ``entries``: what the journals said since the look before, oldest first, with the rollout."""

    at: datetime
    rollouts: tuple[RolloutView, ...] = ()
    running: tuple[RunningCount, ...] = ()
    deltas: tuple[DeltaRecord, ...] = ()
    jobs: tuple[BuildJob, ...] = ()
    entries: tuple[tuple[str, Entry], ...] = ()

    def rollout(self, name: str) -> RolloutView | None:
        return next((each for each in self.rollouts if each.summary.rollout == name), None)

    def status(self, name: str) -> RolloutStatus | None:
        found = self.rollout(name)
        return found.summary.status if found else None


class Reader:
    """Looks at the installation. Not for several threads at once."""

    def __init__(self, stage: Stage) -> None:
        settings = load_settings(stage.root / "wave.yaml", {})
        self.store = open_store(settings)
        self.queries = Queries(self.store, utc_now, lambda device: ())
        self._read: dict[str, int] = {}
        self._last = Snapshot(utc_now())

    def look(self) -> Snapshot:
        """Now; when the store is busy for a moment, what was seen before."""
        try:
            with self.store.reading() as r:
                rows = list(reversed(r.rollouts()))
                fresh: list[tuple[str, Entry]] = []
                for row in rows:
                    name = row.state.rollout
                    entries = r.journal(row.key, after=self._read.get(name, 0))
                    fresh += [(name, entry) for entry in entries]
                    if entries:
                        self._read[name] = entries[-1].seq
                running, deltas, jobs = tuple(r.running()), tuple(r.deltas()), tuple(r.jobs())
            views = tuple(self.queries.rollout(row.state.rollout) for row in rows)
        except Busy:
            return self._last
        fresh.sort(key=lambda each: each[1].at)
        self._last = Snapshot(utc_now(), views, running, deltas, jobs, tuple(fresh))
        return self._last

    def close(self) -> None:
        self.store.close()


@dataclass(frozen=True, slots=True)
class WaveStory:
    """One wave as it went, from the journal and the tallies."""

    wave: str
    status: str
    devices: int
    offered: int
    confirmed: int
    bad: int
    withdrawn: int
    deltas_ready: int
    deltas: int
    opened_at: datetime | None
    ended_at: datetime | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Halt:
    """The halt as the server's record has it. ``proof``: the last bad report received before it; ``last_offer_at``: by
    the server's clock; ``offers_after``: offers given after the receipt of that report, up to the end of the record."""

    at: datetime
    sentence: str
    proof: LoggedEvent | None
    last_offer_at: datetime | None
    offers_after: int


@dataclass(frozen=True, slots=True)
class RolloutStory:
    """A rollout as it went."""

    name: str
    version: int
    status: str
    devices: int
    offered: int
    confirmed: int
    bad: Mapping[str, int]
    started_at: datetime | None
    ended_at: datetime | None
    last: str
    waves: Sequence[WaveStory]
    halt: Halt | None = None
    updates: Sequence[tuple[str, UpdateRow]] = field(default=(), repr=False)


def tell(reader: Reader, name: str) -> RolloutStory:
    """Read a whole rollout back from the store."""
    view = reader.queries.rollout(name)
    with reader.store.reading() as r:
        row = r.rollout(name)
        assert row is not None
        entries = r.journal(row.key, limit=10_000)
        updates = tuple(r.list_updates(row.key, limit=100_000))
        events = tuple(r.events(rollout=name, limit=100_000))
    started = next((entry.at for entry in entries if entry.event == "started"), None)
    ended = [entry for entry in entries if entry.event in ("completed", "cancelled")]
    halted = next((entry for entry in entries if entry.event == "halted"), None)
    return RolloutStory(
        name,
        view.summary.target_version,
        view.summary.status.value,
        view.summary.devices,
        view.summary.offered,
        view.summary.confirmed,
        {each.value: count for each in OutcomeClass if (count := sum(wave.facts.bad(each) for wave in view.waves))},
        started,
        ended[-1].at if ended else None,
        ended[-1].sentence if ended else view.summary.standing.reason.sentence,
        [_wave_story(wave, entries) for wave in view.waves],
        _halt(halted, updates, events) if halted else None,
        updates,
    )


def _wave_story(wave: object, entries: Sequence[Entry]) -> WaveStory:
    from orchestrator.services.views import WaveView

    assert isinstance(wave, WaveView)
    name, facts = wave.state.wave, wave.facts
    own = [entry for entry in entries if entry.wave == name]
    opened = next((entry.at for entry in own if entry.event == "opened"), None)
    passed = next((entry for entry in own if entry.event == "passed"), None)
    return WaveStory(
        name,
        wave.state.status.value,
        facts.members,
        facts.offered,
        facts.confirmed,
        sum(facts.bad(each) for each in OutcomeClass),
        sum(piece.withdrawn for piece in facts.slices),
        facts.deltas.ready if facts.deltas else 0,
        facts.deltas.pairs if facts.deltas else 0,
        opened,
        passed.at if passed else None,
        passed.sentence if passed else wave.state.standing.reason.sentence,
    )


def _halt(entry: Entry, updates: Sequence[tuple[str, UpdateRow]], events: Sequence[LoggedEvent]) -> Halt:
    bad = {each.value for each in OutcomeClass}
    # the halt is written by the transaction that counts the report, under the same time
    proving = [event for event in events if event.received_at <= entry.at and event.kind in bad]
    proof = proving[-1] if proving else None
    offers = [row.update.offered_at for _, row in updates]
    received = proof.received_at if proof else entry.at
    return Halt(entry.at, entry.sentence, proof, max(offers, default=None), sum(at > received for at in offers))


def under_way(jobs: Sequence[BuildJob]) -> list[BuildJob]:
    """Builds that are queued or running, those running first."""
    order = {JobStatus.RUNNING: 0, JobStatus.QUEUED: 1}
    return sorted((job for job in jobs if job.status in order), key=lambda job: (order[job.status], job.key))


def ready(deltas: Sequence[DeltaRecord]) -> dict[DeltaPair, DeltaRecord]:
    return {record.pair: record for record in deltas}
