"""Two months of a house that releases: lines of devices, each with one rollout after another, in all states that there
are, made by the real services. The journals, slices, evidence, deltas and builds are what came of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator.core.fleet import Device
from orchestrator.core.states import RolloutStatus
from tests.web.installation import NOON, TOLERANT, Installation

FIRST = 50
"""The version that all lines ran at the beginning; a release more each week."""

BOARDS = ("rpi4", "imx8")
WAVES: list[dict[str, Any]] = [
    {"wave": "canary", "devices": {"count": 6, "spread": "hardware_id"}},
    {"wave": "emea", "devices": {"labels": {"region": "emea"}}},
    {"wave": "rest", "after": ["emea"], "devices": "all"},
]
BY_HAND: list[dict[str, Any]] = [*WAVES[:2], {**WAVES[2], "policy": {"promote": "manual"}}]
POLICY: dict[str, Any] = {
    **{key: value for key, value in TOLERANT.items() if key != "pace"},
    "deltas": {"cover": "50%", "within": "6h", "otherwise": "full"},
}
ENDS = ("completed", "running", "baking", "held", "halted", "paused", "by hand")
"""What becomes of the newest rollout of a line, one line after another."""


def releases(home: Installation, rollouts: int, *, lines: int = 14, devices: int = 40) -> None:
    """So many rollouts; afterwards it is what it was before the last hours of the house. ``devices`` of each line."""
    weeks = -(-rollouts // lines)
    names = [f"line-{number:02}" for number in range(lines)]
    home.now = NOON - timedelta(weeks=weeks + 1, hours=3)
    home.provider.known |= {home.commit(FIRST + week, board) for week in range(weeks + 1) for board in BOARDS}
    home.target(FIRST, *names)
    for name in names:
        home.enroll([_device(name, number) for number in range(devices)], FIRST)
    left = rollouts
    for week in range(1, weeks + 1):
        home.now = NOON - timedelta(weeks=weeks - week, hours=8 if week == weeks else 3)
        _week(home, week, names[:left], last=left <= lines)
        left -= lines


def _device(line: str, number: int) -> Device:
    labels = {"region": ("emea", "amer", "apac")[number % 3], "site": f"{line}-{number % 8}"}
    return Device(f"{line}-{number:03}", BOARDS[number % 4 == 0], line, labels=labels)


def _week(home: Installation, week: int, names: list[str], *, last: bool) -> None:
    """One release to these lines."""
    version = FIRST + week
    home.target(version, *names)
    for board in BOARDS:
        for before in range(max(FIRST, version - 3), version):
            home.publish(before, version, 4_000_000 * (version - before) + 900_000 * len(board), board)
    ends = {name: ENDS[place % len(ENDS)] if last else _before(week, place) for place, name in enumerate(names)}
    for name in names:
        home.apply(f"{name}-{version}", version, name, BY_HAND if ends[name] == "by hand" else WAVES, POLICY)
        home.start(f"{name}-{version}")
    for wave in range(len(WAVES)):
        for _ in range(4):
            home.tick(timedelta(seconds=20))
        for name in names:
            _go_on(home, f"{name}-", ends[name], wave)
        home.tick(timedelta(minutes=1))
        if not (last and wave == len(WAVES) - 1):
            home.tick(timedelta(hours=1, minutes=5))
            home.tick(timedelta(seconds=20))
    for name in names:
        _end(home, f"{name}-{version}", ends[name])


def _before(week: int, place: int) -> str:
    return "cancelled" if (week + place) % 9 == 0 else "completed"


def _go_on(home: Installation, begins: str, end: str, wave: int) -> None:
    """The devices of a line take what they are offered, or what leads to such an end."""
    match end, wave:
        case (("halted" | "cancelled"), 1):
            home.all_of(begins, failing=range(1, 20))
        case "held", 0:
            home.all_of(begins, failing=(2,))
        case "running", 2:
            home.all_of(begins, most=5)
            for device in [each for each in home.tokens if each.startswith(begins)][::2]:
                home.take(device, "downloading")
        case _:
            home.all_of(begins)


def _end(home: Installation, rollout: str, end: str) -> None:
    with home.app.store.reading() as r:
        row = r.rollout(rollout)
    if end == "completed" and row is not None and row.state.status is RolloutStatus.RUNNING:
        home.app.rollouts.complete(rollout, by="mika", reason="Who has not come by now comes when it comes.")
    if end == "cancelled":
        home.app.rollouts.cancel(rollout, by="mika", reason="It will not boot on half of the boards.")
    if end == "paused":
        home.app.rollouts.pause(rollout, by="mika", reason="The network of the plant is being worked on.")
