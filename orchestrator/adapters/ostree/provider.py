"""The ``ostree`` delta provider: static deltas of an archive repository.

Answers for: what is in the repository, what a delta costs, building, proving, publishing and dropping it, the index.
Not for: which deltas are wanted, who builds them when, and serving them to devices.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from orchestrator.adapters import workspace
from orchestrator.adapters.durable import sync
from orchestrator.adapters.ostree import estimate as estimates
from orchestrator.adapters.ostree.apply import ScratchApply
from orchestrator.adapters.ostree.command import CommandFailed, OstreeCommand, explain, missing_repository
from orchestrator.adapters.ostree.layout import delta_path, indexed_digest, inspect, published_pairs, read_superblock
from orchestrator.adapters.ostree.objects import checked_commit, object_path, read_history, read_refs
from orchestrator.errors import BuildFailed, ContentUnavailable, CorruptDelta, NotFound
from orchestrator.services.delta_provider import (
    BuildProgress,
    CommitRecord,
    DeltaEstimate,
    DeltaPair,
    DeltaRecord,
)
from orchestrator.services.delta_sizes import DeltaSizes


@dataclass(frozen=True, slots=True)
class OstreeSettings:
    """How to build; sizes in MB, as ``ostree static-delta generate`` takes them.

    ``max_bsdiff_size`` (old and new file together): 8 takes 2 to 10 times less CPU than ostree's own 128, for 9 to 35 %
    more bytes. ``min_fallback_size``: objects above it are fetched by themselves; 0 packs all, None is ostree's own 4.
    ``max_chunk_size`` per part: 4 halves the memory of a build, None is 32. ``timeout`` for each command of a build,
    ``short_timeout`` for all others. ``nice`` for builds. ``gpg_sign`` is the key that signs the index, from
    ``gpg_homedir`` or where gpg looks itself.
    """

    repository: Path
    executable: str = "ostree"
    max_bsdiff_size: int = 8
    min_fallback_size: int | None = None
    max_chunk_size: int | None = None
    nice: int = 10
    timeout: timedelta = timedelta(hours=2)
    short_timeout: timedelta = timedelta(minutes=5)
    gpg_sign: str | None = None
    gpg_homedir: Path | None = None


class OstreeProvider:
    """Implements ``DeltaProvider``; its docstrings are the contract. Safe in threads and in processes."""

    name = "ostree"

    def __init__(self, settings: OstreeSettings) -> None:
        self._settings = settings
        self._repository = settings.repository.absolute()
        self._ostree = OstreeCommand(settings.executable, timeout=settings.short_timeout)
        self._builder = OstreeCommand(settings.executable, timeout=settings.timeout, nice=settings.nice)

    def check(self) -> None:
        self._ostree.check()
        self._check_repository()

    def refs(self) -> Mapping[str, str]:
        self._check_repository()
        return read_refs(self._repository)

    def commits(self) -> Sequence[CommitRecord]:
        self._check_repository()
        return read_history(self._repository)

    def has_commit(self, commit: str) -> bool:
        name = f"{checked_commit(commit)}.commit"
        self._check_repository()
        return object_path(self._repository, name).is_file()

    def estimate(self, pair: DeltaPair) -> DeltaEstimate:
        self._check_commits(pair)
        return estimates.estimate(self._repository, pair, max_bsdiff_size=self._settings.max_bsdiff_size)

    def settled(self, pair: DeltaPair) -> DeltaRecord | None:
        return None

    def find(self, pair: DeltaPair) -> DeltaRecord | None:
        folder = self._repository / delta_path(pair)
        self._check_repository()
        try:
            if not folder.is_dir():
                return None
            return inspect(self._repository, folder, pair, digest=indexed_digest(self._repository, pair))
        except CorruptDelta:
            if not folder.is_dir():
                return None  # dropped while it was read
            raise
        except OSError as error:
            raise ContentUnavailable(
                f"The delta {folder} cannot be read: {error.strerror}.", remedy="See the machine's log."
            ) from error

    def sizes(self, pair: DeltaPair) -> DeltaSizes | None:
        """What a published delta's table of contents says, as ``ostree static-delta show`` sums it up; nothing else of
        it is read."""
        try:
            found = read_superblock(self._repository / delta_path(pair), pair)
        except (CorruptDelta, OSError):
            return None
        packed = [each.size for each in found.parts] + [each.size for each in found.fallbacks]
        unpacked = [each.unpacked_size for each in found.parts] + [each.unpacked_size for each in found.fallbacks]
        return DeltaSizes(sum(packed), sum(unpacked))

    def published(self) -> Sequence[DeltaPair]:
        self._check_repository()
        return list(published_pairs(self._repository))

    def build(
        self, pair: DeltaPair, *, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        self.check()
        self._check_signature()
        self._check_commits(pair)
        started = time.monotonic()
        try:
            with workspace.workspace(self._repository) as space:
                proof = self._proof(space, cancelled)
                published = self._published_whole(pair, proof)
                if published is not None:
                    self._change_index(cancelled)
                    progress(BuildProgress("publish", 1.0, "It was there already, and is whole."))
                    return published
                out = space.folder / "out"
                out.mkdir()
                cpu_seconds = self._generate(pair, out, space, progress, cancelled)
                progress(BuildProgress("verify", 0.0))
                record = inspect(self._repository, out, pair)
                progress(BuildProgress("apply", 0.0))
                proof.prove(out, pair)
                progress(BuildProgress("publish", 0.0))
                _sync_all(out)
                self._publish(out, pair, cancelled)
                progress(BuildProgress("publish", 1.0))
        except CorruptDelta as error:
            # fresh from ostree and already broken: a lost object, or an ostree that builds what it cannot apply
            raise BuildFailed(f"The delta was built but does not hold: {error.message}", remedy=error.remedy) from error
        except OSError as error:
            raise explain(error, self._repository, doing="building a delta") from error
        cpu_seconds += proof.cpu_seconds
        return replace(record, build_seconds=time.monotonic() - started, cpu_seconds=cpu_seconds)

    def verify(self, pair: DeltaPair) -> DeltaRecord:
        record = self.find(pair)
        if record is None:
            raise NotFound(f"No delta is published for {pair}.", remedy="Build it.")
        self._ostree.check()
        try:
            with workspace.workspace(self._repository) as space:
                self._proof(space, lambda: False).prove(self._repository / record.path, pair)
        except OSError as error:
            raise explain(error, self._repository, doing="verifying a delta") from error
        return record

    def drop(self, pair: DeltaPair) -> bool:
        folder = self._repository / delta_path(pair)
        self._check_repository()
        if not folder.is_dir():
            return False
        self._check_signature()
        try:
            with workspace.workspace(self._repository) as space:
                self._change_index(lambda: False, before=lambda: _take_away(folder, space.folder / "dropped"))
        except OSError as error:
            raise explain(error, self._repository, doing="dropping a delta") from error
        return True

    def sweep(self) -> int:
        self._check_repository()
        try:
            return workspace.sweep(self._repository)
        except OSError as error:
            raise explain(error, self._repository, doing="sweeping") from error

    def _check_repository(self) -> None:
        config = self._repository / "config"
        try:
            text = config.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            raise missing_repository(self._repository) from None
        except OSError as error:
            raise explain(error, self._repository, doing="reading its config") from error
        if not (self._repository / "objects").is_dir():
            raise missing_repository(self._repository)
        settings = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
        if settings.get("mode") not in ("archive", "archive-z2"):
            raise ContentUnavailable(
                f"{self._repository} has mode {settings.get('mode', 'none')!r}; devices pull from archives only.",
                remedy="Make one with `ostree init --mode=archive` and `ostree pull-local` into it.",
            )

    def _check_signature(self) -> None:
        """``ostree summary -u`` without a key takes the signature off a signed index, and devices that ask for one then
        refuse everything."""
        if self._settings.gpg_sign is None and (self._repository / "summary.sig").exists():
            raise ContentUnavailable(
                f"The index of {self._repository} is signed, and no key is set to sign it again.",
                remedy="Set `gpg_sign` to the key's id; or remove `summary.sig` if no device asks for a signature.",
            )

    def _check_commits(self, pair: DeltaPair) -> None:
        for commit in (pair.from_commit, pair.to_commit):
            if commit is not None and not self.has_commit(commit):
                raise ContentUnavailable(
                    f"The commit {commit} is not in {self._repository}.", remedy="Push it, or undo its pruning."
                )

    def _proof(self, space: workspace.Workspace, cancelled: Callable[[], bool]) -> ScratchApply:
        return ScratchApply(self._builder, self._repository, space, timeout=self._settings.timeout, cancelled=cancelled)

    def _published_whole(self, pair: DeltaPair, proof: ScratchApply) -> DeltaRecord | None:
        """The delta that is published already, if it holds; a broken one is taken away."""
        try:
            record = self.find(pair)
            if record is not None:
                proof.prove(self._repository / record.path, pair)
            return record
        except CorruptDelta:
            self.drop(pair)
            return None

    def _generate(
        self,
        pair: DeltaPair,
        out: Path,
        space: workspace.Workspace,
        progress: Callable[[BuildProgress], None],
        cancelled: Callable[[], bool],
    ) -> float:
        settings = self._settings
        options = [f"--max-bsdiff-size={settings.max_bsdiff_size}"]
        if settings.min_fallback_size is not None:
            options.append(f"--min-fallback-size={settings.min_fallback_size}")
        if settings.max_chunk_size is not None:
            options.append(f"--max-chunk-size={settings.max_chunk_size}")
        options.append("--empty" if pair.from_commit is None else f"--from={pair.from_commit}")
        progress(BuildProgress("generate", 0.0))
        try:
            result = self._builder.run(
                "static-delta",
                "generate",
                f"--repo={self._repository}",
                *options,
                f"--to={pair.to_commit}",
                f"--filename={out / 'superblock'}",
                cancelled=cancelled,
                on_line=lambda line: progress(BuildProgress("generate", 0.0, line)),
                keep_open=(space.lock_fd,),
            )
        except CommandFailed as error:
            raise explain(error, self._repository, doing="generating the delta") from error
        progress(BuildProgress("generate", 1.0))
        return result.cpu_seconds

    def _publish(self, out: Path, pair: DeltaPair, cancelled: Callable[[], bool]) -> None:
        target = self._repository / delta_path(pair)

        def move() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                out.rename(target)
            except OSError:
                # somebody built the same pair meanwhile; if theirs is whole it is as good as ours
                if not target.is_dir() or self.find(pair) is None:
                    raise
            sync(target.parent)
            sync(target.parent.parent)

        self._change_index(cancelled, before=move)

    def _change_index(self, cancelled: Callable[[], bool], *, before: Callable[[], None] = lambda: None) -> None:
        """Change something published and write the index anew, alone: the index has one writer, and ostree fails when a
        delta goes away while it counts them."""
        settings = self._settings
        options = [] if settings.gpg_sign is None else [f"--gpg-sign={settings.gpg_sign}"]
        if settings.gpg_sign is not None and settings.gpg_homedir is not None:
            options.append(f"--gpg-homedir={settings.gpg_homedir.absolute()}")
        with workspace.locked(self._repository, "index", cancelled=cancelled):
            self._check_signature()
            before()
            try:
                self._ostree.run("summary", "-u", f"--repo={self._repository}", *options)
            except CommandFailed as error:
                raise explain(error, self._repository, doing="writing the index (`ostree summary -u`)") from error


def _take_away(folder: Path, into: Path) -> None:
    """By one rename, so that nobody sees half a delta."""
    try:
        folder.rename(into)
    except FileNotFoundError:
        return
    sync(folder.parent)
    shutil.rmtree(into, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    """ostree syncs nothing of a delta; after this a power cut cannot publish empty files."""
    for file in folder.iterdir():
        sync(file)
    sync(folder)
