"""What aktualizr-lite devices are shown and what is taken from them, over the path that all devices share.

Which Target a device takes is decided by what its ``targets.json`` holds: the one it is offered, or whose update it has
begun, and the one it runs. Nothing else is ever in it. So the wave a device is in is which edition it is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from orchestrator.core.editions import Shown, content_of
from orchestrator.core.fleet import Device, Target
from orchestrator.core.offers import Earlier
from orchestrator.core.protocols import DeviceProtocol
from orchestrator.errors import WaveError
from orchestrator.services.catalogue import Catalogue
from orchestrator.services.credentials import Credential
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.delta_sizes import StatsFiles
from orchestrator.services.devices import Devices, Heard, Kept
from orchestrator.services.edition_store import Told
from orchestrator.services.editions import Editions, Wish
from orchestrator.services.messages import LONGEST_ID, CheckIn, Offer
from orchestrator.services.records import EventRow
from orchestrator.services.remembered import Remembered
from orchestrator.services.room import Room, drop, takes
from orchestrator.services.store import Store
from orchestrator.services.writer import Batch, Work

LONGEST_TOLD: Final = 64 * 1024
"""Characters kept of what a device tells of itself."""

MOST_DIGESTS: Final = 200_000
"""Of what devices told of themselves, kept so that telling it again costs nothing."""

_MOST_NAMES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Running:
    """What a device says that it runs, as far as it can be: a commit, the name of a Target, the tags it follows."""

    commit: str | None = None
    target: str | None = None
    tags: tuple[str, ...] = ()


class About(NamedTuple):
    """A rollout that a device has, or had, an update in; ``target`` as the device is shown it."""

    rollout: str
    version: int
    target: str | None


class Note(NamedTuple):
    """Something a device told that counts nowhere and is only shown."""

    device_key: int
    event_id: str
    kind: str
    device_at: str | None
    code: str | None
    message: str | None
    received_at: datetime


class Paper(NamedTuple):
    """What a device tells of itself under a topic."""

    device_key: int
    told: Told


class Aktualizr:
    """The device path of aktualizr-lite."""

    def __init__(
        self,
        store: Store,
        devices: Devices,
        editions: Editions,
        catalogue: Catalogue,
        stats: StatsFiles,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._devices = devices
        self._catalogue = catalogue
        self._stats = stats
        self._clock = clock
        self._digests: Remembered[tuple[int, str], str] = Remembered(MOST_DIGESTS)
        self._rollouts: Remembered[int, tuple[str, int]] = Remembered(_MOST_NAMES)
        self._room = Room()
        self._notes: Work[Sequence[Note], None] = Work("notes", 3, self._log_notes)
        self._papers: Work[Paper, None] = Work("told", 4, self._keep_papers)
        self.editions = editions

    # --------------------------------------------------------------------------------------------- what it is shown

    def said(self, known: Kept, running: Running) -> CheckIn:
        """What a poll says: the version by the name of its Target where that is the one with this commit, and the first
        of its tags that anybody knows. How it finds itself is told elsewhere, and stays."""
        device = known.person.device
        target = None if running.target is None else self._catalogue.named(running.target)
        fits = target is not None and target.commit == running.commit and device.hardware_id in target.hardware_ids
        version = target.version if target is not None and fits else None
        tag = next((tag for tag in running.tags if self._known_tag(device, tag)), None)
        return CheckIn(running.commit, version, tag=tag, healthy=device.healthy)

    def at_hand(self, had: Mapping[int, object], offer: Offer | None = None) -> bool:
        """Whether ``wish`` and ``updates`` find all that they need in memory; else they are to be asked beside the
        event loop."""
        delta = None if offer is None else offer.delta
        if offer is not None and delta is not None:
            pair = DeltaPair(delta.from_commit, offer.target.commit)
            if offer.repository is not None and not self._stats.made(pair):
                return False
        return all(self._remembered(key) is not None for key in had)

    def wish(self, known: Kept, said: CheckIn, heard: Heard) -> Wish:
        """What the device is to be shown, now that it is known what it runs and is offered."""
        device = known.person.device
        hardware_id, tag = device.hardware_id, said.tag or device.tag
        stats: tuple[tuple[str, str], ...] = ()
        ahead: Shown | None = None
        if heard.offer is not None and heard.offer.repository is not None:
            ahead, stats = self._offered(heard.offer, tag)
        elif (target := self._under_way(hardware_id, heard.had)) is not None:
            ahead = _shown(target, tag)
        runs = None
        if said.commit is not None:
            version = said.version
            target = None if version is None else self._catalogue.version(hardware_id, version)
            runs = target or self._catalogue.running(hardware_id, said.commit)
        content = content_of(hardware_id, (None if runs is None else _shown(runs, tag), ahead))
        return Wish(known.person.key, content, stats)

    def _offered(self, offer: Offer, tag: str) -> tuple[Shown, tuple[tuple[str, str], ...]]:
        target = offer.target
        known = self._catalogue.named(target.name)
        tags = () if known is None else known.tags
        shown = Shown(target.name, target.version, target.commit, _tags(tags, tag))
        if offer.delta is None:
            return shown, ()
        file = self._stats.of(DeltaPair(offer.delta.from_commit, target.commit))
        if file is None:
            return shown, ()
        return shown._replace(stats=file.named), ((file.sha256, file.text),)

    def _under_way(self, hardware_id: str, had: Mapping[int, tuple[Earlier, int]]) -> Target | None:
        """The Target of an update that has begun and come to no end: it may be finished whatever its rollout's
        status."""
        begun = [(key, earlier.update) for key, (earlier, _) in had.items() if earlier.update.under_way]
        if not begun:
            return None
        key, update = max(begun, key=lambda each: (each[1].offered_at, each[0]))
        target = self._catalogue.version(hardware_id, self._rollout(key)[1])
        return target if target is not None and target.commit == update.to_commit else None

    def _known_tag(self, device: Device, tag: str) -> bool:
        return tag == device.tag or tag in self._devices.board.snapshot.by_tag or self._catalogue.has_tag(tag)

    def _rollout(self, key: int) -> tuple[str, int]:
        """Name and version of a rollout; neither ever changes."""
        found = self._remembered(key)
        if found is None:
            with self._store.reading() as r:
                row = r.rollout_by_key(key)
            assert row is not None
            found = (row.state.rollout, row.target_version)
            self._rollouts.put(key, found)
        return found

    def _remembered(self, key: int) -> tuple[str, int] | None:
        listed = self._devices.board.snapshot.listed.get(key)
        return self._rollouts.get(key) if listed is None else (listed.row.state.rollout, listed.row.target_version)

    def delta_stats(self, sha256: str) -> str | None:
        """From the store."""
        with self._store.reading() as r:
            return r.delta_stats(sha256)

    # --------------------------------------------------------------------------------------------- what it tells

    def updates(self, known: Kept) -> list[About]:
        """The rollouts that what it tells may be about, the newest offer first."""
        had = sorted(known.had.items(), key=lambda each: (each[1][0].update.offered_at, each[0]), reverse=True)
        found = []
        for key, _ in had:
            name, version = self._rollout(key)
            target = self._catalogue.version(known.person.device.hardware_id, version)
            found.append(About(name, version, None if target is None else target.name))
        return found

    def note(self, notes: Sequence[Note]) -> Future[None]:
        """Keep what is only shown, each id of a device once; nothing more beyond as many as are kept of a device.
        Raises Busy."""
        return self._devices.writer.submit(self._notes, notes, weight=max(1, len(notes)))

    def tell(self, known: Kept, topic: str, content: bytes) -> Future[None] | None:
        """Keep the last of what a device tells of itself; None when it is what it told before. Raises Busy."""
        key = known.person.key
        digest = hashlib.sha256(content).hexdigest()
        if self._digests.get((key, topic)) == digest:
            return None
        text = content.decode("utf-8", "replace").replace("\0", "")[:LONGEST_TOLD]
        told = Told(topic, text, len(content), digest, self._clock())
        return self._devices.writer.submit(self._papers, Paper(key, told))

    def healthy(self, known: Kept, shown: Credential, *, healthy: bool) -> Heard | Future[Heard] | None:
        """How the device finds its apps; None when that is known. It asks for nothing by that, and what it runs is as
        it said before. Raises Unauthorized, Busy."""
        device = known.person.device
        if device.healthy == healthy:
            return None
        said = CheckIn(device.commit, device.version, healthy=healthy)
        return self._devices.check_in(device.id, shown, said, known=known, over=DeviceProtocol.AKTUALIZR, asks=False)

    def _keep_papers(self, batch: Batch, papers: Sequence[Paper]) -> list[WaveError | None]:
        for each in papers:
            before = {told.topic: told.digest for told in batch.w.told(each.device_key)}
            if before.get(each.told.topic) != each.told.digest:
                batch.w.tell(each.device_key, each.told)

        def committed() -> None:
            for each in papers:
                self._digests.put((each.device_key, each.told.topic), each.told.digest)

        batch.after.append(committed)
        return [None] * len(papers)

    def _log_notes(self, batch: Batch, told: Sequence[Sequence[Note]]) -> list[WaveError | None]:
        rows = [
            EventRow(
                note.device_key,
                note.event_id[:LONGEST_ID],
                None,
                note.kind,
                note.received_at,
                note.device_at,
                note.code,
                note.message,
            )
            for notes in told
            for note in notes
        ]
        fresh = batch.w.log_events(rows) if rows else []
        left = self._room.left(batch, rows, fresh)
        if left:
            drop(batch.w, [row for row, new in zip(rows, fresh, strict=True) if new and not takes(left, row)])
        return [None] * len(told)


def _shown(target: Target, tag: str) -> Shown:
    return Shown(target.name, target.version, target.commit, _tags(target.tags, tag))


def _tags(tags: Sequence[str], tag: str) -> tuple[str, ...]:
    """Those of the Target, and the one that the device follows: it takes a Target by that."""
    return tuple(sorted({*tags, tag}))
