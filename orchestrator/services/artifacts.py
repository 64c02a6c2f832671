"""Artifacts: taking files in, saying what they are, showing, checking and removing them.

The file is published first and recorded after: a crash between leaves a file that the next ``add`` of it records. It is
forgotten first and removed after: a crash between leaves a file that nothing names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.core.artifact import (
    Artifact,
    Described,
    Digests,
    check_filename,
    check_fits,
    check_version,
    own_hardware_ids,
)
from orchestrator.core.fleet import check_name
from orchestrator.core.states import POLICY
from orchestrator.errors import InvalidInput, NotFound, Refused
from orchestrator.services.artifact_store import ArtifactStore, Progress, Upload, silent
from orchestrator.services.commits import FEWEST_DIGITS, pair_text, short
from orchestrator.services.house_log import note
from orchestrator.services.records import JobStatus
from orchestrator.services.store import Reading, Store

_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Added:
    """What adding a file came to. ``remark``: what could not be read from it, and why."""

    artifact: Artifact
    new: bool
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class ArtifactView:
    """An artifact and who needs it: Targets by name, recorded deltas from or to it, devices that run it. ``there``:
    whether the file lies in the store with its size."""

    artifact: Artifact
    targets: tuple[str, ...]
    deltas: int
    devices: int
    there: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What the operator says of a file, in place of what it says itself."""

    name: str | None = None
    version: str | None = None
    hardware_ids: tuple[str, ...] = ()


