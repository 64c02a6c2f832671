"""Making a backup of an installation that may be at work: its database, then the files that belong to it.

::

    database/wave.db | database/wave.pgdump
    root/...                     every small file below the root: settings, roots and keys, the authority
    elsewhere/KEY/...            what the settings name outside the root
    content/repository/...       with content: refs, then objects; deltas can be built again
    content/artifacts/...
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from orchestrator.adapters.artifacts.store import INCOMING
from orchestrator.adapters.backup.archive import Manifest, Packing, packing, unpacked
from orchestrator.adapters.backup.database import (
    copy_sqlite,
    dump_postgresql,
    last_edition,
    sqlite_file,
    version_in,
)
from orchestrator.adapters.sql.schema import NEWEST
from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.errors import Conflict, InvalidInput, StoreUnavailable
from orchestrator.services.backups import Backed
from orchestrator.services.settings import Settings

SET_ASIDE: Final = "before-restore-"
STAGING: Final = ".restore-"
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a file below the root that is taken as one of the house's own."""

SQLITE_NAME: Final = "database/wave.db"
POSTGRESQL_NAME: Final = "database/wave.pgdump"
URLS_KEY: Final = "urls.key"
FOLDERS: Final = ("tuf", "gpg_homedir")
FILES: Final = tuple(
    key
    for key, field in Settings.model_fields.items()
    if field.annotation == Path | None and key not in (*FOLDERS, "repository", "artifacts")
)
"""Settings that name a file, by their types: none can be forgotten here."""


def make(settings: Settings, file: Path | None, into: Path, *, now: datetime, content: bool) -> Backed:
    """``file``: where the settings were read from. Raises InvalidInput when there is a backup of that name, Conflict
    when roots were made meanwhile, StoreUnavailable, Unavailable."""
    root = settings.root.resolve()
    if into.resolve().is_relative_to(root):
        raise InvalidInput(f"{into} lies in the installation itself.", remedy="A backup belongs on another disk.")
    if not into.parent.is_dir():
        raise InvalidInput(f"There is no directory {into.parent}.")
    tuf = TufFolder(settings.tuf_path)
    before = tuf.stamp()
    copy = into.with_name(f".{into.name}.database")
    try:
        manifest = _database(settings, copy, tuf, now=now, content=content)
        with packing(into) as archive:
            archive.add(SQLITE_NAME if manifest.database == "sqlite" else POSTGRESQL_NAME, copy)
            copy.unlink()
            for name, path in _files(settings, file, root):
                _add(archive, name, path)
            if content:
                for name, path in _content(settings):
                    _add(archive, name, path)
            if tuf.stamp() != before:
                raise Conflict("The roots and keys for aktualizr-lite were changed meanwhile.", remedy="Try again.")
            members = archive.members
            archive.close(manifest)
    finally:
        with suppress(OSError):  # where it could not be made, the reason is on its way already
            copy.unlink(missing_ok=True)
    try:
        unpacked(into, None)
    except BaseException:
        into.unlink(missing_ok=True)
        raise
    return Backed(into, now, into.stat().st_size, members, manifest.schema, content)


def _database(settings: Settings, copy: Path, tuf: TufFolder, *, now: datetime, content: bool) -> Manifest:
    source = sqlite_file(settings.database_url)
    if source is None:
        schema, edition = version_in(settings.database_url), last_edition(settings.database_url)
        dump_postgresql(settings.database_url, copy)
    else:
        if not source.is_file():
            raise StoreUnavailable(f"There is no database at {source}.", remedy="Check the settings.")
        copy_sqlite(source, copy)
        copied = f"sqlite:///{copy}"
        schema, edition = version_in(copied), last_edition(copied)
    try:
        program = metadata.version("wave-orchestrator")
    except metadata.PackageNotFoundError:
        program = "0"
    kind = "postgresql" if source is None else "sqlite"
    root_version = max(tuf.roots(), default=0)
    return Manifest(now, program, kind, schema or NEWEST, edition, root_version, content)


def _add(archive: Packing, name: str, path: Path) -> None:
    # what is gone by now was in no use: a file that is replaced has the same name before and after
    with suppress(FileNotFoundError):
        archive.add(name, path)


# ------------------------------------------------------------------------------------------------- which files


def _files(settings: Settings, file: Path | None, root: Path) -> Iterator[tuple[str, Path]]:
    database = sqlite_file(settings.database_url)
    apart = {settings.repository_path.resolve(), settings.artifacts_path.resolve()}
    for path in _below(root, apart):
        mine = database is not None and path.name.startswith(database.name) and path.parent == database.parent.resolve()
        if not mine and path.suffix != ".lock":
            yield f"root/{path.relative_to(root)}", path
    key = settings.artifacts_path / URLS_KEY
    if key.is_file():
        inside = key.resolve().is_relative_to(root)
        yield (f"root/{key.resolve().relative_to(root)}" if inside else f"elsewhere/artifacts/{URLS_KEY}"), key
    if file is not None and not file.resolve().is_relative_to(root):
        yield "elsewhere/settings/wave.yaml", file
    for name in FILES:
        path = getattr(settings, name)
        if path is not None and path.is_file() and not path.resolve().is_relative_to(root):
            yield f"elsewhere/{name}/{path.name}", path
    for name in FOLDERS:
        folder = getattr(settings, name)
        if folder is not None and not folder.resolve().is_relative_to(root):
            yield from ((f"elsewhere/{name}/{each.relative_to(folder)}", each) for each in _below(folder, set()))
    for number, folder in enumerate(settings.policies):
        if folder.is_dir() and not folder.resolve().is_relative_to(root):
            yield from ((f"elsewhere/policies/{number}/{each.name}", each) for each in sorted(folder.glob("*.y*ml")))


def _below(folder: Path, apart: set[Path]) -> Iterator[Path]:
    """Regular files of a bounded size, in order; nothing hidden, and no link is followed."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(
            name for name in folders if not name.startswith((".", SET_ASIDE)) and (here / name).resolve() not in apart
        )
        for name in sorted(names):
            path = here / name
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not name.startswith(".") and stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST:
                    yield path


def _content(settings: Settings) -> Iterator[tuple[str, Path]]:
    repository, artifacts = settings.repository_path, settings.artifacts_path
    # refs before objects: what a ref names is in the repository by the time that it names it
    for name in ("config", "refs", "objects", "summary", "summary.sig"):
        yield from ((f"content/repository/{each.relative_to(repository)}", each) for each in _all(repository / name))
    if artifacts.is_dir():
        for folder in sorted(artifacts.iterdir()):
            if len(folder.name) == 2 and folder.name != INCOMING:
                yield from ((f"content/artifacts/{each.relative_to(artifacts)}", each) for each in _all(folder))


def _all(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, folders, names in os.walk(place):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names) if (Path(folder) / name).is_file())
