"""Real Mender clients against the real ``wave serve``: several at once, and what goes wrong in the field."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from orchestrator.core.update import UpdateStatus
from tests.e2e.faults import ROOT, House
from tests.e2e.mender_clients import FAIL, GOOD, MODULE, WAIT, Client, Wire, accept, artifact, has_come, waits
from tests.waiting import until

POLICY = """policy: quick
tolerate:
  failed: 2%
budget: {failed: 1}
silent_after: 10m
slices: {first: 20, growth: 2}
slice_at_most: 5m
open_at_most: 5m
on_halt: [withdraw, cancel]
deltas: {cover: 100%, within: 0s, otherwise: full}
bake: {at_least: 1s, reports: 95%, at_most: 10m}
"""
PAGE = ROOT / "docs" / "devices" / "mender.md"
NUMBERS = {status: number for number, status in enumerate(UpdateStatus)}

Opener = Callable[..., House]


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def house(tmp_path: Path, ending: ExitStack) -> House:
    """An installation of files alone, its server running."""
    made = House.bare(tmp_path / "house")
    ending.callback(made.close)
    made.ok("init")
    made.file("quick.yaml", POLICY)
    made.serve()
    return made


def clients(house: House, ending: ExitStack, *names: str) -> list[Client]:
    """Devices that are switched on; one of them has another kind of key."""
    found = [
        Client(house, name, key="rsa" if number else "ec", strict=name == "strict") for number, name in enumerate(names)
    ]
    for each in found:
        ending.callback(each.kill)
        each.start()
    return found


def target(house: House, version: int, file: str, tag: str = "main") -> None:
    house.ok("target", "add", str(version), "--artifact", file, "--tag", tag)


def rollout(house: House, version: int, *, tag: str = "main", waves: str = "  - {wave: all, devices: all}\n") -> str:
    name = f"r{version}"
    page = f"rollout: {name}\ntarget: {version}\ntag: {tag}\npolicy: ./quick.yaml\nwaves:\n{waves}"
    house.ok("apply", house.file(f"{name}.yaml", page), "--start")
    return name


def comes_to(client: Client, name: str, status: UpdateStatus) -> None:
    client.until(f"its update is {status}", lambda: is_at(client, name, status))


def is_at(client: Client, name: str, status: UpdateStatus) -> bool:
    found = client.update(name)
    return found is not None and found[0] == NUMBERS[status]


def test_they_wait_for_a_person_install_and_confirm_and_a_killed_server_loses_nothing(
    house: House, ending: ExitStack
) -> None:
    """Four devices ask and wait; accepted, they are offered version 2. While they install, the server is killed, and
    comes back. All confirm, by what they say that they run; nothing is counted twice."""
    fleet = clients(house, ending, "m1", "m2", "m3", "m4")
    accept(house, fleet)
    target(house, 2, artifact(house, 2, WAIT))
    name = rollout(house, 2)
    for each in fleet:
        each.installs()
    house.servers[-1].kill()
    house.serve()
    for each in fleet:
        each.go_on()
    for each in fleet:
        comes_to(each, name, UpdateStatus.CONFIRMED)
        assert each.version == "2" and each.events() == [("downloading", None), ("installing", None), ("applied", None)]
    until("it has passed", lambda: house.status(name)["waves"][0]["status"] == "passed", alive=house.servers[-1])
    house.counts_up()


def test_a_bad_release_halts_in_the_first_wave_and_nobody_of_the_second_is_offered_it(
    house: House, ending: ExitStack
) -> None:
    lab = clients(house, ending, "lab1", "lab2")
    field = clients(house, ending, "f1", "f2", "f3")
    accept(house, lab, group="lab")
    accept(house, field)
    target(house, 2, artifact(house, 2, FAIL))
    waves = "  - {wave: lab, devices: {group: lab}}\n  - {wave: rest, devices: all}\n"
    name = rollout(house, 2, waves=waves)
    until("it halts", lambda: house.rollout_status(name) == "halted", alive=house.servers[-1])
    failed = next(each for each in lab if is_at(each, name, UpdateStatus.FAILED))
    failed.until("its log is there", lambda: ("noted", "log") in failed.events())
    shown = house.ok("device", "show", failed.name).out
    assert "the disk is on fire" in shown and "failed [installing]" in shown
    # Each of the second wave comes again, and is told that there is nothing.
    seen = {each.name: last_seen(house, each.name) for each in field}
    for each in field:
        each.until("it comes again", partial(comes_again, house, each.name, seen[each.name]))
        assert each.update(name) is None and each.version is None
    house.counts_up()


def test_a_damaged_download_an_aborted_one_and_a_power_cut(tmp_path: Path, ending: ExitStack) -> None:
    """Three devices, each with a rollout of its own. One's download is damaged on the way and then heals; one's rollout
    is cancelled while it downloads; one loses its power while it installs. A fourth takes only what is signed by a key
    that this release is not signed by."""
    house = House.bare(tmp_path / "house")
    ending.callback(house.close)
    wire = Wire(house.port)
    ending.callback(wire.close)
    wire.damage.set()
    house.ok("init")
    house.file("quick.yaml", POLICY)
    house.settings(more=f"public_url: http://127.0.0.1:{wire.port}")
    house.serve()
    damaged, cut, strict = clients(house, ending, "damaged", "cut", "strict")
    for each in (damaged, cut, strict):
        accept(house, [each], tag=each.name)
    target(house, 2, artifact(house, 2, padding=400_000), "damaged")
    target(house, 3, artifact(house, 3, WAIT), "cut")
    target(house, 5, artifact(house, 5), "strict")
    first, second = rollout(house, 2, tag="damaged"), rollout(house, 3, tag="cut")
    rollout(house, 5, tag="strict")

    # The power goes while it installs; back again, the client gives up what it had begun.
    cut.installs()
    cut.kill()
    cut.start()
    comes_to(cut, second, UpdateStatus.FAILED)
    assert cut.version is None

    # A sum that does not fit is none of the release's outcomes: it is counted apart, and tried again.
    damaged.until("the download failed", lambda: ("download_failed", "downloading") in damaged.events())
    strict.until("the signature does not hold", lambda: ("download_failed", "downloading") in strict.events())
    assert damaged.version is strict.version is None
    wire.damage.clear()
    comes_to(damaged, first, UpdateStatus.CONFIRMED)
    assert damaged.version == "2"

    # An order ends what is being fetched: the client hears of it when it says how far it is.
    wire.open.clear()
    target(house, 4, artifact(house, 4, padding=400_000), "damaged")
    third = rollout(house, 4, tag="damaged")
    comes_to(damaged, third, UpdateStatus.DOWNLOADING)
    house.ok("cancel", third, "--yes")
    wire.open.set()
    comes_to(damaged, third, UpdateStatus.WITHDRAWN)
    assert damaged.version == "2" and damaged.update(third) == (NUMBERS[UpdateStatus.WITHDRAWN], 0)
    assert "aborted" in damaged.said()
    house.counts_up()


def test_a_device_installs_the_delta_from_what_it_runs_and_another_the_whole(tmp_path: Path, ending: ExitStack) -> None:
    """A delta is a Mender Artifact itself, made by the operator's program: here one that lacks what has not changed."""
    house = House.bare(tmp_path / "house")
    ending.callback(house.close)
    small, places = house.root / "small.mender", ["{from}", "{to}", "{delta}"]
    make = json.dumps(["sh", "-c", 'cp "$1" "$4"', "sh", str(small), *places])
    house.settings(more=f"delta_program: {{name: lesser, makes: artifact, make: {make}}}")
    house.ok("init")
    house.file("quick.yaml", POLICY.replace("within: 0s, otherwise: full", "within: 1h, otherwise: hold"))
    (house.root / artifact(house, 2, GOOD + "touch {at}/lesser\n")).rename(small)
    (house.root / "make-2").rename(house.root / "make-small")
    target(house, 1, artifact(house, 0))
    target(house, 2, artifact(house, 2, padding=400_000))
    house.serve()
    known, stranger = Client(house, "known"), Client(house, "stranger")
    (stranger.etc / "artifact_info").write_text("artifact_name=factory\n")
    for each in (known, stranger):
        ending.callback(each.kill)
        each.start()
    accept(house, [known, stranger])
    until("both have said what they run", lambda: all(map(partial(says_what_it_runs, house), (known, stranger))))
    name = rollout(house, 2)
    for each in (known, stranger):
        comes_to(each, name, UpdateStatus.CONFIRMED)
    assert (known.version, stranger.version) == ("2", "2")
    assert ((known.etc / "lesser").exists(), (stranger.etc / "lesser").exists()) == (True, False)
    house.counts_up()


