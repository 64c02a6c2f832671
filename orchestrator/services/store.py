"""The port to the store: the one owner of what has happened.

Every call happens inside a session. ``Store.reading()`` is one consistent snapshot; ``Store.writing()`` is one
transaction that commits when the block ends and leaves nothing behind when it raises. Times in and out are aware UTC
``datetime``; the store reads no clock. Foreign exceptions are translated at its edge: locked, read-only, full,
missing or newer than this program is StoreUnavailable with the remedy; a version check that fails is Conflict.

Implementations: ``adapters.sql`` on SQLite (in memory for tests, WAL on disk) and on PostgreSQL; one contract suite
(``tests/contract``) runs on all of them. Rollouts, devices and updates have integer keys inside a store; names stay
outside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.core.calendar import Habits
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.clock import Cohort, Delay
from orchestrator.core.evidence.crossing import Step
from orchestrator.core.evidence.left_out import Seat
from orchestrator.core.evidence.log import Covered, Seal
from orchestrator.core.facts import BudgetFacts, Facts, MonitorFacts, WaveFacts
from orchestrator.core.fleet import Device, DeviceStatus, Scope, Target
from orchestrator.core.journal import Entry
from orchestrator.core.offers import LabelLimit
from orchestrator.core.outcomes import Outcome
from orchestrator.core.slices import Slice
from orchestrator.core.states import Reason, RolloutStatus
from orchestrator.core.update import Counts, UpdateStatus
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import (
    MOVED_AT_ONCE,
    BadOutcome,
    BuildJob,
    CountedOutcome,
    CourseRow,
    DeltaNeed,
    DeviceFilter,
    DeviceRow,
    Difference,
    Effect,
    EventRow,
    JobStatus,
    LoggedEvent,
    MonitorRow,
    Moved,
    Places,
    RolloutRow,
    RunningCount,
    SliceOf,
    UpdateRow,
    WaveCount,
)
from orchestrator.services.store_parts import ReadsParts, WritesParts


class Reading(ReadsParts, Protocol):
    """A consistent snapshot."""

    # Targets
    def targets(self, *, version: int | None = None, tag: str | None = None) -> Sequence[Target]:
        """Newest version first, then by name."""

    def known_version(self, hardware_id: str, commit: str) -> int | None:
        """The highest version with that commit for that hardware id."""

    # Devices
    def device(self, device_id: str) -> DeviceRow | None: ...

    def device_by_key(self, key: int) -> DeviceRow | None: ...

    def devices_called(self, device_ids: Collection[str]) -> Sequence[DeviceRow]:
        """Those of these ids that there are."""

    def devices(self, which: DeviceFilter, *, after: str | None = None, limit: int = 100) -> Sequence[DeviceRow]:
        """By id, those after ``after``; at most ``limit``."""

    def count_devices(self, which: DeviceFilter) -> int: ...

    def running(self, *, tag: str | None = None) -> Sequence[RunningCount]:
        """What active devices run, most devices first."""

    def tags(self) -> Mapping[str, int]:
        """Tags that devices follow, with the number of active devices."""

    def groups(self) -> Mapping[str, int]:
        """Every group with the number of its active devices; groups without any included."""

    # The fleet as a rollout sees it. None of these writes; each is one pass over the tag's devices at most.
    def look(self, scope: Scope, wave: str, *, seen_since: datetime) -> WaveCount:
        """Count the wave's devices: members by ``scope.selectors`` (no earlier wave has them), split by
        ``Scope.eligible`` and ``already_there``."""

    def habits(self, tag: str, *, sample: int) -> Habits:
        """How devices of the tag come and report: the usual gaps of at most ``sample`` active ones, and the times from
        offer to confirmation of as many updates of the tag's five newest rollouts."""

    def strata(self, scope: Scope, wave: str) -> Mapping[str, int]:
        """Eligible devices of the wave by hardware id, the wave's own bounds left aside (earlier waves' kept)."""

    def bound(self, scope: Scope, wave: str, hardware_id: str | None, count: int) -> int:
        """The bound below which exactly ``count`` (or all, if fewer: then SPACE) eligible devices of the wave stand,
        its own bounds left aside; of one hardware id, or of all."""

    def segments(self, scope: Scope, dimension: str, *, limit: int) -> Mapping[str, int]:
        """Eligible devices in some wave by segment of the dimension (as populations), the ``limit`` largest, ties by
        name."""

    def in_segment(self, scope: Scope, segment: str) -> int:
        """Devices in some wave that are in the segment and, but for what is excluded, eligible."""

    # Rollouts
    def rollout(self, name: str) -> RolloutRow | None: ...

    def rollout_by_key(self, key: int) -> RolloutRow | None: ...

    def rollouts(self, statuses: Collection[RolloutStatus] | None = None) -> Sequence[RolloutRow]:
        """Newest first."""

    def offering(self, tag: str | None = None) -> Sequence[RolloutRow]:
        """Those that may offer something now or later, to devices of a tag or to any: the live ones, and of the
        completed the newest of each tag (RULES 7.1), however many there were. Newest first."""

    def facts(self, row: RolloutRow, *, now: datetime, listened: datetime | None = None) -> Facts:
        """Everything ``decide`` needs, from counters; of monitors over segments those with a bad device. ``late`` is
        looked up only for waves whose last slice is an hour old at ``now``. ``listened``: until when devices could be
        heard, where that is before ``now``: nobody's clock goes on after it. Untouched devices are looked at only when
        a watched rollout's clock has crossed."""

    def past_delays(self, *, rollouts: int, of_each: int, until: datetime) -> Sequence[Delay]:
        """How long devices took from the start of installing to their first outcome, in the newest so many completed
        rollouts, from their newest so many outcomes each; the newest first. Only devices that began by ``until``."""

    def cohorts(self, rollout_key: int) -> Sequence[Cohort]:
        """The counters of the rollout's clock, by hardware id and minute."""

    def flowing(self, row: RolloutRow, *, counted: bool) -> tuple[Sequence[WaveFacts], Sequence[MonitorFacts]]:
        """What offers depend on, from counters: of the monitors that nobody has accepted those that have counted
        something bad (only they can be amber), and, when there are any or with ``counted``, the waves with their
        slices' tallies. One statement, or two."""

    def spent(self, rollout_key: int) -> Mapping[str, datetime]:
        """Until when its rates are spent: the rollout's own under ``""``, a wave's under its name."""

    def flying_with(self, rollout_key: int, limit: LabelLimit) -> int:
        """How many devices that carry the label's value now have an offer and no outcome; counted up to the limit. It
        looks at the devices with that value, by index."""

    def deadlines(self) -> dict[int, datetime]:
        """When the next silence of each rollout will be counted, whatever its status; one without any is left out."""

    def slices(self, rollout_key: int, wave: str | None = None) -> Sequence[Slice]:
        """In the order of their opening, ranks included."""

    def populations(self, rollout_key: int) -> Mapping[str, int]:
        """Places given so far, by population."""

    def seats(self, row: RolloutRow, device_keys: Collection[int]) -> Mapping[int, Seat]:
        """Where the devices that have an update stand, positions and segments included, by device key."""

    def monitors(self, rollout_key: int) -> Sequence[MonitorRow]:
        """All attempts, oldest first."""

    def next_steps(self, rollout_key: int) -> Mapping[str, Step]:
        """What is missing to cross, by key, for each open monitor that has seen something bad: for people."""

    def needs(self, rollout_key: int, wave: str) -> Sequence[DeltaNeed]: ...

    def budgets(self, rollout_key: int) -> Sequence[BudgetFacts]: ...

    def journal(self, rollout_key: int, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]: ...

    def journal_of(self, rollout_key: int, event: str) -> Sequence[Entry]:
        """Its entries of one event, oldest first."""

    def halted_at(self, rollout_key: int) -> datetime | None:
        """When it was halted last, whoever has resumed it since."""

    def outcomes(self, rollout_key: int, *, limit: int = 1000) -> Sequence[CountedOutcome]:
        """The evidence log of a rollout, oldest first."""

    def evidence_lines(self, rollout_key: int, *, after: int = 0, limit: int = 5000) -> Sequence[tuple[int, str]]:
        """Rows of the rollout's evidence log after ``seq`` ``after``, oldest first: each with its ``seq``, as the line
        of ``core.evidence.log``."""

    def evidence_head(self, rollout_key: int) -> int:
        """The ``seq`` of the last row of the rollout's evidence log; 0 while it is empty."""

    def evidence_rows(self, rollout_key: int) -> int:
        """How many rows the log has."""

    def evidence_seal(self, rollout_key: int) -> Seal:
        """How far the digest of the log is worked out."""

    def evidence_unsealed(self, rollout_key: int, *, at_least: int) -> bool:
        """Whether the log has so many rows after its seal."""

    # Updates
    def update(self, rollout_key: int, device_key: int) -> UpdateRow | None: ...

    def updates_of_device(self, device_key: int, *, limit: int = 20) -> Sequence[tuple[str, UpdateRow]]:
        """With the rollout's name, newest offer first."""

    def updates_of_devices(self, device_keys: Collection[int], *, limit: int = 20) -> Mapping[int, Sequence[UpdateRow]]:
        """The same of many devices, by device key; of each at most ``limit``."""

    def list_updates(
        self, rollout_key: int, *, statuses: Collection[UpdateStatus] | None = None, bad: bool = False, limit: int = 100
    ) -> Sequence[tuple[str, UpdateRow]]:
        """With the device's id, newest offer first; ``bad``: only those with a bad outcome."""

    def events(
        self,
        *,
        device: str | None = None,
        rollout: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest: bool = False,
    ) -> Sequence[LoggedEvent]:
        """Oldest first: the first ``limit`` of them, or the ``newest``."""

    def event_ids(self, device_key: int, prefix: str, *, limit: int) -> Sequence[str]:
        """Those of a device's events that begin so, the newest ``limit``, oldest first. ``prefix``: ASCII, longer than
        an id that is stored packed."""

    # Deltas
    def delta(self, pair: DeltaPair) -> DeltaRecord | None:
        """The delta recorded as verified and published."""

    def deltas(self) -> Sequence[DeltaRecord]: ...

    def jobs(self, *, statuses: Collection[JobStatus] | None = None, limit: int = 200) -> Sequence[BuildJob]: ...

    def job(self, pair: DeltaPair) -> BuildJob | None:
        """The newest job for that pair."""

    def job_counts(self, *, newest: int) -> Mapping[JobStatus, int]:
        """How many of the ``newest`` jobs stand so; none is left out."""

    # The house
    def after_slices(self, now: datetime) -> datetime:
        """``now``, or the first moment after the opening of every slice there is: from then on a device that came or
        changed is in none of them."""

    def effects(self, limit: int = 100) -> Sequence[Effect]:
        """What the outbox holds and is not done: what withdraws offers first, then the oldest."""

    def frozen(self) -> Reason | None: ...

    def pulse(self) -> str:
        """Another text after any order or decision and after any build that ended, whichever process made it."""

    def last_heartbeat(self, name: str) -> datetime | None:
        """When the part said last that it was alive."""

    def lease_holder(self, name: str) -> tuple[str, datetime] | None:
        """Owner and end of the lease, held or expired."""

    def check(self) -> Sequence[Difference]:
        """Recount tallies, budgets, clocks, monitors (by sorting places, not by the stored tree), needs and journal
        chains from the updates and what else is stored; the evidence log is not read."""


