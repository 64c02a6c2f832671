"""Makes the content of the demo: an OSTree archive with four versions of a system image for two hardware ids.

The image is cut from files of this machine, in a fixed order, so that the deltas are of real programs and libraries.
Version 2 changes configuration, 3 is a real release (rebuilt programs, files added and removed), 4 is the bad one: on
``imx8`` its health check fails. Standard library and the ``ostree`` command; nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HARDWARE_IDS = ("rpi4", "imx8")
VERSIONS = (1, 2, 3, 4)
BAD = ("imx8", 4)
"""The hardware id on which a version's health check fails."""

OWN_FILES = ("usr/lib/os-release", "usr/bin/health-check", "usr/lib/firmware/", "usr/etc/demo/")

FEWEST_FILES = 3_100
FEWEST_BYTES = 60_000_000
LARGEST_FILE = 3_000_000

SOURCES = (
    ("/usr/bin", 24_000_000),
    ("/usr/lib/x86_64-linux-gnu", 24_000_000),
    ("/usr/lib/aarch64-linux-gnu", 24_000_000),
    ("/usr/lib/python3", 8_000_000),
    ("/usr/lib/python3.11", 12_000_000),
    ("/usr/share", 8_000_000),
)
"""Folders to take files from, and about how many bytes of each."""

FILL_UP = ("/usr/lib", "/usr/share", "/usr", "/opt")
"""Taken from until there is enough, where the folders above are small or missing."""

Report = Callable[[str], None]


def repository_path(root: Path) -> Path:
    """Where ``make_repository`` puts the archive."""
    return root / "repo"


def make_repository(root: Path, *, report: Report) -> dict[tuple[str, int], str]:
    """Make what is missing below ``root``; (hardware id, version) to commit. Refs are ``lmp/<hardware id>/<version>``.

    Run again it finishes what a killed run began, and makes nothing twice. ``report`` gets a sentence per step.
    """
    repo = repository_path(root)
    refs = {(hardware, version): f"lmp/{hardware}/{version}" for hardware in HARDWARE_IDS for version in VERSIONS}
    if not (repo / "config").exists():
        repo.mkdir(parents=True, exist_ok=True)
        _ostree(repo, "init", "--mode=archive")
    commits = {key: commit for key, ref in refs.items() if (commit := _read_ref(repo, ref)) is not None}
    if len(commits) < len(refs):
        work = root / "tree"
        shutil.rmtree(work, ignore_errors=True)
        # synced once at the end instead of after every file; level 1 is good enough for a demo and three times as fast
        _ostree(repo, "config", "set", "core.fsync", "false")
        _ostree(repo, "config", "set", "archive.zlib-level", "1")
        try:
            commits = _commit_all(repo, work, report)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        os.sync()
    _ostree(repo, "config", "set", "core.fsync", "true")
    _ostree(repo, "summary", "-u")
    report(f"The repository {repo} holds {len(commits)} commits.")
    return commits


def _commit_all(repo: Path, work: Path, report: Report) -> dict[tuple[str, int], str]:
    files = _choose(report)
    changes = _Changes(files)
    core = work / "core"
    size = 0
    for name, source in files.items():
        if name not in changes.removed and name not in changes.added:
            size += _write(core / name, source.read_bytes(), executable=os.access(source, os.X_OK))
    report(f"Copied {size / 1e6:.0f} MB that all versions share; committing.")
    shared = _commit(repo, "shared files", ["--orphan", f"--tree=dir={core}"], version=0)

    def chain(hardware: str) -> dict[tuple[str, int], str]:
        made: dict[tuple[str, int], str] = {}
        parent: str | None = None
        for version in VERSIONS:
            overlay = work / f"{hardware}-{version}"
            changes.write(overlay, hardware, version)
            options = [f"--branch=lmp/{hardware}/{version}", f"--base={shared}", f"--tree=dir={overlay}"]
            if parent is not None:
                options.append(f"--parent={parent}")
            parent = made[hardware, version] = _commit(repo, f"{hardware} {version}", options, version=version)
            report(f"Committed {hardware} version {version}: {parent[:12]}.")
        return made

    with ThreadPoolExecutor(len(HARDWARE_IDS)) as pool:
        return {key: commit for made in pool.map(chain, HARDWARE_IDS) for key, commit in made.items()}


def _choose(report: Report) -> dict[str, Path]:
    """Path in the tree to file on this machine: at least FEWEST_FILES and FEWEST_BYTES, the same every time."""
    chosen: dict[str, Path] = {}
    total = 0
    for folder, budget in [*SOURCES, *((folder, sys.maxsize) for folder in FILL_UP)]:
        taken = 0
        for path in _walk(Path(folder)):
            enough = len(chosen) >= FEWEST_FILES and total >= FEWEST_BYTES
            if taken >= budget or (enough and folder in FILL_UP):
                break
            name = path.relative_to("/").as_posix()
            status = path.lstat()
            # what the overlays write is not taken from the machine
            if name in chosen or name.startswith(OWN_FILES) or not stat.S_ISREG(status.st_mode):
                continue
            if 0 < status.st_size <= LARGEST_FILE and os.access(path, os.R_OK):
                chosen[name] = path
                taken += status.st_size
                total += status.st_size
    if len(chosen) < FEWEST_FILES:
        raise RuntimeError(f"This machine has only {len(chosen)} files to make a demo of; {FEWEST_FILES} are needed.")
    report(f"Chose {len(chosen)} files, {total / 1e6:.0f} MB, of this machine.")
    return chosen


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(top):
        folders.sort()
        for file in sorted(files):
            yield Path(folder, file)


