"""What devices that speak hawkBit's Direct Device Integration are told, and what is made of what they say.

All that lasts is in the updates themselves: an action is one try of one device at one rollout (``core.ddi``), linked
until its client closes it. A poll only shows that the device is here. What a device runs it says in ``configData``;
that alone confirms. What is remembered here is only remembered in memory, and lost with it nothing goes wrong: a device
is asked once more what it runs, or once more to stop.

Answers for: which action a device sees, what its words do. Not for: JSON, addresses (``gateway.ddi``).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, NamedTuple

from orchestrator.core.artifact import Artifact
from orchestrator.core.ddi import (
    MOST_TRIES,
    Execution,
    Said,
    Standing,
    action_of,
    event_of,
    event_of_cancellation,
    linked,
    parts_of,
    standing,
)
from orchestrator.core.fleet import Device, is_name, wrong_key, wrong_value
from orchestrator.core.offers import Earlier, NoOffer, may_offer
from orchestrator.core.protocols import DeviceProtocol
from orchestrator.core.states import RolloutStatus
from orchestrator.core.stopping import STOPPED, told_to_stop
from orchestrator.core.update import EventKind, Update, UpdateStatus
from orchestrator.errors import Gone, NotFound, TooMany
from orchestrator.services.board import Snapshot
from orchestrator.services.chronicle import rules_of
from orchestrator.services.credentials import Shown
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.devices import Devices
from orchestrator.services.futures import then
from orchestrator.services.installable import Download, smaller_file, whole_file
from orchestrator.services.kept import Heard, Kept
from orchestrator.services.messages import MOST_LABELS, CheckIn, Received, ReportedEvent
from orchestrator.services.records import RolloutRow
from orchestrator.services.remembered import Remembered
from orchestrator.services.running import Dictionary, Runs, Words, as_offered, short_of
from orchestrator.services.settings import Settings
from orchestrator.services.store import Store

MOST_ENTRIES: Final = 1_000
"""Feedback on one action that is kept; as many as hawkBit keeps."""

MOST_ENDS: Final = 100
"""Ends that are taken beyond it: a download may fail and be tried again."""

MOST_REMEMBERED: Final = 100_000
"""Devices of which something is remembered in memory."""

MOST_FILES: Final = 1_000


_LATER: Final = 3_600.0
"""Seconds; there will be no more room then either."""


class Poll(NamedTuple):
    """What a poll is told. ``action`` None: there is nothing to do; ``stops``: it is to be cancelled;
    ``asks_config``: the device shall say what it runs."""

    check_in_after: float
    action: int | None
    update: Update | None
    stops: bool
    asks_config: bool


class Feedback(NamedTuple):
    """What a device says about an action. ``id``: the same for the same words."""

    id: str
    said: Said
    at: str | None
    code: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class About:
    """A rollout as far as its actions need it."""

    name: str
    target: int
    status: RolloutStatus
    cancels: bool


class Ddi:
    """The use cases of the protocol. ``let_in`` is ``Devices.let_in``: a device is in before anything here is asked."""

    def __init__(self, devices: Devices, store: Store, settings: Settings) -> None:
        self._devices = devices
        self._store = store
        self._version_attributes = settings.ddi_version_attributes
        self._hardware_attributes = settings.ddi_hardware_attributes
        self.dictionary = Dictionary(store)
        self._looked_up: tuple[Snapshot | None, dict[int, About]] = (None, {})
        self._whole: Remembered[str, Artifact] = Remembered(MOST_FILES)
        self._ended: Remembered[DeltaPair, tuple[Download, ...]] = Remembered(MOST_FILES)
        self._entries: Remembered[tuple[int, int], int] = Remembered(MOST_REMEMBERED)
        self._goes_on: Remembered[tuple[int, str], bool] = Remembered(MOST_REMEMBERED)
        self._told: Remembered[str, bool] = Remembered(MOST_REMEMBERED)

    # --------------------------------------------------------------------------------------------- polls

    def poll(self, device_id: str, shown: Shown, *, known: Kept | None = None) -> Poll | Future[Poll]:
        """A device shows that it is here, which confirms nothing. Raises as ``Devices.check_in``."""
        found = self._devices.check_in(device_id, shown, None, known=known, over=DeviceProtocol.DDI)
        if isinstance(found, Future):
            return then(found, self._answer)
        if not found.had:
            return Poll(found.check_in_after, None, None, False, self._asks_config(found))  # as nearly all
        current = _current(found)
        if current is None or self._known_about(current[0]) is not None:
            return self._answer(found)
        return self._devices.aside(lambda: self._answer(found))

    def _answer(self, heard: Heard) -> Poll:
        current = _current(heard)
        asks_config = self._asks_config(heard)
        if current is None:
            return Poll(heard.check_in_after, None, None, stops=False, asks_config=asks_config)
        key, update = current
        if update.tries > MOST_TRIES:
            return Poll(heard.check_in_after, None, None, stops=False, asks_config=asks_config)
        action = action_of(key, update.tries)
        stops = self._stops(heard.device, key, update, action)
        return Poll(heard.check_in_after, action, update, stops, asks_config)

    def _asks_config(self, heard: Heard) -> bool:
        """Until it has said what it runs, and again whenever that would confirm."""
        if heard.had and any(earlier.update.status is UpdateStatus.APPLIED for earlier, _ in heard.had.values()):
            return True
        return heard.device.commit is None and self._told.get(heard.device.id) is None

    def _stops(self, device: Device, key: int, update: Update, action: int) -> bool:
        about = self._about(key)
        asked = about is not None and told_to_stop(about.status, update, cancels=about.cancels)
        return asked and self._goes_on.get((action, device.id)) is None

    # --------------------------------------------------------------------------------------------- deployments

    def ready(self, kept: Kept, action: int, *, late: bool = False) -> Future[None] | None:
        """To be awaited before anything is asked of an action, so that the event loop need not wait for the store;
        None: all is at hand. Raises NotFound for what is no action of this device, with ``late`` Gone for an earlier
        try."""
        key, earlier = _found(kept, action, late=late)
        commit = earlier.update.to_commit
        listed = self._snapshot().listed.get(key)
        offered = earlier.update.status is UpdateStatus.OFFERED
        changed = listed is not None and offered and kept.had[key][1] < listed.offers_since
        if listed is not None and commit in listed.artifacts and not changed:
            return None

        def look() -> None:
            if changed:
                self._check_offered(kept, key, action, late=late)
            self._about(key)
            self._files(key, earlier.update)

        known = self._known_about(key) is not None and self._ended.get(_pair(earlier.update)) is not None
        return None if known and not changed else self._devices.aside(look)

    def _check_offered(self, kept: Kept, key: int, action: int, *, late: bool) -> None:
        """Memory does not hear of a withdrawal, and the rollout may run again: only a poll gives the offer anew."""
        with self._store.reading() as r:
            row = r.update(key, kept.person.key)
        if row is None or row.update.status is UpdateStatus.WITHDRAWN:
            raise _gone(action) if late else _no_action(action)

    def deployment(self, kept: Kept, action: int) -> Artifact:
        """What to install: the delta from what the device runs, where that is a file which it can install, else the
        whole. Raises NotFound where nothing is: the action is over, or being cancelled, or its offer may not be given
        now."""
        key, earlier = _found(kept, action)
        update, device = earlier.update, kept.person.device
        if not linked(update) or self._stops(device, key, update, action):
            raise _no_action(action)
        if update.status is UpdateStatus.OFFERED:
            now = self._devices.now()
            listed = self._snapshot().listed.get(key)
            if listed is None or isinstance(may_offer(listed.terms, device, earlier, now), NoOffer):
                raise _no_action(action)
        return self._files(key, update)[0].artifact

    def downloads(self, kept: Kept, action: int) -> tuple[Download, ...]:
        """The files of an action, first the one that it names; of the others its device may have begun to fetch one.
        Also of an action that shall stop, for it may be fetching it, and of one that is written. Raises NotFound."""
        key, earlier = _found(kept, action)
        if earlier.update.status is UpdateStatus.OFFERED:
            self.deployment(kept, action)
        elif not linked(earlier.update) and earlier.update.status is not UpdateStatus.APPLIED:
            raise _no_action(action)
        return self._files(key, earlier.update)

    def fetching(self, kept: Kept, shown: Shown, action: int) -> Future[Received] | None:
        """The device fetches the file. That is a start, which not all say themselves. None: it is known already."""
        key, earlier = _found(kept, action)
        about = self._about(key)
        if earlier.update.status is not UpdateStatus.OFFERED or about is None:
            return None
        event = ReportedEvent(
            _of_offer(f"ddi-fetch-{action}", earlier.update), about.name, about.target, EventKind.DOWNLOADING
        )
        return self._devices.report(kept.person.device.id, shown, [event], known=kept)

    def cancelling(self, kept: Kept, action: int) -> bool:
        """Whether the action shall stop. Raises NotFound for what is no action of this device."""
        key, earlier = _found(kept, action)
        return self._stops(kept.person.device, key, earlier.update, action)

    # --------------------------------------------------------------------------------------------- feedback

    def feedback(self, kept: Kept, shown: Shown, action: int, told: Feedback) -> Future[Received]:
        """Done when it is committed. Raises NotFound for what was never an action of this device, Gone for one that is
        over, TooMany after a thousand."""
        key, earlier = _found(kept, action, late=True)
        about = self._about(key)
        if about is None:
            raise _no_action(action)
        kind = event_of(told.said)
        where = standing(earlier.update, kind, stopped=about.status in STOPPED)
        if where is Standing.GONE:
            raise _gone(action)
        if where is Standing.LATE and kind is EventKind.REFUSED:
            kind = EventKind.NOTED  # it has closed the action, so there is nothing left to refuse
        self._count(kept, action, kind)

        def answer(received: Received) -> Received:
            if not received.duplicates:
                raise _gone(action)
            return received

        report = self._report(kept, shown, about, told, kind, earlier.update)
        return then(report, answer) if where is Standing.LATE else report

    def cancelled(self, kept: Kept, shown: Shown, action: int, told: Feedback) -> Future[None]:
        """The device's word on a cancellation, also when a person has resumed the rollout before it came. Raises as
        ``feedback``; Gone as well where nothing was cancelled."""
        key, earlier = _found(kept, action, late=True)
        about, update = self._about(key), earlier.update
        if about is None:
            raise _no_action(action)
        if told_to_stop(about.status, update, cancels=about.cancels):
            return self._stopped(kept, shown, action, told, (about, update, event_of_cancellation(told.said)))
        if update.status is UpdateStatus.WITHDRAWN:
            return self._stopped(kept, shown, action, told, (about, update, EventKind.NOTED))
        if not told_to_stop(RolloutStatus.HALTED, update, cancels=about.cancels):
            raise _gone(action)

        def look() -> Future[None]:
            with self._store.reading() as r:
                halted_at, row = r.halted_at(key), r.update(key, kept.person.key)
            if halted_at is None or update.offered_at > halted_at or row is None or not row.update.under_way:
                raise _gone(action)
            return self._stopped(kept, shown, action, told, (about, update, event_of_cancellation(told.said)))

        return self._devices.aside(look)

    def _stopped(
        self, kept: Kept, shown: Shown, action: int, told: Feedback, means: tuple[About, Update, EventKind]
    ) -> Future[None]:
        about, update, kind = means
        self._count(kept, action, kind)

        def answer(received: Received) -> None:
            if told.said.execution is Execution.REJECTED:
                self._goes_on.put((action, kept.person.device.id), True)

        return then(self._report(kept, shown, about, told, kind, update), answer)

    def _report(
        self, kept: Kept, shown: Shown, about: About, told: Feedback, kind: EventKind, update: Update
    ) -> Future[Received]:
        known_by = _of_offer(told.id, update)
        event = ReportedEvent(known_by, about.name, about.target, kind, told.at, told.code, told.message)
        return self._devices.report(kept.person.device.id, shown, [event], known=kept)

    def _count(self, kept: Kept, action: int, kind: EventKind) -> None:
        so_far = self._entries.get((action, kept.person.key)) or 0
        if so_far >= MOST_ENTRIES + (MOST_ENDS if kind in _ENDS else 0):
            raise TooMany(f"There are {MOST_ENTRIES:,} entries on action {action} already.", after=_LATER)
        self._entries.put((action, kept.person.key), so_far + 1)

    # --------------------------------------------------------------------------------------------- configData

    def configure(self, kept: Kept, shown: Shown, attributes: Mapping[str, str], mode: str) -> Heard | Future[Heard]:
        """The device says what it is and runs: its attributes are its labels, and the one that names its version says
        what it runs. That alone confirms. Raises as ``Devices.check_in``."""
        words = self._words(kept.person.device, attributes if mode != "remove" else {})
        labels = self._labels(kept.person.device, attributes, mode)
        now = self._devices.now()
        runs = self.dictionary.known(words, now)
        if runs is not None:
            return self._says(kept, shown, words, runs, labels)
        return self._devices.aside(lambda: self._says(kept, shown, words, self.dictionary.look_up(words, now), labels))

    def _words(self, device: Device, attributes: Mapping[str, str]) -> Words:
        named = [attributes.get(name, "").strip() for name in self._hardware_attributes]
        said = (attributes.get(name, "").strip() for name in self._version_attributes)
        version = next((short_of(each) for each in said if each), None)
        return Words(device.hardware_id, tuple(filter(is_name, named)), version)

    def _says(
        self, kept: Kept, shown: Shown, words: Words, runs: Runs, labels: dict[str, str]
    ) -> Heard | Future[Heard]:
        device = kept.person.device
        if runs.commit is None or words.version is None:
            return self._heard(
                kept, shown, CheckIn(device.commit, device.version, runs.hardware_id, None, labels, device.healthy)
            )
        updates = (earlier.update for earlier, _ in kept.had.values())
        commit = as_offered(runs.hardware_id, words.version, runs.commit, updates)
        return self._heard(kept, shown, CheckIn(commit, None, runs.hardware_id, None, labels, device.healthy))

    def _labels(self, device: Device, attributes: Mapping[str, str], mode: str) -> dict[str, str]:
        """What cannot be a label is left out: a device cannot be taught another name for it. So is its version: a label
        that changed would have it wait for a later slice."""
        good = {
            key: value
            for key, value in attributes.items()
            if key not in self._version_attributes and not wrong_key(key) and not wrong_value(value)
        }
        match mode:
            case "replace":
                labels = good
            case "remove":
                labels = {key: value for key, value in device.labels.items() if key not in attributes}
            case _:
                labels = {**device.labels, **good}
        return dict(sorted(labels.items())[:MOST_LABELS])

    def _heard(self, kept: Kept, shown: Shown, said: CheckIn) -> Heard | Future[Heard]:
        device_id = kept.person.device.id
        found = self._devices.check_in(device_id, shown, said, known=kept, over=DeviceProtocol.DDI, asks=False)

        def remember(heard: Heard) -> Heard:
            self._told.put(device_id, True)
            return heard

        return then(found, remember) if isinstance(found, Future) else remember(found)

    # --------------------------------------------------------------------------------------------- rollouts

    def _about(self, key: int) -> About | None:
        """From memory, else from the store."""
        known = self._known_about(key)
        if known is None:
            with self._store.reading() as r:
                row = r.rollout_by_key(key)
            if row is None:
                return None
            known = self._looked_up[1][key] = _about(row)
        return known

    def _known_about(self, key: int) -> About | None:
        snapshot = self._snapshot()
        if self._looked_up[0] is not snapshot:
            self._looked_up = (snapshot, {})  # something changed: what is not on the board may stand otherwise now
        abouts = self._looked_up[1]
        known = abouts.get(key)
        if known is None and (listed := snapshot.listed.get(key)) is not None:
            row = listed.row
            known = abouts[key] = About(row.state.rollout, row.target_version, row.state.status, listed.rules.cancels)
        return known

    def _snapshot(self) -> Snapshot:
        return self._devices.board.look(self._devices.now())

    def _files(self, key: int, update: Update) -> tuple[Download, ...]:
        whole = whole_file(self._artifact(key, update.to_commit))
        snapshot, pair = self._snapshot(), _pair(update)
        if key in snapshot.listed:
            smaller = snapshot.smaller.get(pair)
            return (whole,) if smaller is None else (smaller, whole)
        found = self._ended.get(pair)
        if found is None:
            with self._store.reading() as r:
                record = r.delta(pair)
            smaller = None if record is None else smaller_file(record, whole.artifact)
            found = (whole,) if smaller is None else (smaller, whole)
            self._ended.put(pair, found)
        return found

    def _artifact(self, key: int, commit: str) -> Artifact:
        listed = self._snapshot().listed.get(key)
        found = listed.artifacts.get(commit) if listed is not None else None
        found = found or self._whole.get(commit)
        if found is None:
            with self._store.reading() as r:
                found = r.artifact(commit)
            if found is None:
                raise NotFound("The file of this action is not here.")
            self._whole.put(commit, found)
        return found


_ENDS: Final = frozenset(
    {
        EventKind.APPLIED,
        EventKind.FAILED,
        EventKind.VERIFY_FAILED,
        EventKind.DOWNLOAD_FAILED,
        EventKind.CANCELLED,
        EventKind.REFUSED,
    }
)


def _about(row: RolloutRow) -> About:
    return About(row.state.rollout, row.target_version, row.state.status, rules_of(row).cancels)


def _current(heard: Heard) -> tuple[int, Update] | None:
    """The one action that is shown: what has begun, wherever its rollout stands; else the offer that stands now."""
    open_ones = [(key, earlier.update) for key, (earlier, _) in heard.had.items() if linked(earlier.update)]
    begun = [(key, update) for key, update in open_ones if update.status is not UpdateStatus.OFFERED]
    found = begun or (open_ones if heard.offer is not None else [])
    return max(found, key=lambda each: (each[1].offered_at, each[0]), default=None)


def _found(kept: Kept, action: int, *, late: bool = False) -> tuple[int, Earlier]:
    """The device's update that has this number. Raises NotFound, and with ``late`` Gone for an earlier try."""
    key, tries = parts_of(action)
    found = kept.had.get(key)
    if found is None or tries < 1 or tries > found[0].update.tries:
        raise _no_action(action)
    if tries < found[0].update.tries:
        raise _gone(action) if late else _no_action(action)
    return key, found[0]


def _of_offer(known_by: str, update: Update) -> str:
    """An offer that was withdrawn and is given again is the same action, and what is said of it may be, word for word,
    what was said before."""
    return f"{known_by}-{int(update.offered_at.timestamp() * 1000):x}"


def _pair(update: Update) -> DeltaPair:
    return DeltaPair(update.from_commit, update.to_commit)


def _no_action(action: int) -> NotFound:
    return NotFound(f"There is no action {action} for this device.")


def _gone(action: int) -> Gone:
    return Gone(f"Action {action} is over.")
