"""The ``files`` delta provider: deltas between artifacts, made by the program that the operator names.

::

    deltas/<from>/<to>/<sha256 of the delta>.<program>     a delta, mode 0644
    deltas/<from>/<to>/<sha256>-<sha1>-<md5>.<program>     one that is an artifact itself
    deltas/<from>/<to>/whole.<program>                     empty: the delta was not smaller than the file itself

A pair's folder is published by one rename and holds exactly one of both. What is named by its own sha256 can be checked
without asking anybody. Without a program, and from what is no artifact, every pair is served whole; by a program that
makes artifacts also what has no format to make one of.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from orchestrator.adapters import workspace
from orchestrator.adapters.artifacts.disk import is_sha256, sha256_of, sums_of, told
from orchestrator.adapters.artifacts.program import Program, ProgramFailed, find
from orchestrator.adapters.artifacts.store import FolderStore
from orchestrator.adapters.durable import sync
from orchestrator.core.artifact import FILES, Described, Format
from orchestrator.errors import BuildFailed, ContentUnavailable, CorruptDelta, InvalidInput, NotFound
from orchestrator.services.delta_program import DeltaProgram, Makes
from orchestrator.services.delta_provider import (
    BuildProgress,
    CommitRecord,
    DeltaEstimate,
    DeltaPair,
    DeltaRecord,
)
from orchestrator.services.installable import is_name, name_of
from orchestrator.services.remembered import Remembered

DELTAS: Final = "deltas"
WHOLE: Final = "whole"

_BYTES_PER_SECOND: Final = 5_000_000
"""Of both files together: what such programs do, making and applying, for an estimate."""

_MOST_REMEMBERED: Final = 10_000

_SEE_MAKE: Final = "Build it again; see what `make` of `delta_program` makes of both files."

_LIKELY_PART: Final = 4
"""A delta is guessed to have this part of the file's size: nobody knows before it is made."""


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Where artifacts lie and how deltas are made; ``timeout`` for each command of a build, ``nice`` for all."""

    root: Path
    program: DeltaProgram | None = None
    nice: int = 10
    timeout: timedelta = timedelta(hours=2)


class FileProvider:
    """Implements ``DeltaProvider``; its docstrings are the contract. Safe in threads and in processes."""

    name = FILES

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        self._root = settings.root.absolute()
        self._store = FolderStore(self._root)
        self._read: Remembered[str, tuple[int, int, int]] = Remembered(_MOST_REMEMBERED)
        self._said: Remembered[str, Described] = Remembered(_MOST_REMEMBERED)

    # ------------------------------------------------------------------------------------------ what is there

    def check(self) -> None:
        program = self._settings.program
        for command in () if program is None else program.commands:
            find(command[0])

    def refs(self) -> Mapping[str, str]:
        return {}

    def commits(self) -> Sequence[CommitRecord]:
        found = []
        for sha256 in self._store.stored():
            with contextlib.suppress(FileNotFoundError):
                made_at = int(self._there(sha256).stat().st_mtime)
                found.append(CommitRecord(sha256, (), "artifact", made_at))
        return sorted(found, key=lambda record: (-record.made_at, record.commit))

    def has_commit(self, commit: str) -> bool:
        return self._store.size(commit) is not None

    def estimate(self, pair: DeltaPair) -> DeltaEstimate:
        size = self._size(pair.to_commit)
        before = self._from(pair)
        if self._settings.program is None or before is None or not self._possible(pair):
            return DeltaEstimate(size, size, 1, 0.0)
        both = size + before.stat().st_size
        return DeltaEstimate(max(1, size // _LIKELY_PART), size, 1, both / _BYTES_PER_SECOND)

    def settled(self, pair: DeltaPair) -> DeltaRecord | None:
        if self._settings.program is None or self._from(pair) is None or not self._possible(pair):
            return self._whole(pair)
        return None

    def find(self, pair: DeltaPair) -> DeltaRecord | None:
        self._size(pair.to_commit)
        if (settled := self.settled(pair)) is not None:
            return settled
        with told(self._root, doing="reading a delta"):
            return self._published(pair)

    def published(self) -> Sequence[DeltaPair]:
        with told(self._root, doing="listing deltas"):
            return [
                DeltaPair(folder.parent.name, folder.name)
                for folder in sorted((self._root / DELTAS).glob("*/*"))
                if is_sha256(folder.name) and is_sha256(folder.parent.name)
            ]

    # ------------------------------------------------------------------------------------------ building

    def build(
        self, pair: DeltaPair, *, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        self.check()
        self._size(pair.to_commit)
        program, old = self._settings.program, self._from(pair)
        if program is None or old is None or not self._possible(pair):
            why = "no program makes deltas here" if program is None else "the old content is no artifact"
            if program is not None and old is not None:
                why = "both would have to be images, bundles or Mender Artifacts"
            progress(BuildProgress("publish", 1.0, f"Served whole: {why}."))
            return self._whole(pair)
        runs = Program(program, nice=self._settings.nice, timeout=self._settings.timeout, cancelled=cancelled)
        started = time.monotonic()
        with told(self._root, doing="building a delta"), workspace.workspace(self._root) as space:
            if (found := self._published_whole(pair, runs, old, space.folder)) is not None:
                progress(BuildProgress("publish", 1.0, "It was there already, and is whole."))
                return found
            file = self._made(pair, runs, old, space.folder, progress)
            progress(BuildProgress("publish", 0.0))
            self._publish(pair, file, space.folder)
            record = self._published(pair)
            progress(BuildProgress("publish", 1.0))
        if record is None:
            raise BuildFailed("The delta was taken away while it was published.", remedy="Build it again.")
        return _timed(record, time.monotonic() - started, runs.cpu_seconds)

    def verify(self, pair: DeltaPair) -> DeltaRecord:
        record = self.find(pair)
        if record is None:
            raise NotFound(f"No delta is published for {pair}.", remedy="Build it.")
        program, old = self._settings.program, self._from(pair)
        if not record.whole and program is not None and old is not None:
            runs = Program(program, nice=self._settings.nice, timeout=self._settings.timeout)
            with told(self._root, doing="verifying a delta"), workspace.workspace(self._root) as space:
                self._prove(pair, self._root / record.path, runs, old, space.folder)
        return record

    def drop(self, pair: DeltaPair) -> bool:
        folder = self._folder(pair)
        if folder is None or not folder.is_dir():
            return False
        with told(self._root, doing="dropping a delta"), workspace.workspace(self._root) as space:
            return _take_away(folder, space.folder / "dropped")

    def sweep(self) -> int:
        if not self._root.is_dir():
            return 0
        with told(self._root, doing="sweeping"):
            return workspace.sweep(self._root) + self._store.sweep()

    # ------------------------------------------------------------------------------------------ within

    def _there(self, sha256: str) -> Path:
        file = self._store.path(sha256)
        if file is None:
            raise ContentUnavailable(
                f"The artifact {sha256} is not in {self._root}.", remedy="Add the file again (`wave artifact add`)."
            )
        return file

    def _size(self, sha256: str) -> int:
        return self._there(sha256).stat().st_size

    def _from(self, pair: DeltaPair) -> Path | None:
        """The old file; None when there is nothing to make a delta from."""
        return None if pair.from_commit is None else self._store.path(pair.from_commit)

    def _possible(self, pair: DeltaPair) -> bool:
        """Whether the program can make something of the two at all: an artifact has a format, and both have the
        same."""
        program = self._settings.program
        if program is None or program.makes is Makes.PATCH:
            return program is not None
        kinds = {self._describe(sha256).format for sha256 in (pair.from_commit, pair.to_commit) if sha256 is not None}
        return len(kinds) == 1 and Format.PLAIN not in kinds

    def _describe(self, sha256: str) -> Described:
        """What an artifact of the store says of itself; what its format does not bear out is a plain file."""
        found = self._said.get(sha256)
        if found is None:
            try:
                found = self._store.describe(self._there(sha256), filename=sha256)
            except InvalidInput:
                found = Described(Format.PLAIN)
            self._said.put(sha256, found)
        return found

    def _folder(self, pair: DeltaPair) -> Path | None:
        if pair.from_commit is None or not (is_sha256(pair.from_commit) and is_sha256(pair.to_commit)):
            return None
        return self._root / DELTAS / pair.from_commit / pair.to_commit

    def _whole(self, pair: DeltaPair, path: str = "") -> DeltaRecord:
        """The record that devices fetch the file itself, which is read once, and again when it changes."""
        file = self._there(pair.to_commit)
        with told(self._root, doing="reading an artifact"):
            status = file.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._read.get(pair.to_commit) != seen:
                if sha256_of(file) != pair.to_commit:
                    raise CorruptDelta(
                        f"The artifact {pair.to_commit} is not what it was.",
                        remedy="Remove it from the disk and add the file again.",
                    )
                self._read.put(pair.to_commit, seen)
        return DeltaRecord(pair, path, 0, 0, 1, status.st_size)

    def _published(self, pair: DeltaPair) -> DeltaRecord | None:
        """What lies in the pair's folder, by the program of the settings. Raises OSError, CorruptDelta."""
        folder, program = self._folder(pair), self._settings.program
        if folder is None or program is None or not folder.is_dir():
            return None
        names = [file.name for file in folder.iterdir()]
        if not names and not folder.is_dir():
            return None  # dropped while it was read
        if len(names) != 1:
            raise CorruptDelta(f"{folder} holds {len(names)} files instead of one.", remedy="Build it again.")
        stem, _, made_by = names[0].partition(".")
        installed = program.makes is Makes.ARTIFACT
        if made_by != program.name or (stem != WHOLE and is_name(names[0]) is not installed):
            return None
        path = f"{DELTAS}/{pair.from_commit}/{pair.to_commit}/{names[0]}"
        if stem == WHOLE:
            return self._whole(pair, path)
        try:
            size = (folder / names[0]).stat().st_size
            whole = sha256_of(folder / names[0]) == stem.partition("-")[0]
        except FileNotFoundError:
            return None
        if not whole or not size:
            raise CorruptDelta(f"{folder / names[0]} is not what its name says.", remedy="Build it again.")
        return DeltaRecord(pair, path, 1, size, 0, 0)

    def _published_whole(self, pair: DeltaPair, runs: Program, old: Path, space: Path) -> DeltaRecord | None:
        """What is published already, if it holds; all else is taken away."""
        with contextlib.suppress(CorruptDelta):
            record = self._published(pair)
            if record is not None:
                if not record.whole:
                    self._prove(pair, self._root / record.path, runs, old, space)
                return record
        self.drop(pair)
        return None

    def _made(
        self, pair: DeltaPair, runs: Program, old: Path, space: Path, progress: Callable[[BuildProgress], None]
    ) -> Path:
        """A delta that was applied once, or an empty file that says that there is none worth it, by its name."""
        assert self._settings.program is not None
        new, delta = self._there(pair.to_commit), space / "delta"
        size = new.stat().st_size
        progress(BuildProgress("generate", 0.0))
        try:
            runs.make(
                old,
                new,
                delta,
                most=2 * size + (1 << 20),
                on_line=lambda line: progress(BuildProgress("generate", 0.5, line)),
            )
        except ProgramFailed as error:
            raise BuildFailed(
                f"The delta could not be made: {error}.", remedy="Try `delta_program` by hand with both files."
            ) from error
        made = delta.stat().st_size
        if made >= size:
            line = f"The delta has {made} bytes and the file {size}: it is served whole."
            progress(BuildProgress("verify", 1.0, line))
            delta.unlink()
            none = space / f"{WHOLE}.{self._settings.program.name}"
            none.touch()
            return none
        progress(BuildProgress("apply", 0.0))
        try:
            self._prove(pair, delta, runs, old, space)
        except CorruptDelta as error:
            raise BuildFailed(f"The delta was made but does not hold: {error.message}", remedy=error.remedy) from error
        progress(BuildProgress("verify", 0.0))
        return delta.rename(space / _name(delta, self._settings.program))

    def _prove(self, pair: DeltaPair, delta: Path, runs: Program, old: Path, space: Path) -> None:
        """Apply it once: it makes the new file, bit by bit. One that is an artifact itself says what the new file says.
        Raises CorruptDelta."""
        if self._settings.program is not None and self._settings.program.makes is Makes.ARTIFACT:
            self._prove_artifact(pair, delta, runs, old, space)
            return
        made, size = space / "applied", self._size(pair.to_commit)
        made.unlink(missing_ok=True)
        try:
            runs.apply(old, delta, made, most=size + 1)
            come_to = sha256_of(made)
        except ProgramFailed as error:
            raise CorruptDelta(f"It cannot be applied: {error}.", remedy="Build it again.") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                made.unlink()
        if come_to != pair.to_commit:
            raise CorruptDelta(
                f"Applied, it comes to {come_to[:12]} and not to {pair.to_commit[:12]}.",
                remedy="Build it again; see whether `make` and `apply` of `delta_program` belong together.",
            )

    def _prove_artifact(self, pair: DeltaPair, delta: Path, runs: Program, old: Path, space: Path) -> None:
        new = self._describe(pair.to_commit)
        try:
            made = self._store.describe(delta, filename=delta.name)
        except InvalidInput as error:
            raise CorruptDelta(f"It is no artifact: {error.message}", remedy=_SEE_MAKE) from error
        if wrong := _differs(made, new):
            raise CorruptDelta(f"It is another artifact: {wrong}.", remedy=_SEE_MAKE)
        assert self._settings.program is not None
        if new.version is None and not self._settings.program.verify:
            raise CorruptDelta(
                "What it is cannot be read from it.", remedy="Name a program that can tell, as `verify` of the program."
            )
        try:
            runs.verify(old, self._there(pair.to_commit), delta, scratch=space / "verified")
        except ProgramFailed as error:
            raise CorruptDelta(f"It does not hold: {error}.", remedy=_SEE_MAKE) from error

    def _publish(self, pair: DeltaPair, file: Path, space: Path) -> None:
        """By one rename, synced."""
        target = self._folder(pair)
        assert target is not None
        out = space / "out"
        out.mkdir(mode=0o755)
        file.chmod(0o644)
        sync(file.rename(out / file.name))
        sync(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_away(target, space / "before")
        out.rename(target)
        sync(target.parent)
        sync(target.parent.parent)


def _differs(made: Described, new: Described) -> str:
    """What the artifact that was made says otherwise than the Target's own; nothing: ``""``."""
    if made.format is not new.format:
        return f"{made.format.sentence.partition(':')[0]}, where the Target is {new.format.sentence.partition(':')[0]}"
    for what, mine, theirs in (("name", made.name, new.name), ("version", made.version, new.version)):
        if mine != theirs:
            return f"its {what} is {mine}, and the Target's {theirs}"
    if set(made.compatible) != set(new.compatible):
        return (
            f"it is for {', '.join(made.compatible) or 'any hardware'}, and the Target for {', '.join(new.compatible)}"
        )
    return ""


def _name(delta: Path, program: DeltaProgram) -> str:
    if program.makes is Makes.PATCH:
        return f"{sha256_of(delta)}.{program.name}"
    with delta.open("rb") as stream:
        return name_of(sums_of(stream, delta.stat().st_size), program.name)


def _take_away(folder: Path, into: Path) -> bool:
    """By one rename, so that nobody sees half of it."""
    try:
        folder.rename(into)
    except FileNotFoundError:
        return False
    sync(folder.parent)
    shutil.rmtree(into, ignore_errors=True)
    return True


def _timed(record: DeltaRecord, seconds: float, cpu_seconds: float) -> DeltaRecord:
    return DeltaRecord(
        record.pair,
        record.path,
        record.parts,
        record.bytes,
        record.fallbacks,
        record.fallback_bytes,
        seconds,
        cpu_seconds,
    )
