"""The wheel holds everything, and works where nothing of a checkout is: an environment of its own, another directory,
no variable but the path. The packages it depends on are those of the tests, so nothing is fetched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from contextlib import closing
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.loopback import free_port

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wave(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run([*install, str(wheel)], check=True, env=quiet, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    # a line of a .pth file is a directory; the .pth files in it, and so the checkout, are not read
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "bin/wave"


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}


def run(wave: Path, *words: str, where: Path, environment: dict[str, str], expect: int = 0) -> str:
    done = subprocess.run(
        [wave, *words], cwd=where, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "orchestrator", "policies"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    wanted = {
        name.replace("policies/", "orchestrator/_policies/", 1) if name.startswith("policies/") else name
        for name in listed
        if name and name != "orchestrator/_policies"
    }
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name and ".data/" not in name}
    assert wanted - held == set()
    assert {name for name in held - wanted if not (ROOT / name).is_file()} == set()
    assert not [name for name in held if name.endswith((".pyc", ".key", ".db"))]


def test_the_units_of_systemd_lie_where_it_is_installed(wave: Path) -> None:
    there = wave.parents[1] / "share/wave/systemd"
    units = {unit.name: unit.read_text() for unit in (ROOT / "packaging/systemd").iterdir()}
    assert {unit.name: unit.read_text() for unit in there.iterdir()} == units
    assert {"wave.service", "wave-builder@.service"} < set(units)


def test_it_is_the_wheels_code_that_runs(wave: Path, tmp_path: Path, alone: dict[str, str]) -> None:
    code = "import orchestrator, importlib.resources as r; print(orchestrator.__file__, r.files('orchestrator'))"
    asked = [str(wave.with_name("python")), "-c", code]
    said = subprocess.run(asked, cwd=tmp_path, env=alone, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() and all(place.startswith(str(wave.parents[1])) for place in said.stdout.split())


def test_an_installation_is_made_served_and_examined(wave: Path, tmp_path: Path, alone: dict[str, str]) -> None:
    root = tmp_path / "house"
    assert "is ready" in run(wave, "init", str(root), where=tmp_path, environment=alone)
    assert "standard" in run(wave, "policy", "list", where=tmp_path, environment=alone)
    port = free_port()
    settings = {**alone, "WAVE_ROOT": str(root), "WAVE_PORT": str(port), "WAVE_CONSOLE_PORT": "0"}
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    with closing(manager), served(wave, port, where=tmp_path, environment=settings | told) as serving:
        assert heard(manager, "READY=1") == f"READY=1\nSTATUS=Serving devices on port {port}."
        assert heard(manager, "WATCHDOG=1")
        found = json.loads(run(wave, "doctor", "--json", where=tmp_path, environment=settings))["result"]
        assert [each for each in found["findings"] if each["level"] == "fail"] == []
        said = " ".join(each["sentence"] for each in found["findings"])
        assert f"port {port}, for devices, is held by `wave serve`, which answers." in said
        serving.terminate()
        assert heard(manager, "STOPPING=1")
    checked = run(wave, "db", "check", where=tmp_path, environment=settings)
    assert "Everything counts up." in checked


def heard(manager: socket.socket, word: str) -> str:
    """The next message to the service manager that begins so."""
    manager.settimeout(20)
    while not (said := manager.recv(1024).decode()).startswith(word):
        pass
    return said


class served:
    """``wave serve`` until the block ends; it answers before the block begins."""

    def __init__(self, wave: Path, port: int, *, where: Path, environment: dict[str, str]) -> None:
        self._log = where / "serve.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([wave, "serve"], cwd=where, env=environment, stdout=log, stderr=log)
        self._port = port

    def __enter__(self) -> subprocess.Popen[bytes]:
        ends = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5) as answer:
                    assert answer.read() == b'{"status":"ok"}'
                return self._process
            except (URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > ends:
                    self.__exit__()
                    raise AssertionError(self._log.read_text()) from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