class _Changes:
    """Which files differ between versions, chosen by a hash of their names so that it is the same every time."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        shuffled = sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest())
        sizes = {name: files[name].stat().st_size for name in shuffled}
        small = [name for name in shuffled if sizes[name] < 20_000]
        programs = [name for name in shuffled if sizes[name] >= 20_000 and "/python3" not in name]
        self.removed = {*programs[:3], *small[:12]}
        self.added = {*programs[3:8], *small[12:32]}
        self._edited = small[32:50]
        self._rebuilt = {3: self._up_to(programs[8:], sizes, 7_000_000)}
        rest = [name for name in programs[8:] if name not in self._rebuilt[3]]
        self._rebuilt[4] = self._up_to(rest, sizes, 4_000_000)

    @staticmethod
    def _up_to(names: list[str], sizes: dict[str, int], limit: int) -> list[str]:
        taken: list[str] = []
        for name in names:
            if sum(sizes[other] for other in taken) >= limit:
                break
            taken.append(name)
        return taken

    def write(self, overlay: Path, hardware: str, version: int) -> None:
        """All in which this version differs from the shared files."""
        for name in self.removed if version < 3 else self.added:
            self._write_changed(overlay, name, self._files[name].read_bytes())
        for name in self._edited if version >= 2 else ():
            edit = f"\n# changed for {2 if version < 4 else 4}\n".encode()
            self._write_changed(overlay, name, self._files[name].read_bytes() + edit)
        for since, names in self._rebuilt.items():
            for name in names if version >= since else ():
                self._write_changed(overlay, name, _rebuild(self._files[name].read_bytes(), since))
        release = f'ID=lmp\nVERSION_ID={version}\nVARIANT_ID={hardware}\nPRETTY_NAME="Demo {version} for {hardware}"\n'
        _write(overlay / "usr/lib/os-release", release.encode())
        _write(overlay / "usr/etc/demo/channel.conf", f"release = {version}\nboard = {hardware}\n".encode())
        firmware = b"".join(hashlib.sha256(f"{hardware} {block}".encode()).digest() for block in range(8_000))
        digest = hashlib.sha256(firmware).hexdigest()
        if (hardware, version) == BAD:
            # the mistake of the bad release: firmware of another board revision, which the health check finds out
            firmware = _rebuild(firmware, version)
        _write(overlay / "usr/lib/firmware/board.bin", firmware)
        _write(overlay / "usr/lib/firmware/board.sha256", f"{digest}  board.bin\n".encode())
        _write(overlay / "usr/bin/health-check", HEALTH_CHECK.format(version=version).encode(), executable=True)

    def _write_changed(self, overlay: Path, name: str, content: bytes) -> None:
        _write(overlay / name, content, executable=os.access(self._files[name], os.X_OK))


HEALTH_CHECK = """#!/bin/sh
# Run by a device after it has started a new version; anything but 0 makes it go back.
cd "$(dirname "$0")/../.." || exit 1
. usr/lib/os-release
[ "$VERSION_ID" = "{version}" ] || {{ echo "os-release says $VERSION_ID, not {version}" >&2; exit 1; }}
cd usr/lib/firmware || exit 1
sha256sum --status --check board.sha256 || {{ echo "board firmware does not fit $VARIANT_ID" >&2; exit 1; }}
"""


def _rebuild(content: bytes, seed: int) -> bytes:
    """``content`` as a compiler would have changed it: some words differ all over, and code was put in."""
    changed = bytearray(content)
    for place in range(512 + seed * 64, len(changed) - 8, 400):
        changed[place : place + 4] = hashlib.sha256(f"{seed} {place}".encode()).digest()[:4]
    middle = len(changed) // 3
    new = b"".join(hashlib.sha256(f"{seed} {block}".encode()).digest() for block in range(1 + len(content) // 800))
    return bytes(changed[:middle] + new + changed[middle:])


def _write(path: Path, content: bytes, *, executable: bool = False) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)
    return len(content)


def _commit(repo: Path, subject: str, options: list[str], *, version: int) -> str:
    # a fixed time makes the same files the same commit
    when = f"--timestamp=@{1_790_000_000 + version * 86_400}"
    fixed = ["--no-xattrs", "--owner-uid=0", "--owner-gid=0", "--canonical-permissions", when, f"--subject={subject}"]
    return _ostree(repo, "commit", *fixed, *options).strip()


def _read_ref(repo: Path, ref: str) -> str | None:
    try:
        commit = (repo / "refs" / "heads" / ref).read_text().strip()
    except FileNotFoundError:
        return None
    return commit if (repo / "objects" / commit[:2] / f"{commit[2:]}.commit").exists() else None


def _ostree(repo: Path, *arguments: str) -> str:
    command = ["ostree", f"--repo={repo}", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {run.stderr.strip()}")
    return run.stdout


if __name__ == "__main__":
    started = time.monotonic()
    make_repository(Path(sys.argv[1]), report=lambda line: print(f"{time.monotonic() - started:5.1f} s  {line}"))
