"""Restoring an installation from a backup. Nothing counts before all of the file was verified, what was there is set
aside, and the database comes last: a restore that is cut off leaves none, and is begun again.

What devices have been shown since the backup is not known any more. So no number for aktualizr-lite comes again, newer
roots stay, and all offers are frozen until a person has looked.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from orchestrator.adapters.backup.archive import Manifest, damaged, unpacked
from orchestrator.adapters.backup.database import (
    check_sqlite,
    check_unused,
    check_version,
    dump_postgresql,
    last_edition,
    load_postgresql,
    made_safe,
    sqlite_file,
    version_in,
)
from orchestrator.adapters.backup.making import POSTGRESQL_NAME, SET_ASIDE, SQLITE_NAME, STAGING
from orchestrator.adapters.durable import sync
from orchestrator.adapters.lock import Lock, lock_file
from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.errors import Refused, StoreUnavailable, WaveError
from orchestrator.services.backups import Restored, numbers_passed_over
from orchestrator.services.settings import Settings

SIDES = ("", "-wal", "-shm", "-journal")
"""What a SQLite database consists of beside its file."""

OSTREE_FOLDERS: Final = ("objects", "refs/heads", "refs/mirrors", "refs/remotes", "state", "extensions", "tmp/cache")
"""What an OSTree repository has, also where nothing lies in it."""

LoadSettings = Callable[[Path | None], Settings]
"""The settings of the installation, from a file that will lie in its root; None: from what is there now."""


def restore(
    archive: Path, root: Path, load: LoadSettings, *, by: str, now: datetime, yes: bool, dry_run: bool = False
) -> Restored:
    """Raises InvalidInput for a file that is no whole backup, Refused when something is there and ``yes`` was not said,
    or while a server runs; StoreUnavailable, Unavailable. Before it raises, it changes nothing."""
    fresh = not root.exists()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = root / f"{STAGING}{secrets.token_hex(4)}"
        staging.mkdir(mode=0o700)
    except OSError as error:
        raise StoreUnavailable(f"{root} cannot be written: {error.strerror}.") from None
    try:
        manifest = unpacked(archive, staging)
        written = staging / "root/wave.yaml"
        settings = load(written if written.is_file() else None)
        work = _Restoring(archive, manifest, staging, root, settings, now)
        work.check(yes=yes or dry_run)
        if dry_run:
            return Restored(root, manifest.made_at, len(manifest.members), None, tuple(work.warnings))
        work.run(by)
        return Restored(root, manifest.made_at, len(manifest.members), work.aside_if_used, tuple(work.warnings))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if fresh:
            with suppress(OSError):  # it is not empty any more
                root.rmdir()


@dataclass(slots=True)
class _Restoring:
    archive: Path
    manifest: Manifest
    staging: Path
    root: Path
    settings: Settings
    now: datetime
    warnings: list[str] = field(default_factory=list)
    _old: bool = False

    @property
    def aside(self) -> Path:
        return self.root / f"{SET_ASIDE}{self.now:%Y%m%dT%H%M%SZ}"

    @property
    def aside_if_used(self) -> Path | None:
        return self.aside if self.aside.is_dir() else None

    @property
    def _database(self) -> Path | None:
        return sqlite_file(self.settings.database_url)

    # --------------------------------------------------------------------------------------------- may it be

    def check(self, *, yes: bool) -> None:
        mine = "postgresql" if self._database is None else "sqlite"
        if self.manifest.database != mine:
            raise Refused(
                f"The backup holds a {self.manifest.database} database, and the settings name a {mine} one.",
                remedy="Set `database` as it was when the backup was made.",
            )
        if self._database is None:
            check_version(self.manifest.schema)
            present = version_in(self.settings.database_url)
            self._old = present is not None
            if self._old and present != self.manifest.schema:
                raise Refused(
                    f"The database there has schema {present}, the backup {self.manifest.schema}.",
                    remedy="Restore into an empty database.",
                )
            if self._old:
                check_unused(self.settings.database_url, self.now)
        else:
            if not (self.staging / SQLITE_NAME).is_file():
                raise damaged(self.archive, "there is no database in it")
            check_sqlite(self.staging / SQLITE_NAME)
            check_version(version_in(f"sqlite:///{self.staging / SQLITE_NAME}"))
            self._old = self._database.exists()
        if self._old and not yes:
            raise Refused(
                f"There is an installation in {self.root} already.",
                remedy="With --yes it is set aside, and what is in the backup takes its place.",
            )

    # -------------------------------------------------------------------------------------------------- do it

    def run(self, by: str) -> None:
        if self._database is None:
            self._run(by)
            return
        with suppress(FileExistsError):
            self._database.parent.mkdir(mode=0o700, parents=True)
        lock = Lock(lock_file(self.settings.database_url, self.settings.root))
        with lock.held():
            if not lock.take():
                raise Refused(
                    f"`wave serve` (process {lock.holder()}) serves this installation.",
                    remedy="Stop it, and start it again afterwards.",
                )
            self._run(by)

    def _run(self, by: str) -> None:
        reason = f"restored from the backup of {self.manifest.made_at:%Y-%m-%d %H:%M} UTC"
        shown = last_edition(self.settings.database_url) if self._old else 0
        passed = numbers_passed_over(self.now - self.manifest.made_at)
        least = shown + 1 if shown else 0
        safe = partial(made_safe, by=by, reason=reason, passed_over=passed, at_least=least, now=self.now)
        if self._database is None:
            if self._old:
                self.aside.mkdir(mode=0o700)
                dump_postgresql(self.settings.database_url, self.aside / "wave.pgdump")
            load_postgresql(self.settings.database_url, self.staging / POSTGRESQL_NAME)
            number = safe(self.settings.database_url)
            self._place_files()
        else:
            staged = self.staging / SQLITE_NAME
            number = safe(f"sqlite:///{staged}")
            self._set_aside_database(self._database)
            self._place_files()
            self._place_database(staged, self._database)
        self._tell(number)

    def _set_aside_database(self, database: Path) -> None:
        for side in SIDES:
            part = database.with_name(database.name + side)
            if part.exists():
                self._move(part, self.aside / part.name)

    def _place_database(self, staged: Path, database: Path) -> None:
        for side in reversed(SIDES):
            part = staged.with_name(staged.name + side)
            if part.exists():
                self._move(part, database.with_name(database.name + side))

    def _place_files(self) -> None:
        keep_roots = self._newer_roots()
        if keep_roots:
            # what is older must not come beside what is newer
            shutil.rmtree(self._staged(self.settings.tuf_path, "tuf"), ignore_errors=True)
        for file, name in _below(self.staging / "root"):
            self._replace(file, self.root / name)
        for key in sorted(each.name for each in _folders(self.staging / "elsewhere")):
            self._elsewhere(key)
        for what, to in (("repository", self.settings.repository_path), ("artifacts", self.settings.artifacts_path)):
            for file, name in _below(self.staging / "content" / what):
                if not (to / name).exists():
                    self._move(file, to / name)
        if (self.settings.repository_path / "config").is_file():
            for name in OSTREE_FOLDERS:
                (self.settings.repository_path / name).mkdir(parents=True, exist_ok=True)

    def _elsewhere(self, key: str) -> None:
        """Back to where the settings say, unless something is there."""
        left = 0
        for file, name in _below(self.staging / "elsewhere" / key):
            to = self._home(key, name)
            if to is None or (to.exists() and to.read_bytes() != file.read_bytes()):
                self._replace(file, self.root / "restored" / key / name)
                left += 1
            elif not to.exists():
                self._move(file, to)
        if left:
            self.warnings.append(
                f"{left} file{'s' if left > 1 else ''} of `{key}` differ from what is there, or have no place: "
                f"they are in {self.root / 'restored' / key}."
            )

    def _home(self, key: str, name: str) -> Path | None:
        if key == "policies":
            number, _, file = name.partition("/")
            known = number.isdigit() and int(number) < len(self.settings.policies)
            return self.settings.policies[int(number)] / file if known else None
        if key == "artifacts":
            return self.settings.artifacts_path / name
        place = getattr(self.settings, key, None)
        if not isinstance(place, Path):
            return None
        return place / name if key in ("tuf", "gpg_homedir") else place

    # ------------------------------------------------------------------------------------------ roots and keys

    def _staged(self, place: Path, key: str) -> Path:
        """Where the files of a setting lie in what was unpacked."""
        there, root = place.absolute(), self.root.absolute()
        inside = there.is_relative_to(root)
        return self.staging / "root" / there.relative_to(root) if inside else self.staging / "elsewhere" / key

    def _newer_roots(self) -> bool:
        """Whether the roots that are there go on from those of the backup; devices follow them and no older ones."""
        try:
            present, backed = (
                TufFolder(place).roots()
                for place in (self.settings.tuf_path, self._staged(self.settings.tuf_path, "tuf"))
            )
        except WaveError:
            return False
        if not present or max(present) <= max(backed, default=0):
            return False
        if any(present.get(version, content) != content for version, content in backed.items()):
            self.warnings.append(
                f"The roots for aktualizr-lite that were there are others than the backup's: they lie in {self.aside},"
                " and devices follow only those that they know."
            )
            self._move(self.settings.tuf_path, self.aside / "tuf")
            return False
        self.warnings.append(
            f"Root {max(present)} for aktualizr-lite is newer than the backup's ({max(backed, default=0)}): roots and"
            " keys stay as they are."
        )
        return True

    # ------------------------------------------------------------------------------------------------ moving

    def _replace(self, file: Path, to: Path) -> None:
        if to.exists() or to.is_symlink():
            self._move(to, self.aside / to.relative_to(self.root))
        self._move(file, to)

    def _move(self, file: Path, to: Path) -> None:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            file.rename(to)
        except OSError:
            shutil.move(file, to)  # to another disk
        sync(to.parent)

    def _tell(self, number: int) -> None:
        made = f"{self.manifest.made_at:%Y-%m-%d %H:%M} UTC"
        self.warnings.insert(
            0,
            f"All offers are frozen. Orders and reports since {made} are gone, halts and cancels too: look at"
            " `wave list`, order again what was ordered, then `wave unfreeze`.",
        )
        self.warnings.append(
            f"Tokens, certificates and people's rights that were revoked since {made} are good again: revoke them."
            " Everybody is signed out."
        )
        self.warnings.append("Who follows the feed of the journals begins it anew: its numbers went back.")
        if number:
            self.warnings.append(
                f"What aktualizr-lite is shown counts on from {number}. Devices that have seen a higher number refuse"
                " it: `wave tuf rotate --same-keys` makes them forget."
            )
        if self.manifest.root_version:
            self.warnings.append(
                f"The backup knows root {self.manifest.root_version}. If a later one was made since, put its file and"
                " keys back: devices follow no older one."
            )


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (each for each in place.iterdir() if each.is_dir())


def _below(place: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names, in order; the list is whole before the first is moved."""
    found = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else []
    yield from ((each, str(each.relative_to(place))) for each in found)
