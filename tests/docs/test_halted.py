"""What stands in the guide for a bad release at night is typed as it stands, each block on a rollout of its own that is
in the state it speaks of, and ends as the page says."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.fleet import Device
from orchestrator.services.messages import CheckIn, ReportedEvent
from tests.cli.house import House
from tests.docs.generate import ROOT
from tests.services.fake_provider import commit

PAGE = (ROOT / "docs/halted.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HOUR = timedelta(hours=1)


def board(device: str) -> str:
    return "rpi4" if int(device[-1]) % 2 else "imx8"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Four devices in the lab and 300 in the field, on two boards, all on 41; a rollout of 42 that has begun."""
    with pytest.MonkeyPatch.context() as patch:
        house = House(tmp_path_factory.mktemp("template") / "wave")
        house.install(patch)
        for version in (41, 42):
            both = ("--hardware-id", "rpi4", "--hardware-id", "imx8")
            house.ok("target", "add", str(version), commit(version), *both, "--tag", "main")
        names = [f"lab-{n}" for n in range(4)] + [f"gw-{n:04}" for n in range(300)]
        made = [Device(name, board(name), "promoted", group="lab" if "lab" in name else None) for name in names]
        with house.application() as app:
            tokens = {name: token or "" for name, token in app.devices.register.enroll(made, tokens=True)}
            for name, token in tokens.items():
                answer = app.devices.check_in(name, token, CheckIn(commit=commit(41), version=41))
                if isinstance(answer, Future):
                    answer.result(10)
        house.tokens.update(tokens)
        house.ok("apply", str(house.rollout()), "--start")
        house.tick()
        yield house


@pytest.fixture
def fleet(template: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """One of one's own."""
    house = House(tmp_path / "wave", now=template.now, tokens=dict(template.tokens))
    shutil.copytree(template.root, house.root, dirs_exist_ok=True)
    house.install(monkeypatch)
    return house


def to_the_canary(house: House) -> None:
    house.ok("delta", "build", "41", "42", "--here")
    house.tick()
    assert house.devices_do("confirmed") == 4
    house.tick(timedelta(minutes=5))
    house.tick(3 * HOUR)


def halted(house: House, only: str = "") -> str:
    """Those of the canary that have an offer fail, on one board if one is named, and the others confirm; one that
    failed."""
    to_the_canary(house)
    failed = ""
    for _ in range(6):
        with house.application() as app:
            for name, token in house.tokens.items():
                answer = house._check_in(app, name, app.queries.device(name).device.version)
                if answer.offer is None:
                    continue
                if only in board(name):
                    failed = name
                    event = ReportedEvent(f"{name}-1", answer.offer.rollout, answer.offer.target.version, "failed")
                    app.devices.report(name, token, [event]).result(10)
                else:
                    house._check_in(app, name, answer.offer.target.version)
        house.tick(timedelta(minutes=20))
        if house.json("status", "lmp-42")["status"] == "halted":
            return failed
    raise AssertionError(house.ok("explain", "lmp-42"))


def halted_by_one_board(house: House) -> str:
    return halted(house, "rpi4")


def canary_held(house: House) -> str:
    """Nothing that the canary could find out came in the time that the policy gives."""
    to_the_canary(house)
    for _ in range(30):
        house.tick(2 * HOUR)
    assert "held" in house.ok("status", "lmp-42")
    return ""


def running(house: House) -> str:
    return ""


@dataclass(frozen=True)
class Story:
    """In which state a block is typed, how the rollout stands after it, and what is said."""

    before: Callable[[House], str]
    after: str
    says: str = ""


STORIES = {
    "wave list": Story(halted, "halted", "lmp-42"),
    "wave journal": Story(halted, "halted", "would have"),
    "wave cancel": Story(halted, "cancelled"),
    "wave resume lmp-42 --accept": Story(halted, "running"),
    "wave exclude": Story(halted_by_one_board, "running", "hardware_id=rpi4"),
    "wave device hold": Story(halted, "halted"),
    "wave resume lmp-42 --wave": Story(canary_held, "running"),
    "wave freeze": Story(running, "running", "frozen"),
}


def story_of(block: str) -> Story:
    (found,) = [story for first, story in STORIES.items() if block.startswith(first)]
    return found


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(block.split()[1:4]))
def test_what_it_says_to_type_does_what_it_says(fleet: House, block: str) -> None:
    story = story_of(block)
    failed = story.before(fleet)
    said = ""
    for line in block.splitlines():
        program, *words = shlex.split(line.replace("gw-7f3a", failed), comments=True)
        assert program == "wave"
        said += fleet.ok(*words)
    assert story.says in " ".join(said.split())
    fleet.tick()
    assert fleet.json("status", "lmp-42")["status"] == story.after


def test_every_story_stands_on_the_page() -> None:
    assert len(BLOCKS) == len(STORIES)
    assert {id(story_of(block)) for block in BLOCKS} == {id(story) for story in STORIES.values()}
