"""An installation for devices that take files, on a machine without ``ostree``: real processes from `wave init` to the
device that confirms, with a delta that the server's own builder makes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import Logged, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SETTINGS = """
root: .
port: 0
builders: 1
check_in_every: 1s
tick_at_most: 1s
delta_program:
  name: xdelta3
  make: [xdelta3, -e, -f, -s, "{from}", "{to}", "{delta}"]
  apply: [xdelta3, -d, -f, -s, "{from}", "{delta}", "{to}"]
"""
ROLLOUT = "rollout: two\ntarget: 2\ntag: main\npolicy: demo\nwaves:\n  - wave: all\n    devices: all\n"
RANDOM = random.Random(3)
ONE = RANDOM.randbytes(300_000)
TWO = ONE[:1000] + b"the second" + ONE[1000:]


class Machine:
    """Only the programs that files need are on its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name in ("xdelta3", "nice", "setpriv", "prlimit"):
            found = shutil.which(name)
            assert found is not None, name
            (programs / name).symlink_to(found)
        self.root = folder / "wave"
        source = str(Path(__file__).parents[2])
        self.environment = {"PATH": str(programs), "PYTHONPATH": source, "WAVE_ROOT": str(self.root), "WAVE_USER": "me"}
        self.environment["WAVE_CONSOLE_PORT"] = "off"

    def wave(self, *words: str) -> str:
        argv = [sys.executable, "-m", "orchestrator", *words]
        ended = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.wave(*words, "--json"))["result"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def serving(machine: Machine) -> Iterator[Callable[[], str]]:
    started: list[subprocess.Popen[bytes]] = []
    log = machine.folder / "serve.log"

    def serve() -> str:
        with log.open("wb") as stream:
            argv = [sys.executable, "-m", "orchestrator", "serve"]
            started.append(subprocess.Popen(argv, env=machine.environment, stdout=stream, stderr=stream))
        said = Logged(started[-1], log)
        where = until(
            "it says where",
            lambda: said.said().partition("serving devices on ")[2].partition("\n")[0],
            within=60,
            alive=said,
        )
        return where.strip()

    yield serve
    for process in started:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def test_from_init_to_a_confirmed_device(machine: Machine, serving: Callable[[], str]) -> None:
    assert "ostree" not in os.listdir(machine.folder / "bin")  # noqa: PTH208
    assert "no repository" in machine.wave("init", str(machine.root))
    (machine.root / "wave.yaml").write_text(SETTINGS)
    commits = []
    for version, content in ((1, ONE), (2, TWO)):
        file = machine.folder / f"os-{version}.img"
        file.write_bytes(content)
        machine.wave("artifact", "add", str(file), "--version", f"{version}.0", "--hardware-id", "rpi4")
        commits.append(machine.json("target", "add", str(version), "--artifact", str(file), "--tag", "main")["commit"])
    fleet = machine.folder / "fleet.yaml"
    fleet.write_text("devices:\n  - {id: dev-1, hardware_id: rpi4, tag: main}\n")
    machine.wave("device", "enroll", "--from", str(fleet), "--tokens-to", str(machine.folder / "tokens"))
    name, token = (machine.folder / "tokens").read_text().split()
    url = serving()
    with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30) as device:

        def check_in(commit: str) -> Any:
            answer = device.post(f"{url}/v1/devices/{name}/check-in", json={"commit": commit})
            assert answer.status_code == 200, answer.text
            return answer.json()["offer"]

        assert check_in(commits[0]) is None
        (machine.folder / "rollout.yaml").write_text(ROLLOUT)
        machine.wave("apply", str(machine.folder / "rollout.yaml"), "--start")
        offer = until("it is offered", lambda: check_in(commits[0]), within=60, every=0.1)
        assert (offer["repository"], offer["target"]["commit"]) == (None, commits[1])
        assert offer["delta"]["program"] == "xdelta3" and offer["delta"]["bytes"] < 1000

        with httpx.Client(timeout=30) as stranger:  # a download needs no token, only its address
            delta = stranger.get(offer["delta"]["url"]).content
            assert hashlib.sha256(delta).hexdigest() == offer["delta"]["sha256"]
            whole = stranger.get(offer["artifact"]["url"], headers={"range": "bytes=1000-1009"})
            assert (whole.status_code, whole.content) == (206, b"the second")
            assert stranger.get(offer["artifact"]["url"].partition("?")[0]).status_code == 403
            assert stranger.get(f"{url}/artifacts/urls.key").status_code == 403
        for place, content in (("old", ONE), ("delta", delta)):
            (machine.folder / place).write_bytes(content)
        places = [str(machine.folder / each) for each in ("old", "delta", "new")]
        subprocess.run(["xdelta3", "-d", "-s", *places], check=True, timeout=60)
        assert (machine.folder / "new").read_bytes() == TWO
        assert check_in(commits[1]) is None
    explained = machine.json("explain", "dev-1")
    assert (explained["version"], explained["updates"][0]["status"]) == (2, "confirmed")
