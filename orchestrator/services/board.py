"""The board: which rollouts might offer something, kept in memory and read anew when they change.

It lets an idle check-in be answered *none* without the database. It may never give an offer: that is decided inside the
transaction that writes it (``offering``), because a snapshot can be a second old (RULES 1.4).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.admission import Flow, flow, slowing
from orchestrator.core.artifact import FILES, Artifact, Format
from orchestrator.core.facts import Facts, MonitorFacts, WaveFacts, WaveState
from orchestrator.core.offers import Terms
from orchestrator.core.pace import Paced, counts_devices, limits
from orchestrator.core.rules import Rules
from orchestrator.core.slices import Slice
from orchestrator.core.states import LIVE_ROLLOUT, Reason, RolloutStatus, WaveStatus
from orchestrator.errors import WaveError
from orchestrator.services.chronicle import rules_of
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.installable import Download, smaller_file
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Reading, Store

_log = logging.getLogger(__name__)

FRESH_FOR: Final = timedelta(seconds=1)
"""How old the board may be before it is read again."""

READ_WHOLE_EVERY: Final = timedelta(seconds=10)
"""How long the store's pulse is believed when it says that nothing changed."""

REACH: Final = timedelta(days=7)
"""A device unseen for so long has been away, where no rollout of its tag says otherwise."""

LISTED: Final = LIVE_ROLLOUT | {RolloutStatus.COMPLETED}

WHOLE: Final = ""
"""Among the rates of a rollout, its own: the others have their wave's name."""

REGISTER: Final = "device-register"
"""The mark that every change of devices by a person leaves, so that what is cached of them is read again."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One rollout with a scope on the board. ``names``: the Target's name by hardware id. ``known``: from-commits that
    the last look found in the repository or missing, by wave. ``artifacts``: files that its Targets are, by commit.
    ``offers_since``: the rollout's version since which no word about it, or a wave of it, has taken offers back."""

    row: RolloutRow
    terms: Terms
    names: Mapping[str, str]
    known: Mapping[str, Mapping[str | None, bool]]
    artifacts: Mapping[str, Artifact]
    offers_since: int

    @property
    def key(self) -> int:
        return self.row.key

    @property
    def rules(self) -> Rules:
        return self.terms.rules

    def format_of(self, commit: str) -> Format | None:
        """What kind of file a Target's commit is; None: no file."""
        artifact = self.artifacts.get(commit)
        return None if artifact is None else artifact.format


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The board at one moment. ``by_tag``: whom to ask for a device of the tag, in this order. ``smaller``: deltas that
    devices install as they are. Compared by identity: a reading that finds nothing new keeps the object."""

    listed: Mapping[int, Listed] = field(default_factory=dict)
    by_tag: Mapping[str, tuple[Listed, ...]] = field(default_factory=dict)
    by_name: Mapping[str, RolloutRow] = field(default_factory=dict)
    ready: frozenset[DeltaPair] = frozenset()
    smaller: Mapping[DeltaPair, Download] = field(default_factory=dict)
    register: object = None
    look: object = None
    reach: Mapping[str, timedelta] = field(default_factory=dict)


def reach_of(snapshot: Snapshot, tag: str) -> timedelta:
    """After how long unseen a device of this tag is a newcomer to the slices when it comes back: slices hold whom their
    policy's ``reach`` had seen, so whoever one of them left out must not pass for one of its members."""
    return snapshot.reach.get(tag, REACH)


def offers_since(row: RolloutRow, before: Listed | None) -> int:
    """See ``Listed``. Its epoch grows with every stop and every segment left out; a cancelled wave is the rest."""
    same = before is not None and _taking_back(before.row) == _taking_back(row)
    return before.offers_since if before is not None and same else row.version


def _taking_back(row: RolloutRow) -> tuple[int, frozenset[str]]:
    cancelled = (WaveStatus.CANCELLED, WaveStatus.SKIPPED)
    return row.state.epoch, frozenset(wave.wave for wave in row.state.waves if wave.status in cancelled)


def candidates(rows: Iterable[RolloutRow], tag: str) -> list[RolloutRow]:
    """Whom to ask for a device of this tag: live rollouts, then the newest completed one only (RULES 7.1)."""
    live, completed = [], None
    for row in rows:
        if row.tag != tag:
            continue
        if row.state.status in LIVE_ROLLOUT:
            live.append(row)
        elif row.state.status is RolloutStatus.COMPLETED and (
            completed is None or row.state.standing.since > completed.state.standing.since
        ):
            completed = row
    return live + ([] if completed is None else [completed])