class Artifacts:
    """The use cases. ``clock`` gives aware UTC."""

    def __init__(self, store: Store, files: ArtifactStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._files = files
        self._clock = clock

    # ------------------------------------------------------------------------------------------ adding

    def add(
        self,
        path: Path,
        said: Said | None = None,
        *,
        dry_run: bool = False,
        progress: Progress = silent,
        by: str = POLICY,
    ) -> Added:
        """Take a file in; the same call again goes on where an interrupted one stopped, and changes nothing when it
        was finished.

        What ``said`` leaves open is taken from the file. Raises InvalidInput when neither says the version, or for what
        cannot be; Refused when the file names other hardware than ``said``, or as ``WritesArtifacts.add_artifact``.
        """
        said = said or Said()
        described = self._files.describe(path)
        # what can be refused is refused before a gigabyte is copied
        _artifact(_NO_DIGESTS, described, said, path.name, self._clock())
        digests = (self._files.digest if dry_run else self._files.take)(path, progress=progress)
        return self._record(digests, described, said, path.name, by=by, dry_run=dry_run)

    def take_in(self, path: Path, *, dry_run: bool = False, progress: Progress = silent) -> Artifact:
        """The artifact that this very file is; added, with what it says itself, when it is not there. Raises as
        ``add``."""
        digests = self._files.digest(path, progress=progress)
        with self._store.reading() as r:
            known = r.artifact(digests.sha256)
        if known is not None and self._files.size(digests.sha256) == known.size:
            return known
        return self.add(path, dry_run=dry_run, progress=progress).artifact

    def begin(self, size: int, sha256: str | None = None, note: Mapping[str, str] | None = None) -> Upload:
        """For an upload in pieces; see ``ArtifactStore``, also for the next two."""
        return self._files.begin(size, sha256, note)

    def upload(self, upload_id: str) -> Upload:
        return self._files.upload(upload_id)

    def append(self, upload_id: str, offset: int, piece: bytes) -> Upload:
        return self._files.append(upload_id, offset, piece)

    def finish(self, upload_id: str, filename: str, said: Said | None = None, *, by: str = POLICY) -> Added:
        """The upload is whole: publish and record it. Raises as ``ArtifactStore.finish`` and ``add``; what was refused
        then is on disk and recorded by an ``add`` or upload of the same bytes that is not."""
        check_filename(filename)
        digests = self._files.finish(upload_id)
        published = self._files.path(digests.sha256)
        if published is None:
            raise NotFound(f"The artifact {short(digests.sha256)} was removed meanwhile.", remedy="Upload it again.")
        described = self._files.describe(published, filename=filename)
        return self._record(digests, described, said or Said(), filename, by=by, dry_run=False)

    def _record(
        self, digests: Digests, described: Described, said: Said, filename: str, *, by: str, dry_run: bool
    ) -> Added:
        artifact = _artifact(digests, described, said, filename, self._clock())
        if dry_run:
            with self._store.reading() as r:
                known = r.artifact(artifact.sha256)
            return Added(artifact if known is None else known, known is None, described.remark)
        with self._store.writing() as w:
            new = w.add_artifact(artifact)
            recorded = w.artifact(artifact.sha256)
            if new:
                deed = f"added artifact {artifact.filename} ({short(artifact.sha256)})"
                note(w, self._clock(), "artifact_added", artifact.sha256, deed, by=by)
        return Added(recorded or artifact, new, described.remark)

    # ------------------------------------------------------------------------------------------ looking

    def list(self) -> Sequence[ArtifactView]:
        """Newest first."""
        with self._store.reading() as r:
            return self._views(r, r.artifacts())

    def show(self, which: str) -> ArtifactView:
        """Raises NotFound, and Refused when several are meant."""
        with self._store.reading() as r:
            return self._views(r, [_one(r, which)])[0]

    def find(self, which: str) -> Artifact:
        """The one artifact of that sha256, its first digits, its name or its file name. Raises NotFound, Refused."""
        with self._store.reading() as r:
            return _one(r, which)

    def _views(self, r: Reading, artifacts: Sequence[Artifact]) -> Sequence[ArtifactView]:
        targets, records = r.targets(), r.deltas()
        running: dict[str, int] = {}
        for count in r.running():
            if count.commit is not None:
                running[count.commit] = running.get(count.commit, 0) + count.devices
        return [
            ArtifactView(
                artifact,
                tuple(target.name for target in targets if target.commit == artifact.sha256),
                sum(artifact.sha256 in (record.pair.from_commit, record.pair.to_commit) for record in records),
                running.get(artifact.sha256, 0),
                self._files.size(artifact.sha256) == artifact.size,
            )
            for artifact in artifacts
        ]

    # ------------------------------------------------------------------------------------------ checking, removing

    def verify(self, which: str | None = None, *, progress: Progress = silent) -> Sequence[tuple[Artifact, str | None]]:
        """Read one, or all, from end to end: each with what is wrong, a sentence, or None."""
        with self._store.reading() as r:
            chosen = [*r.artifacts()] if which is None else [_one(r, which)]
        total, before = sum(each.size for each in chosen), 0
        found: list[tuple[Artifact, str | None]] = []
        for each in chosen:
            found.append((each, self._wrong(each, _part(progress, before, total))))
            before += each.size
        return found

    def _wrong(self, artifact: Artifact, progress: Progress) -> str | None:
        if self._files.path(artifact.sha256) is None:
            return "The file is not there; add it again."
        if not self._files.verify(artifact.sha256, progress=progress):
            return "The file is not what it was; remove it from the disk and add it again."
        return None

    def remove(self, which: str, *, dry_run: bool = False, by: str = POLICY) -> Artifact:
        """Raises Refused while a Target is this file, or a delta from or to it is recorded or under way; NotFound."""
        with self._store.writing() as w:
            artifact = _one(w, which)
            sha256 = artifact.sha256
            if names := [target.name for target in w.targets() if target.commit == sha256]:
                raise Refused(
                    f"{artifact.filename} ({short(sha256)}) is what {', '.join(names)} is.",
                    remedy="A Target keeps its file for ever: devices may run it, and deltas begin at it.",
                )
            pairs = [record.pair for record in w.deltas()]
            pairs += [job.pair for job in w.jobs(statuses={JobStatus.QUEUED, JobStatus.RUNNING}, limit=10_000)]
            if used := [pair for pair in pairs if sha256 in (pair.from_commit, pair.to_commit)]:
                raise Refused(
                    f"{artifact.filename} ({short(sha256)}) is needed for the delta {pair_text(used[0])}.",
                    remedy="`wave delta drop` drops it, once nothing needs it.",
                )
            if not dry_run:
                w.remove_artifact(sha256)
                deed = f"removed artifact {artifact.filename} ({short(sha256)})"
                note(w, self._clock(), "artifact_removed", sha256, deed, by=by)
        if not dry_run:
            self._files.remove(sha256)
        return artifact


def _part(progress: Progress, start: int, total: int) -> Progress:
    """Of one file among several."""
    return lambda done, _: progress(start + done, total)


_NO_DIGESTS: Final = Digests("", "", "", 0)


def _artifact(digests: Digests, described: Described, said: Said, filename: str, now: datetime) -> Artifact:
    """What a file and the operator say, as an artifact. Raises InvalidInput, Refused."""
    check_filename(filename)
    hardware_ids = tuple(dict.fromkeys(check_name(each, "hardware id") for each in said.hardware_ids))
    check_fits(described, hardware_ids, filename=filename)
    version = said.version or described.version
    if version is None:
        why = described.remark or f"It is {described.format.sentence}."
        raise InvalidInput(f"{filename} does not say its version. {why}", remedy="Say it with --version.")
    name = said.name or described.name or filename.rpartition(".")[0] or filename
    return Artifact(
        digests=digests,
        format=described.format,
        filename=filename,
        name=check_version(name),
        version=check_version(version),
        hardware_ids=hardware_ids or own_hardware_ids(described),
        compatible=described.compatible,
        added_at=now,
    )


def hardware_of(artifact: Artifact, wanted: Sequence[str]) -> tuple[str, ...]:
    """The hardware ids of a Target that is this file: those wanted, else the file's own. Raises Refused when the file
    is for other hardware, InvalidInput when nobody names any."""
    described = Described(artifact.format, compatible=artifact.compatible)
    check_fits(described, wanted, filename=artifact.filename)
    if artifact.hardware_ids and (wrong := [each for each in wanted if each not in artifact.hardware_ids]):
        raise Refused(
            f"{artifact.filename} was added for {', '.join(artifact.hardware_ids)}, not for {', '.join(wrong)}.",
            remedy="Name the hardware it is made for.",
        )
    found = tuple(wanted) or artifact.hardware_ids
    if not found:
        raise InvalidInput(
            f"{artifact.filename} names no hardware.", remedy="Say with --hardware-id what it is made for."
        )
    return found


def _one(r: Reading, which: str) -> Artifact:
    text = which.strip()
    everything = r.artifacts()
    prefix = text.lower()
    by_digits = len(prefix) >= FEWEST_DIGITS and set(prefix) <= _HEX
    found = [each for each in everything if by_digits and each.sha256.startswith(prefix)]
    found = found or [each for each in everything if text in (each.name, each.filename)]
    if not found:
        raise NotFound(f"There is no artifact {text[:128]!r}.", remedy="`wave artifact list` shows what there is.")
    if len(found) > 1:
        shown = ", ".join(f"{short(each.sha256)} ({each.filename}, {each.version})" for each in found[:8])
        raise Refused(f"{text[:128]!r} may be {len(found)} artifacts: {shown}.", remedy="Give the sha256.")
    return found[0]
