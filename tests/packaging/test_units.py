"""The systemd units are what systemd takes them for, and give the service no right that it does not need."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from orchestrator.adapters.service_manager import ServiceManager

UNITS = Path(__file__).parents[2] / "packaging/systemd"
SERVICES = sorted(UNITS.glob("*.service"))

MOST_EXPOSED = 1.5
"""Of 10, as `systemd-analyze security` counts."""


def analyzed(*words: str) -> str:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd is missing: `make test` gets it"
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The units with a program that is there in the place of the installed one."""
    for unit in SERVICES:
        text = unit.read_text(encoding="utf-8").replace("/opt/wave/bin/wave", "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_in_it(unit: Path, here: Path) -> None:
    said = analyzed("verify", "--man=no", "--generators=no", "--recursive-errors=no", str(here / unit.name))
    assert [line for line in said.splitlines() if "wave" in line] == []


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_it_is_exposed_to_little(unit: Path, here: Path) -> None:
    said = analyzed("security", "--offline=yes", "--no-pager", str(here / unit.name))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= MOST_EXPOSED, said


def test_both_are_held_alike() -> None:
    held = [unit.read_text(encoding="utf-8").partition("# What it never needs")[2] for unit in SERVICES]
    assert len(held) == 2 and held[0] == held[1] != ""


def test_what_the_service_is_told_to_say_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        environment = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "60000000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        service = ServiceManager.of(environment)
        service.ready("Serving devices on port 8700.")
        assert manager.recv(1024) == b"READY=1\nSTATUS=Serving devices on port 8700."
        for _ in range(3):
            service.alive()
        service.stopping()
        assert manager.recv(1024) == b"WATCHDOG=1", "one sign of life within a third of the time is enough"
        assert manager.recv(1024) == b"STOPPING=1"


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}],
)
def test_without_a_manager_nothing_is_said_and_nothing_fails(environment: dict[str, str]) -> None:
    service = ServiceManager.of(environment)
    assert service.every is None
    service.ready("Alone.")
    service.alive()
    service.stopping()
