"""A batch of check-ins in one transaction: what the devices run now, what that makes of their updates, and offers.

In this order: the device is brought up to date; its updates are told what it runs (confirmed, rolled back, left,
ignored); a halt that follows is set; only then are offers given, from what the transaction itself sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.core.offers import NoOffer, Terms, mistaken
from orchestrator.core.protocols import LOOKS_TWICE, NOTHING_SPOKEN, DeviceProtocol, Spoken
from orchestrator.core.update import Patience, UpdateStatus, comes_back, on_check_in, withdraw
from orchestrator.errors import Unauthorized, WaveError
from orchestrator.services.board import Board, Snapshot, reach_of
from orchestrator.services.chronicle import rules_of
from orchestrator.services.downloads import Downloads
from orchestrator.services.messages import CheckIn, Offer
from orchestrator.services.offering import Desk
from orchestrator.services.records import DeviceRow, UpdateRow
from orchestrator.services.store import Writing
from orchestrator.services.tallies import Tallies
from orchestrator.services.writer import Batch

Settle = Callable[..., bool]
"""``settle(w, rollout_key, *, now) -> bool``: stop the rollout in this transaction if its evidence says so."""


class Wake(Protocol):
    """Wakes the ticker, ``urgent`` when something was stopped; never blocks."""

    def __call__(self, *, urgent: bool) -> None: ...


GAP_PARTS: Final = 8
"""One part in so many of the usual gap between check-ins is the latest."""

GAP_GROWTH: Final = 4
"""One gap counts at most as this many usual ones: a week in a drawer is no habit."""


class Arrival(NamedTuple):
    """A check-in that must be written. ``digest``: of the device's own token, where it was let in by that; ``said``
    None: it is here, and all it said before holds; ``also``: rollouts in which the device is known to have an update;
    ``tag``: the one it follows now; ``over``: the protocol it spoke; ``asks``: whether it wants an offer: who only
    tells is given none, and does not come back without a start."""

    key: int
    digest: bytes | None
    said: CheckIn | None
    also: tuple[int, ...] = ()
    tag: str = ""
    over: DeviceProtocol = DeviceProtocol.OWN
    asks: bool = True


class Welcome(NamedTuple):
    """What came of it: the device and its updates by rollout as they stand now, the offer, and what is known by its
    protocol."""

    person: DeviceRow
    updates: Mapping[int, UpdateRow]
    offer: Offer | None
    spoken: Spoken = NOTHING_SPOKEN


def usual_gap(before: timedelta, gap: timedelta) -> timedelta:
    """The usual time between check-ins after one more, as a moving average."""
    if not before:
        return gap
    return before + (min(gap, GAP_GROWTH * before) - before) // GAP_PARTS


def another(before: Device, after: Device) -> bool:
    """Whether it is another device to the slices by tag, hardware id or label."""
    return (before.tag, before.hardware_id, before.labels) != (after.tag, after.hardware_id, after.labels)


def displaced(before: Device, after: Device, rollouts: Iterable[Terms]) -> bool:
    """Whether what it runs makes it another device to the slices of one of ``rollouts``: it became eligible, so that
    those opened before did not count it; or they would take it for one they counted in the version it has now."""
    if (before.commit, before.version) == (after.commit, after.version):
        return False
    return any(
        each.scope.eligible(after) and (not each.scope.eligible(before) or mistaken(each, before, after))
        for each in rollouts
    )


def as_before(device: Device) -> CheckIn:
    """What a device says that only shows that it is here."""
    return CheckIn(device.commit, device.version, healthy=device.healthy)


def filled(said: CheckIn, before: CheckIn | None) -> CheckIn:
    """What a device says, with what it leaves open as it said it before."""
    if before is None or (said.hardware_id is not None and said.tag is not None and said.labels is not None):
        return said
    labels = before.labels if said.labels is None else said.labels
    hardware_id = before.hardware_id if said.hardware_id is None else said.hardware_id
    tag = before.tag if said.tag is None else said.tag
    return CheckIn(said.commit, said.version, hardware_id, tag, labels, said.healthy)


def unchanged(device: Device, said: CheckIn) -> bool:
    """Whether a check-in says what is known already."""
    return (
        device.commit == said.commit
        and (said.version is None or device.version == said.version)
        and (said.hardware_id is None or device.hardware_id == said.hardware_id)
        and (said.tag is None or device.tag == said.tag)
        and (said.labels is None or device.labels == said.labels)
        and device.healthy == said.healthy
    )


@dataclass(slots=True)
class CheckIns:
    """Runs batches. ``wake`` is called after a commit that changed what decisions depend on. ``every``: how often
    devices are told to come at least."""

    board: Board
    settle: Settle
    wake: Wake
    knows: Callable[[Writing, str, str], bool]
    downloads: Downloads
    every: timedelta
    offers: int = 0

    def rollouts(self, batch: Batch, arrivals: Sequence[Arrival]) -> set[int]:
        """Those that might offer these devices something, or have: what a device runs may be a bad outcome."""
        by_tag = self.board.look(batch.now).by_tag
        found = {listed.key for tag in {one.tag for one in arrivals} for listed in by_tag.get(tag, ())}
        return found.union(*(one.also for one in arrivals))

    def run(self, batch: Batch, arrivals: Sequence[Arrival]) -> list[Welcome | WaveError]:
        snapshot = self.board.look(batch.now)
        tallies = Tallies(batch.now)
        desk = Desk(batch, snapshot, tallies, lambda hw, commit: self.knows(batch.w, hw, commit), self.downloads)
        people = {one.key: row for one in arrivals if (row := batch.w.device_by_key(one.key)) is not None}
        updates = self._updates(batch, snapshot, arrivals)
        before = batch.w.spoken(people.keys())
        spoken: dict[int, Spoken] = {}
        admitted: list[bool] = []
        for one in arrivals:
            person = people.get(one.key)
            admitted.append(person is not None and one.digest in (None, person.token_digest))
            if person is not None and admitted[-1]:
                reach = reach_of(snapshot, person.device.tag)
                # Where it has an update its place is frozen: there its own course moves it to no other slice.
                on_board = snapshot.by_tag.get(person.device.tag, ())
                rollouts = [each.terms for each in on_board if each.key not in updates[one.key]]
                person = people[one.key] = _heard(batch.w, person, one.said, batch.now, reach, rollouts)
                known = spoken.get(one.key) or before.get(one.key, NOTHING_SPOKEN)
                spoken[one.key] = known.heard(one.over, person.device.version)
                self._tell(desk, tallies, person, updates[one.key], one)
        stopped = self._settle(batch, desk, tallies)
        answers: list[Welcome | WaveError] = []
        for one, let_in in zip(arrivals, admitted, strict=True):
            if not let_in:
                answers.append(Unauthorized("The device's token is not valid any more."))
                continue
            person, mine = people[one.key], updates[one.key]
            offer = desk.ask(person, mine, one.over) if one.asks else None
            answers.append(Welcome(person, mine, offer, spoken[one.key]))
        tallies.write(batch.w)
        desk.finish()
        for key, person in sorted(people.items()):
            batch.w.save_device(key, person.device)
            batch.saved.add(key)
        changed = {key: each for key, each in spoken.items() if each != before.get(key, NOTHING_SPOKEN)}
        if changed:
            batch.w.set_spoken(changed)
        batch.after.append(lambda: self._committed(desk.given, stopped, tallies.moved))
        return answers

    def _updates(
        self, batch: Batch, snapshot: Snapshot, arrivals: Sequence[Arrival]
    ) -> dict[int, dict[int, UpdateRow]]:
        """Each device's updates by rollout: in those on the board, and in those it is known to have one in."""
        keys = {(key, one.key) for one in arrivals for key in (*snapshot.listed, *one.also) if key in batch.locked}
        found: dict[int, dict[int, UpdateRow]] = {one.key: {} for one in arrivals}
        for (rollout, device), row in batch_rows(batch.w, keys).items():
            found[device][rollout] = row
        return found

    def _tell(
        self, desk: Desk, tallies: Tallies, person: DeviceRow, updates: dict[int, UpdateRow], arrival: Arrival
    ) -> None:
        """Tell its updates what the device runs now.

        Of those that had an outcome only the newest whose Target the device ran, or runs, can still be overturned by
        what it runs: an older one was followed by another Target on purpose.
        """
        if person.device.status is DeviceStatus.RETIRED:
            return  # it left all denominators, and nothing of it counts
        running, now = person.device.commit, desk.batch.now
        started = [row for row in updates.values() if row.update.started or row.update.to_commit == running]
        newest = max(started, key=lambda row: (row.update.offered_at, row.rollout_key), default=None)
        for key in sorted(updates):
            row = updates[key]
            update = row.update
            outstanding = update.status is UpdateStatus.OFFERED
            if not (outstanding or update.under_way or not update.resolved or row is newest):
                continue
            repeated = False
            if outstanding and (listed := desk.rollout(key)) is not None:
                scope, device = listed.terms.scope, person.device
                if device.tag != scope.tag or scope.commits.get(device.hardware_id) != update.to_commit:
                    # Leaving the tag before the start takes the offer back (RULES 3.6).
                    tallies.step(row, withdraw(update))
                    continue
                counts = arrival.asks and (arrival.over not in LOOKS_TWICE or comes_back(update, self.every, now))
                repeated = counts and not isinstance(desk.verdict(listed, device, row, arrival.over), NoOffer)
            patience = Patience(self._silent_after(desk, key), row.usual_gap)
            step = on_check_in(update, running=running, patience=patience, now=now, repeated=repeated)
            tallies.step(row, step)

    def _silent_after(self, desk: Desk, key: int) -> timedelta:
        listed = desk.snapshot.listed.get(key)
        if listed is not None:
            return listed.rules.silent_after
        row = desk.batch.w.rollout_by_key(key)
        return rules_of(row).silent_after if row is not None else timedelta(days=1)

    def _settle(self, batch: Batch, desk: Desk, tallies: Tallies) -> bool:
        stopped = False
        for key in tallies.write(batch.w):
            stopped = self.settle(batch.w, key, now=batch.now) or stopped
            desk.forget(key)  # stopped, or a monitor of it may be amber now
        return stopped

    def _committed(self, given: int, stopped: bool, moved: bool) -> None:
        self.offers += given
        if stopped:
            self.board.expire()
        if stopped or moved:
            self.wake(urgent=stopped)


