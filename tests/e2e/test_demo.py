"""`make demo` in small, and the two scripts that make releases: as a user runs them, in a directory of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo.fleet import make_fleet
from examples.demo.trees import HARDWARE_IDS
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.ostree, pytest.mark.timeout(300)]

HOUSE = Path(__file__).parents[2]
WAVE = [sys.executable, "-m", "orchestrator"]
SMALL = ["--devices", "40", "--real", "4", "--plain"]


def demo(root: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.demo", "--root", str(root), *SMALL, *options]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=HOUSE, start_new_session=True, **streams)


def at_work_in(root: Path) -> list[str]:
    """The processes that have ``root`` as working directory or in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            here = (process / "cwd").readlink().is_relative_to(root)
        except OSError:
            continue
        if int(process.name) != os.getpid() and (here or str(root) in command):
            found.append(command)
    return found


@dataclass
class Played:
    """What a whole demo left behind."""

    root: Path
    said: str
    result: dict[str, Any]
    picture: str

    def wave(self, *arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
        run = subprocess.run(
            [*WAVE, *arguments], cwd=self.root, env=environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        return run.stdout


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    root = tmp_path_factory.mktemp("demo")
    picture = root.parent / "demo.svg"
    process = demo(root, "--picture", str(picture))
    said, problems = process.communicate(timeout=280)
    assert process.returncode == 0, said + problems
    result = json.loads((root / "result.json").read_text())
    return Played(root, said, result, picture.read_text())


def test_the_good_release_reaches_everybody_untouched(played: Played) -> None:
    good = played.result["rollouts"][0]
    assert (good["status"], good["bad"]) == ("completed", {})
    assert good["confirmed"] == good["devices"]
    assert set(good["waves"].values()) == {"passed"}
    entries = [line for line in played.wave("journal", "lmp-3").splitlines() if line[:2].strip().isdigit()]
    orders = [line.split()[3] for line in entries if line.endswith("by demo")]
    assert orders == ["applied", "started"]
    assert len(entries) > 12  # and everything else was the policy's


def test_the_bad_release_is_halted_early_and_offered_to_nobody_afterwards(played: Played) -> None:
    bad, halt = played.result["rollouts"][1], played.result["halt"]
    assert bad["status"] == "cancelled"
    assert bad["waves"]["canary"] == "failed"
    assert {bad["waves"][wave] for wave in ("emea", "amer", "rest")} <= {"preparing", "pending"}
    assert bad["offered"] <= 22 < bad["devices"]
    assert "rolled back" in bad["reason"]
    assert (halt["offers_after"], halt["got_after"]) == (0, 0)
    assert halt["asked_after"] > 0
    assert "wave cancel lmp-4 --reason" in played.said
    assert "is halted" not in played.wave("explain", "lab-01")


def test_real_devices_fetched_the_delta_and_nothing_else(played: Played) -> None:
    pairs = played.result["pairs"]
    assert {"rpi4 2→3", "imx8 2→3", "rpi4 3→4"} <= set(pairs)
    for pair in pairs.values():
        assert pair["requests"] <= 3
        assert pair["bytes"] < pair["loose_bytes"] / 2
        assert pair["requests"] < pair["loose_requests"]


def test_what_it_leaves_can_be_looked_at(played: Played) -> None:
    assert "lmp-4" in played.wave("list")
    assert json.loads(played.wave("status", "lmp-4", "--json"))
    assert "cancelled" in played.wave("status", "lmp-4").lower()
    assert "rolled back" in played.wave("explain", "lmp-4")
    assert "2" in played.wave("delta", "list")


def test_nothing_goes_on_running(played: Played) -> None:
    assert at_work_in(played.root) == []


def test_the_page_and_the_picture_fit_and_name_no_place_of_this_machine(played: Played) -> None:
    lines = played.said.splitlines()
    start = next(index for index, line in enumerate(lines) if "The demo took" in line)
    assert max(map(len, lines)) <= 80
    assert "Look further" in "\n".join(lines[start:])
    for text in ("\n".join(lines[start:]), played.picture):
        assert str(played.root.parent) not in text
        assert str(HOUSE) not in text
    assert "<svg" in played.picture


def test_an_interrupt_ends_everything_that_was_started(tmp_path: Path) -> None:
    process = demo(tmp_path)
    begun = (tmp_path / "devices.log").exists  # once the server listens and the devices begin
    until("the devices begin", lambda: begun() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, problems = process.communicate(timeout=60)
    assert process.returncode == 130, problems
    assert "Traceback" not in problems
    assert at_work_in(tmp_path) == []


def test_a_demo_that_cannot_go_on_says_why_and_what_the_server_said(tmp_path: Path) -> None:
    process = demo(tmp_path, "--within", "0.5")
    _, problems = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Waited 0.5 s in vain for rollout lmp-3 to complete." in problems
    assert "Traceback" not in problems
    assert at_work_in(tmp_path) == []


def test_a_fleet_has_real_devices_in_the_lab_among_the_early_and_in_both_regions() -> None:
    members = make_fleet(200, 15)
    real = [each for each in members if each.real]
    assert (len(members), len(real), len({each.id for each in members})) == (200, 15, 200)
    assert {each.group for each in real} == {"lab", "field"}
    assert {each.region for each in real if each.ring == "early"} == {"emea", "amer"}
    assert {each.region for each in real if each.ring == "late"} == {"emea", "amer"}
    assert {(each.hardware_id, each.version) for each in real} == {(h, v) for h in HARDWARE_IDS for v in (1, 2)}
    assert {each.version for each in members} == {1, 2, 3}


def test_the_scripts_commit_a_release_and_add_it_as_a_target(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "WAVE": " ".join(WAVE)}

    def run(*command: str) -> str:
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run(*WAVE, "init", ".")
    run(str(HOUSE / "examples/good-release.sh"), "repo", "9", "rpi4")
    run(str(HOUSE / "examples/bad-release.sh"), "repo", "10", "rpi4", "main,promoted")
    targets = run(*WAVE, "target", "list")
    assert "rpi4-9" in targets
    assert "main, promoted" in targets or "main,promoted" in targets
    for version, healthy in ((9, True), (10, False)):
        run("ostree", "checkout", "--repo=repo", "-U", f"lmp/rpi4/{version}", str(tmp_path / str(version)))
        check = subprocess.run([tmp_path / str(version) / "usr/bin/health-check"], capture_output=True)
        assert (check.returncode == 0) is healthy
    assert "VERSION_ID=10" in (tmp_path / "10/usr/lib/os-release").read_text()
