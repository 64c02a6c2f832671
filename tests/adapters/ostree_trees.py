"""A small archive repository with four versions, for the tests of everything that deals with OSTree.

1: the first. 2: programs and configuration changed. 3: an incompressible file of 5 MB more (a fallback object in 2->3),
one file less. 4: changed again, and its health check fails. A linear history under the refs ``os/1`` to ``os/4``.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.services.delta_provider import DeltaPair

BIG_FILE_BYTES = 5_000_000


@dataclass(frozen=True)
class Versions:
    repo: Path
    commits: dict[int, str]

    def pair(self, origin: int | None, target: int) -> DeltaPair:
        return DeltaPair(None if origin is None else self.commits[origin], self.commits[target])

    def copy(self, to: Path) -> Versions:
        """An own repository with the same objects, by hard links where nothing is ever written in place."""
        shutil.copytree(self.repo, to, copy_function=_link_or_copy)
        return Versions(to, self.commits)


def _link_or_copy(source: str, target: str) -> None:
    if "/objects/" in source:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def ostree(repo: Path, *arguments: str) -> str:
    command = ["ostree", f"--repo={repo}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def make_versions(root: Path) -> Versions:
    repo, tree = root / "repo", root / "tree"
    repo.mkdir(parents=True)
    ostree(repo, "init", "--mode=archive")
    ostree(repo, "config", "set", "core.fsync", "false")
    dice = random.Random(4711)
    program = bytearray(b"".join(bytes([dice.randrange(16)]) * dice.randrange(1, 9) for _ in range(60_000)))
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/lib/module").mkdir(parents=True)
    (tree / "usr/etc").mkdir(parents=True)
    for number in range(30):
        (tree / f"usr/lib/module/part{number}.py").write_text(f"value = {number}\n" * (number + 1))
    (tree / "usr/lib/odd \n name é").write_text("names may hold anything but a slash\n")
    (tree / "usr/lib/link").symlink_to("module/part1.py")
    commits: dict[int, str] = {}
    for version in (1, 2, 3, 4):
        for place in range(version * 100, len(program), 5_000):
            program[place] ^= 0xFF
        (tree / "usr/bin/program").write_bytes(program + dice.randbytes(300 * version))
        (tree / "usr/etc/app.conf").write_text(f"version = {version}\n")
        (tree / "usr/lib/os-release").write_text(f"VERSION_ID={version}\n")
        (tree / "usr/bin/health-check").write_text(f"#!/bin/sh\nexit {int(version == 4)}\n")
        (tree / "usr/bin/health-check").chmod(0o755)
        if version == 3:
            (tree / "usr/lib/big").write_bytes(dice.randbytes(BIG_FILE_BYTES))
            (tree / "usr/lib/module/part3.py").unlink()
        options = ["--no-xattrs", "--owner-uid=0", "--owner-gid=0", f"--timestamp=@{1_700_000_000 + version}"]
        if version > 1:
            options.append(f"--parent={commits[version - 1]}")
        commits[version] = ostree(
            repo, "commit", f"--branch=os/{version}", f"--subject=version {version}", f"--tree=dir={tree}", *options
        )
    shutil.rmtree(tree)
    return Versions(repo, commits)