def terms_of(
    row: RolloutRow,
    *,
    rules: Rules,
    slices: Mapping[str, Sequence[Slice]],
    r: Reading,
    frozen: Reason | None,
    facts: Facts | None = None,
) -> Terms:
    """A rollout as far as offers depend on it. With ``facts`` at hand less is read."""
    assert row.scope is not None
    budgets = r.budgets(row.key) if facts is None else facts.budgets
    flow, wave_flows = flows_of(row, rules, r) if facts is None else flows_in(facts, row, rules, r)
    return Terms(
        state=row.state,
        rules=rules,
        scope=row.scope,
        slices=slices,
        flow=flow,
        wave_flows=wave_flows,
        budget=next((budget for budget in budgets if budget.reached), None),
        frozen=frozen,
    )


def flows_of(row: RolloutRow, rules: Rules, r: Reading) -> tuple[Flow, dict[str, Flow]]:
    """How many are at it, in the rollout and in the waves that limit it themselves or that an amber monitor slows. Who
    is at it is counted only where something asks for it."""
    return _flows(row, rules, r, *r.flowing(row, counted=_any(rules, counts_devices)))


def flows_in(facts: Facts, row: RolloutRow, rules: Rules, r: Reading) -> tuple[Flow, dict[str, Flow]]:
    """The same, where the facts are at hand: the slices are not read again."""
    stained = [each for each in facts.monitors if each.bad and not each.accepted and each.segment is None]
    waves = facts.waves if stained or _any(rules, counts_devices) else ()
    return _flows(row, rules, r, waves, stained)


def _flows(
    row: RolloutRow, rules: Rules, r: Reading, waves: Sequence[WaveFacts], monitors: Sequence[MonitorFacts]
) -> tuple[Flow, dict[str, Flow]]:
    spent = r.spent(row.key) if _any(rules, lambda paced: paced.rate is not None) else {}
    flows = {
        own.wave: flow(waves, monitors, rules.tolerate, wave=own.wave, paced=own, spent_until=spent.get(own.wave))
        for own in rules.waves
        if limits(own) or slowing(monitors, own.wave)
    }
    return flow(waves, monitors, rules.tolerate, wave=None, paced=rules, spent_until=spent.get(WHOLE)), flows


def _any(rules: Rules, asked: Callable[[Paced], bool]) -> bool:
    return asked(rules) or any(asked(wave) for wave in rules.waves)


def paced(terms: Terms) -> bool:
    """Whether anything moves that limits offers without a decision: what was read of it is soon old."""
    amber = bool(terms.flow.amber) or any(flow.amber for flow in terms.wave_flows.values())
    return amber or terms.budget is not None or _any(terms.rules, limits)


def slices_by_wave(slices: Iterable[Slice]) -> dict[str, tuple[Slice, ...]]:
    found: dict[str, tuple[Slice, ...]] = {}
    for piece in slices:
        found[piece.wave] = (*found.get(piece.wave, ()), piece)
    return found