class Writing(Reading, WritesParts, Protocol):
    """One transaction. What it reads after it writes shows what it wrote."""

    def rehearse(self) -> None:
        """It will be taken back and cannot be committed any more: evidence is not digested for the journal."""

    def add_target(self, target: Target, *, now: datetime) -> bool:
        """False when exactly this one is there already. Raises Refused when (hardware id, version) has another
        commit, or the name another content."""

    def tag_target(self, name: str, tags: Sequence[str]) -> None: ...

    # Devices
    def enroll(self, devices: Iterable[tuple[Device, bytes | None]], *, now: datetime) -> int:
        """Add devices, or set hardware id, tag, group, labels (as the operator's) and token of known ones; how many
        were new. A million must work in bounded memory."""

    def enrolled(self, device_ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that are devices already; as many as one step of enrolling has."""

    def set_group(self, device_ids: Sequence[str], group: str | None, *, now: datetime) -> int: ...

    def add_group(self, group: str) -> None: ...

    def set_label(self, device_ids: Sequence[str], key: str, value: str | None, *, now: datetime) -> int:
        """As the operator's: a device's own word cannot change it. None removes it."""

    def set_device_status(
        self, device_ids: Sequence[str], status: DeviceStatus, because: str | None, *, now: datetime
    ) -> int: ...

    def set_token(self, device_id: str, digest: bytes | None) -> None: ...

    def save_device(self, key: int, device: Device) -> None:
        """What a check-in changed: commit, version, hardware id, tag, labels (the device's own), healthy, since, last
        seen, usual gap."""

    def touch(self, seen: Mapping[int, tuple[datetime, timedelta]]) -> None:
        """Last seen and usual gap by device key, many at once."""

    # Rollouts
    def add_rollout(self, row: RolloutRow) -> RolloutRow:
        """With its key. Raises Refused when the name is taken."""

    def lock_rollout(self, key: int) -> tuple[RolloutStatus, int]:
        """Status and epoch. Until this transaction ends nobody else changes them, or offers or counts anything of the
        rollout. It is locked before anything else, several by rising key, and the house after them (PostgreSQL: FOR NO
        KEY UPDATE; SQLite: the writer is alone)."""

    def lock_tag(self, tag: str) -> None:
        """Nobody else holds this tag until this transaction ends (PostgreSQL: an advisory lock; SQLite: the writer is
        alone). What is read afterwards shows what the holder before has committed."""

    def save_rollout(self, row: RolloutRow) -> RolloutRow:
        """Write state, waves, scope, files and journal head where the stored version is ``row.version``; returns it
        with the next version. Raises Conflict."""

    def append_journal(self, row: RolloutRow, entries: Sequence[Entry]) -> None: ...

    def add_monitors(self, rollout_key: int, specs: Iterable[MonitorSpec], *, from_places: Mapping[str, int]) -> None:
        """Begin monitors (the next attempt where the key was closed). ``from_places`` by monitor key; 0 where not
        named."""

    def close_monitors(self, rollout_key: int, keys: Collection[str], *, now: datetime) -> None:
        """Mark as accepted."""

    def count_again(self, row: RolloutRow) -> None:
        """Count every open monitor anew from the updates with a bad outcome, places as ``core.evidence.left_out`` gives
        them without the segments that ``row.state`` excludes; crossings as they are then."""

    def leave_out(self, row: RolloutRow, *, after: int = 0, limit: int = MOVED_AT_ONCE) -> Moved:
        """Make updates and tallies agree with the segments that ``row.state`` excludes: updates of a device in one of
        them, as its offer froze it, are marked and taken out of their slice's tallies, with their offers withdrawn
        where the device has not started; marked ones that are in none any more go back. Looks at ``limit`` updates
        ``after`` the one named; the last step tells each slice how many of its members are left out. Tallies and marks
        agree after each step, and every one may be done again."""

    def unstarted(self, rollout_key: int, segment: str) -> int:
        """Offers that froze this segment and whose device has not started."""

    def let_back_in(self, row: RolloutRow, segment: str, *, since: datetime, now: datetime) -> int:
        """Devices of a segment that was excluded ``since`` then, which have neither an update in this rollout nor a
        place in a slice opened before, are newcomers to its slices as of ``now``; how many."""

    def set_budgets(self, rollout_key: int, budgets: Sequence[BudgetFacts]) -> None: ...

    def open_slice(
        self,
        row: RolloutRow,
        scope: Scope,
        wave: str,
        *,
        size: int | None,
        seen_since: datetime,
        dimensions: Sequence[str],
        now: datetime,
    ) -> Slice | None:
        """Cut the next slice of the wave among its eligible devices that are in no slice of it, seen since
        ``seen_since``, and have no update in this rollout; about ``size`` of them by position (exactly, up to
        EXACT_RANKS). Stores the slice with ranks in every population (``rollout``, the wave, and each value of
        ``dimensions``: ``hardware_id``, ``source_version``, ``label:KEY``) and how many keep waiting. None when
        nobody waits: then the last slice's ``waiting`` becomes 0 (with no slice yet, an empty one is stored with
        ``upto`` SPACE). Writes nothing per device."""

    def set_needs(
        self, rollout_key: int, wave: str, count: WaveCount, needs: Sequence[DeltaNeed], *, now: datetime
    ) -> None:
        """Replace what the last look found."""

    # Updates and reports
    def set_spent(self, rollout_key: int, spent: Mapping[str, datetime]) -> None:
        """Note until when rates are spent, named as by ``spent``; the rollout is locked."""

    def add_update(self, row: UpdateRow) -> bool:
        """False when the device has an update in this rollout already."""

    def log_events(self, events: Sequence[EventRow]) -> Sequence[bool]:
        """Append to the evidence log; for each whether it is new (an id seen before for its device, also earlier in
        the same call, is not)."""

    def count_events(self, device_key: int, rollout_key: int | None, *, most: int) -> int:
        """Those of a device on a rollout, or on none; no more than ``most`` are counted."""

    def drop_events(self, device_key: int, event_ids: Collection[str]) -> None: ...

    def load_updates(self, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], UpdateRow]:
        """By (rollout key, device key), and nobody else changes them until this transaction ends."""

    def load_courses(self, rollout_key: int, device_keys: Collection[int]) -> dict[int, CourseRow]:
        """By device key, and nobody else changes them until this transaction ends; quicker."""

    def save_updates(self, rows: Iterable[UpdateRow]) -> None:
        """Write all that may ever change of them."""

    def save_courses(self, rows: Iterable[CourseRow]) -> None:
        """Write what events and the clock change; quicker."""

    def places(self, rollout_key: int, device_keys: Collection[int]) -> Mapping[int, Places]:
        """Where the devices that have an update stand, by device key."""

    def add_counts(self, counts: Mapping[SliceOf, Counts]) -> None:
        """Add to the tallies of slices, or to those of the devices apart; not to budgets and monitors."""

    def name_classes(self, rollout_key: int, names: Iterable[Outcome]) -> None:
        """Have room for what the operator's own classes count in a rollout; those it has stay. Raises Refused when they
        would be more than eight in its life."""

    def log_outcomes(self, outcomes: Sequence[CountedOutcome]) -> None:
        """Append to the evidence log what counted, in this order."""

    def seal_evidence(self, rollout_key: int, *, at_most: int) -> Covered:
        """Work out the digest of the rollout's evidence log to its end, or ``at_most`` rows after its seal; the seal
        moves to the last whole block. Who calls holds the rollout's lock."""

    def add_bad(self, rollout_key: int, outcomes: Sequence[BadOutcome]) -> None:
        """Enter bad outcomes into every open monitor of their class and population, and into the budgets of their
        class; records the first crossing."""

    def due(self, rollout_key: int, *, now: datetime, limit: int = 1000) -> Sequence[tuple[CourseRow, datetime | None]]:
        """Updates whose deadline has passed, earliest first, with the device's last sight; locked as
        ``load_courses``."""

    def withdraw(self, rollout_key: int, wave: str | None = None) -> int:
        """Withdraw every offer whose device has not started, tallies included, of one wave or all; how many.
        Idempotent."""

    def add_to_clock(self, rollout_key: int, began: Collection[int], heard: Collection[int], *, now: datetime) -> None:
        """Devices, by their keys, that began to install at ``now``, and those that then came to their first outcome:
        the counters of the rollout's clock move, where it has one. Each device counts once, and where it is not known
        to have begun, not at all."""

    def postpone_deadlines(self, by: timedelta, *, now: datetime) -> int:
        """Move all pending deadlines, and the clocks of devices that are still waited for: until ``now`` the gateway
        was down so long."""

    # Deltas
    def queue_builds(self, pairs: Mapping[DeltaPair, float], *, now: datetime, again: bool = False) -> int:
        """Queue what has neither a recorded delta nor a job under way (pair to weight); a failed one only with
        ``again``. How many were queued."""

    def lease_build(self, owner: str, *, now: datetime, until: datetime) -> BuildJob | None:
        """The heaviest job that is queued, or running with its lease over. Safe between processes."""

    def renew_build(self, key: int, fence: int, *, until: datetime, stage: str, done: float, log: str) -> bool:
        """``log`` is appended. False when the lease went to another: stop."""

    def finish_build(
        self, key: int, fence: int, record: DeltaRecord | None, error: str | None, *, now: datetime, retry: bool = False
    ) -> bool:
        """Done with a record (which is recorded as ready), or failed with an error. With ``retry`` it is queued again
        instead, and the attempt is given back: it did not fail, it was stopped. False when the lease went to another:
        then nothing is written."""

    def record_delta(self, record: DeltaRecord, *, now: datetime) -> None: ...

    def forget_delta(self, pair: DeltaPair) -> bool: ...

    # The house
    def add_effects(self, effects: Sequence[Effect]) -> None:
        """Add to the outbox; a look at a wave's deltas only where none of that wave waits."""

    def finish_effect(self, key: int) -> None: ...

    def fail_effect(self, key: int, error: str) -> None:
        """It stays in the outbox, with the reason."""

    def freeze(self, reason: Reason | None) -> None: ...

    def take_lease(self, name: str, owner: str, *, now: datetime, until: datetime) -> bool:
        """True when ``owner`` now holds it: it was free, over, or already theirs."""

    def drop_lease(self, name: str, owner: str) -> None: ...

    def heartbeat(self, name: str, *, now: datetime) -> datetime | None:
        """Note that the part was alive at ``now``; the moment noted before."""

    def latest_tick(self, *, now: datetime) -> datetime:
        """Note a tick; the later of ``now`` and the last tick's time: decisions never go back in time (RULES 8.2)."""


class Store(Protocol):
    """Opens sessions. Thread-safe; a session itself belongs to one thread."""

    def reading(self) -> AbstractContextManager[Reading]: ...

    def writing(self) -> AbstractContextManager[Writing]:
        """Raises Busy when the one writer could not be had in time."""

    def failures(self) -> Mapping[str, int]:
        """Sessions that ended in StoreUnavailable, Busy or Conflict since it was opened, by the error's kind."""

    def close(self) -> None: ...