def batch_rows(w: Writing, keys: set[tuple[int, int]]) -> dict[tuple[int, int], UpdateRow]:
    return w.load_updates(keys) if keys else {}


def _heard(
    w: Writing, person: DeviceRow, said: CheckIn | None, now: datetime, reach: timedelta, rollouts: Iterable[Terms]
) -> DeviceRow:
    """The device as it is after what it said (None: nothing new); ``reach``: unseen for longer, it is a newcomer to the
    slices; ``rollouts``: see ``displaced``."""
    before = person.device
    said = said or as_before(before)
    gap = now - before.last_seen_at if before.last_seen_at is not None else None
    hardware_id = said.hardware_id or before.hardware_id
    version = said.version
    if version is None and said.commit is not None:
        version = w.known_version(hardware_id, said.commit)
    after = replace(
        before,
        commit=said.commit,
        version=version,
        hardware_id=hardware_id,
        tag=said.tag or before.tag,
        labels=before.labels if said.labels is None else said.labels,
        healthy=said.healthy,
        last_seen_at=now,
        usual_gap=before.usual_gap if gap is None else usual_gap(before.usual_gap, gap),
    )
    if after.labels != before.labels:
        # A label that a person set stays: only the store can tell what came of it.
        w.save_device(person.key, after)
        stored = w.device_by_key(person.key)
        after = replace(after, labels=stored.device.labels if stored is not None else before.labels)
    if another(before, after) or displaced(before, after, rollouts):
        # No slice that is open counted it as it is, not even one that opened while this was under way.
        after = replace(after, since_at=w.after_slices(now))
    elif before.since_at is None or gap is None or gap > reach:
        after = replace(after, since_at=now)
    return replace(person, device=after)