class Board:
    """Holds the snapshot. ``refresh`` reads it anew; ``look`` gives the present one and, when that is older than a
    second, asks ``later`` to have it read (by default at once, in the caller's thread)."""

    def __init__(
        self, store: Store, *, clock: Callable[[], datetime], later: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._later = later or (lambda work: work())
        self._guard = threading.Lock()
        self._asked = False
        self._read_at: datetime | None = None
        self._read_whole_at: datetime | None = None
        self.snapshot = Snapshot()

    def look(self, now: datetime) -> Snapshot:
        """The snapshot. Never raises: without the store the old one stands, which can only say *none* or *ask*."""
        if (self._read_at is None or abs(now - self._read_at) >= FRESH_FOR) and not self._asked:
            self._asked = True
            self._later(self._read_quietly)
        return self.snapshot

    def expire(self) -> None:
        """Something changed: read anew with the next look."""
        self._read_at = None

    def refresh(self, *, whole: bool = True) -> None:
        """Read it now; without ``whole`` only where the store's pulse says that something changed. Raises
        StoreUnavailable, Busy."""
        with self._guard:
            read_at = self._clock()
            if whole:
                self._read_whole_at = None
            with self._store.reading() as r:
                self.snapshot = self._read(r, self.snapshot, read_at)
            self._read_at = read_at

    def _read_quietly(self) -> None:
        try:
            self.refresh(whole=False)
        except WaveError as error:
            self._read_at = self._clock()
            _log.warning("the board could not be read: %s", error)
        finally:
            self._asked = False

    def _read(self, r: Reading, before: Snapshot, now: datetime) -> Snapshot:
        register = r.lease_holder(REGISTER)
        frozen = r.frozen()
        look = (r.pulse(), frozen, register)
        believed = self._read_whole_at is not None and abs(now - self._read_whole_at) < READ_WHOLE_EVERY
        moving = any(paced(each.terms) for each in before.listed.values())
        if look == before.look and believed and not moving:
            return before
        self._read_whole_at = now
        rows = r.offering()
        by_tag: dict[str, tuple[Listed, ...]] = {}
        listed: dict[int, Listed] = {}
        for tag in {row.tag for row in rows}:
            found = []
            for row in candidates(rows, tag):
                if row.scope is not None:
                    listed[row.key] = self._list(r, row, before.listed.get(row.key), frozen)
                    found.append(listed[row.key])
            by_tag[tag] = tuple(found)
        targets = {commit for each in listed.values() for commit in each.terms.scope.commits.values()}
        records = [record for record in r.deltas() if record.pair.to_commit in targets]
        ready = frozenset(record.pair for record in records)
        smaller = smaller_files(records, listed.values())
        reach = {tag: min(each.rules.reach for each in found) for tag, found in by_tag.items() if found}
        after = Snapshot(
            listed, by_tag, {row.state.rollout: row for row in rows}, ready, smaller, register, look, reach
        )
        same = (before.look, before.listed, before.ready, before.smaller) == (look, listed, ready, smaller)
        return before if same else after

    def _list(self, r: Reading, row: RolloutRow, before: Listed | None, frozen: Reason | None) -> Listed:
        rules = rules_of(row)
        if before is not None and before.row.version == row.version:
            slices, names, artifacts = before.terms.slices, before.names, before.artifacts
        else:
            slices, names = slices_by_wave(r.slices(row.key)), names_of(r, row)
            artifacts = artifacts_of(r, row.target_version)
        terms = terms_of(row, rules=rules, slices=slices, r=r, frozen=frozen)
        return Listed(row, terms, names, known_of(r, row), artifacts, offers_since(row, before))


def smaller_files(records: Iterable[DeltaRecord], listed: Iterable[Listed]) -> dict[DeltaPair, Download]:
    """Those of the deltas that are artifacts themselves."""
    files = {commit: artifact for each in listed for commit, artifact in each.artifacts.items()}
    found = ((record.pair, files.get(record.pair.to_commit), record) for record in records)
    made = ((pair, smaller_file(record, whole)) for pair, whole, record in found if whole is not None)
    return {pair: file for pair, file in made if file is not None}


def begun_of(
    r: Reading, wave: WaveState, needs: Mapping[str | None, bool], pair: DeltaPair, now: datetime
) -> datetime | None:
    """Since when the delta that a device of the wave misses is being made; None when that began before the wave opened,
    or when a look left it out. What no look has found is asked for now at the latest (RULES 6.2)."""
    job = r.job(pair)
    found = pair.from_commit in needs
    if job is None or job.queued_at is None:
        return None if found else now
    before = wave.opened_at is None or job.queued_at <= wave.opened_at
    return None if found and before else job.queued_at


def names_of(r: Reading, row: RolloutRow) -> dict[str, str]:
    """What the rollout's Target is called for each hardware id."""
    targets = r.targets(version=row.target_version)
    return {hardware_id: target.name for target in reversed(targets) for hardware_id in target.hardware_ids}


def artifacts_of(r: Reading, version: int) -> dict[str, Artifact]:
    """The files that the version's Targets are, by commit."""
    targets = r.targets(version=version)
    commits = {target.commit for target in targets if target.provider == FILES}
    return {commit: artifact for commit in sorted(commits) if (artifact := r.artifact(commit)) is not None}


def known_of(r: Reading, row: RolloutRow) -> dict[str, dict[str | None, bool]]:
    """Which from-commits the last look at each wave found in the repository."""
    return {
        wave.wave: {need.pair.from_commit: need.known for need in r.needs(row.key, wave.wave)}
        for wave in row.state.waves
    }
