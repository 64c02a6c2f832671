"""OSTree, the repository, and the program that makes deltas between files."""

from __future__ import annotations

import configparser
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

from orchestrator.adapters.ostree.command import OstreeCommand
from orchestrator.services.doctor import Area, Finding, broken, doubtful, fine
from orchestrator.services.settings import Settings

_MODES = ("archive", "archive-z2")


def repository(settings: Settings, now: datetime) -> Iterator[Finding]:
    """A house for files only has neither ``ostree`` nor a repository, and needs none."""
    folder = settings.repository_path
    if shutil.which("ostree") is None:
        if (folder / "config").exists():
            yield broken(
                Area.CONTENT, "The command `ostree` is not there.", "Install it (Debian: `apt-get install ostree`)."
            )
        else:
            yield doubtful(
                Area.CONTENT,
                "There is no `ostree` and no repository: Targets can be files only.",
                "Nothing, if that is meant; else `apt-get install ostree` and `wave init`.",
            )
        return
    command = OstreeCommand()
    command.check()
    version = command.run("--version").stdout.partition("Version:")[2].split()[0].strip("'\"")
    yield fine(Area.CONTENT, f"OSTree is version {version}.")
    config = folder / "config"
    if not config.is_file():
        yield broken(
            Area.CONTENT,
            f"There is no OSTree repository at {folder}.",
            "Mount or restore it, or make one with `wave init`.",
        )
        return
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.read_string(config.read_text(encoding="utf-8", errors="replace"))
    mode = read.get("core", "mode", fallback="bare")
    if mode not in _MODES:
        yield broken(
            Area.CONTENT,
            f"The repository {folder} has mode {mode}: devices cannot pull from it over HTTP.",
            "Make one with `ostree init --mode=archive` and pull the commits into it with `ostree pull-local`.",
        )
    elif not os.access(folder, os.W_OK) or not os.access(folder / "objects", os.W_OK):
        yield broken(
            Area.CONTENT,
            f"This user may not write to the repository {folder}.",
            "Run as its owner, or change its permissions: deltas are published there.",
        )
    else:
        yield fine(Area.CONTENT, f"The repository {folder} has mode archive and can be written.")
    if (folder / "summary.sig").exists() and settings.gpg_sign is None:
        yield doubtful(
            Area.CONTENT,
            "The repository's summary is signed, and no key is set: nothing is published in it.",
            "Set `gpg_sign` to the key's id, or remove summary.sig.",
        )
    if settings.gpg_sign is not None:
        yield from _signing(settings)


def _signing(settings: Settings) -> Iterator[Finding]:
    from orchestrator.adapters.doctor.words import date

    if shutil.which("gpg") is None:
        yield broken(Area.CONTENT, "`gpg_sign` is set and gpg is not there.", "`apt-get install gnupg`.")
        return
    import subprocess

    home = [] if settings.gpg_homedir is None else ["--homedir", str(settings.gpg_homedir)]
    asked = subprocess.run(
        ["gpg", *home, "--batch", "--with-colons", "--list-secret-keys", "--", str(settings.gpg_sign)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    rows = [line.split(":") for line in asked.stdout.splitlines() if line.startswith("sec:")]
    if not rows:
        yield broken(
            Area.CONTENT,
            f"The secret key {settings.gpg_sign} that signs the summary is not there.",
            "Import it, or set `gpg_homedir` to where it is.",
        )
        return
    for row in rows:
        ends = row[6] if len(row) > 6 else ""
        if row[1] in ("e", "r"):
            yield broken(
                Area.CONTENT,
                f"The key {settings.gpg_sign} that signs the summary is {'over' if row[1] == 'e' else 'revoked'}.",
                "Extend it with `gpg --quick-set-expire`, or sign with another one.",
            )
        else:
            until = f" until {date(datetime.fromtimestamp(int(ends), tz=UTC))}" if ends.isdigit() else ""
            yield fine(Area.CONTENT, f"The key {settings.gpg_sign} signs the summary{until}.")


def delta_program(settings: Settings, now: datetime) -> Iterator[Finding]:
    program = settings.delta_program
    if program is None:
        yield fine(Area.DELTAS, "No delta program is set: files are served whole.")
        return
    missing = sorted({each[0] for each in program.commands if shutil.which(each[0]) is None})
    if missing:
        yield broken(
            Area.DELTAS,
            f"The delta program {program.name} needs {', '.join(missing)}, which is not there.",
            "Install it: until then no delta between files is built, and waves wait for those they need.",
        )
    else:
        yield fine(Area.DELTAS, f"The delta program {program.name} is there.")