def says_what_it_runs(house: House, client: Client) -> bool:
    said = "SELECT 1 FROM device d JOIN software s ON s.key = d.software_key WHERE s.commit_id <> ''"
    return bool(house.rows(f"{said} AND d.id = '{client.name}'"))


def last_seen(house: House, name: str) -> int:
    return int(house.value(f"SELECT last_seen_at FROM device WHERE id = '{name}'"))


def comes_again(house: House, name: str, after: int) -> bool:
    return last_seen(house, name) > after


def test_the_page_for_operators_works_line_by_line(house: House, ending: ExitStack) -> None:
    page = PAGE.read_text(encoding="utf-8")
    settings = json.loads(_blocks(page, "conf")[0])
    settings["ServerURL"] = settings["ServerURL"].replace("wave.example:8700", f"127.0.0.1:{house.port}")
    device = Client(house, "gw-7f3a", settings=settings)
    ending.callback(device.kill)
    device.start()
    device.until("it asks", lambda: waits(house, device.name))
    house.file("app-2.yaml", _blocks(page, "yaml")[0])
    house.file("install.sh", GOOD.format(at=MODULE, version=2))
    for line in "".join(_blocks(page, "sh")).replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if program == "wave":
            house.ok(*words)
            if words[:2] == ["mender", "accept"]:
                device.until("it has come", lambda: has_come(house, device.name))
        else:
            assert program == "mender-artifact"
            subprocess.run([program, *words], cwd=house.root, check=True, capture_output=True, timeout=60)
    comes_to(device, "app-2", UpdateStatus.CONFIRMED)
    assert device.version == "2"


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
