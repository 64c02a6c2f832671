"""The how-to guides: what is marked in them is run as it stands, in an installation that has devices and a rollout, and
shows what it is said to show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.evidence.limits import staircase
from tests.docs.test_first_rollout import ROOT, blocks_of
from tests.postgres import Cluster

pytestmark = pytest.mark.e2e

SERVER = "postgresql+psycopg://wave:SECRET@db/wave"


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command in it."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "wave").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchestrator "$@"\n')
    (folder / "wave").chmod(0o755)
    return folder


def run(page: str, here: Path, wave: Path, **replaced: str) -> str:
    """What the blocks of a page say when they follow each other in one shell; lines are as wide as they like."""
    name = Path(page).stem
    script = "\n".join(blocks_of(page, f"runnable: {name}"))
    for word, other in replaced.items():
        script = script.replace(word, other)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WAVE_", "PG"))}
    environment = {
        **kept,
        "PATH": f"{wave}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WAVE_USER": "reader",
        "BACKUPS": str(here / "backups"),
    }
    (here / "backups").mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    flat = " ".join(done.stdout.split())
    for block in blocks_of(page, f"shows: {name}"):
        for line in block.splitlines():
            assert " ".join(line.split()) in flat, done.stdout
    return flat


def installed(here: Path, wave: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WAVE_USER": "reader"}
    for words in (
        ["init"],
        ["device", "enroll", "lab-1", "--hardware-id", "rpi4", "--tag", "main"],
    ):
        subprocess.run([wave / "wave", *words], cwd=here, env=environment, check=True, capture_output=True, timeout=60)


def test_writing_a_policy(tmp_path: Path, wave: Path) -> None:
    assert "policies/kiosks.yaml is a policy: kiosks." in run("docs/how-to/policy.md", tmp_path, wave)


def test_reading_the_staircase(tmp_path: Path, wave: Path) -> None:
    run("docs/how-to/staircase.md", tmp_path, wave)
    text = (ROOT / "docs/how-to/staircase.md").read_text(encoding="utf-8")
    (figures,) = re.findall(r"^      (\d.* in .*)$", text, re.MULTILINE)
    (tolerated, risk) = re.findall(r"rollout +(\d+)% +(\d+)%", text)[0]
    stairs = staircase(int(tolerated) / 100, int(risk) / 100)
    assert figures == ", ".join(f"{bad} in {stairs.limit(bad)}" for bad in range(stairs.first, stairs.first + 4))


@pytest.mark.ostree
def test_backing_up_and_restoring(tmp_path: Path, wave: Path) -> None:
    installed(tmp_path, wave)
    said = run("docs/how-to/backup.md", tmp_path, wave)
    assert "Nothing was changed." in said and ".wave/before-restore-" in said
    assert not (tmp_path / "drill").exists()


@pytest.mark.ostree
@pytest.mark.postgres
def test_moving_to_postgresql(tmp_path: Path, wave: Path, postgres: tuple[Cluster, str]) -> None:
    installed(tmp_path, wave)
    cluster, _ = postgres
    said = run("docs/how-to/postgresql.md", tmp_path, wave, **{SERVER: cluster.url(cluster.database())})
    assert "The database postgresql+psycopg://" in said and "lab-1" in said
    assert (tmp_path / "postgresql.yaml").stat().st_mode & 0o777 == 0o600
