"""A believable installation for the console: fleets on two boards, a rollout under way, one that was halted, one that
waits, silent devices and builds, all made by the real services under a clock that the test sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import bootstrap
from orchestrator.core.fleet import Device, Target
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.services.application import Application
from orchestrator.services.console_store import Census
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.messages import CheckIn, Offer, ReportedEvent
from orchestrator.services.settings import Settings
from tests.services.fake_provider import FakeProvider, commit

NOON = datetime(2026, 11, 24, 12, 20, tzinfo=UTC)
"""A Tuesday, in office hours in Berlin."""

HTML = "<script>alert(1)</script><b>bold</b>"
"""A label that is no text to a browser that is not careful."""

TOLERANT = {
    "tolerate": {"failed": "2%", "rolled_back": "1%", "ignored": {"at_most": "15%", "then": "hold"}},
    "segments": ["hardware_id"],
    "bake": {"at_least": "1h", "at_most": "48h"},
    "window": {"days": "mon-thu", "hours": "09:00-16:00", "timezone": "Europe/Berlin", "except": ["2026-12-01"]},
    "deltas": {"within": "6h", "otherwise": "full"},
    "pace": {"in_flight": 500},
}
WAVES = [
    {"wave": "lab", "devices": {"group": "lab"}},
    {"wave": "canary", "devices": {"count": 20, "spread": "hardware_id"}},
    {"wave": "emea", "devices": {"labels": {"region": "emea"}, "share": "50%"}},
    {"wave": "americas", "after": ["canary"], "devices": {"labels": {"region": "amer"}, "share": "50%"}},
    {"wave": "rest", "after": ["emea", "americas"], "devices": "all", "policy": {"promote": "manual"}},
]

EVERYBODY: list[dict[str, Any]] = [{"wave": "all", "devices": "all"}]


@dataclass
class Installation:
    """``now`` is set by the test; ``tokens`` and what each device ``runs`` by its id."""

    root: Path
    now: datetime = NOON
    tokens: dict[str, str] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    hardware: dict[str, str] = field(default_factory=dict)
    app: Application = field(init=False)
    provider: FakeProvider = field(init=False)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def open(self, patch: pytest.MonkeyPatch) -> Installation:
        folder = self.root / "content"
        folder.mkdir(parents=True, exist_ok=True)
        known = [self.commit(version, board) for version in range(39, 45) for board in ("rpi4", "imx8")]
        self.provider = FakeProvider(folder, known)
        patch.setattr(bootstrap, "open_provider", lambda settings: self.provider)
        self.app = bootstrap.open_application(Settings(root=self.root), create=True, clock=lambda: self.now)
        return self

    def close(self) -> None:
        self.app.close()

    @staticmethod
    def commit(version: int, board: str) -> str:
        return commit(version) if board == "rpi4" else commit(version)[:-4] + "beef"

    # ------------------------------------------------------------------------------------- the operator

    def target(self, version: int, *tags: str) -> None:
        with self.app.store.writing() as w:
            for board in ("rpi4", "imx8"):
                made = Target(f"lmp-{board}-{version}", version, self.commit(version, board), (board,), tags, "fake")
                w.add_target(made, now=self.now)

    def enroll(self, devices: Sequence[Device], version: int) -> None:
        for name, token in self.app.devices.register.enroll(devices, tokens=True):
            self.tokens[name] = token or ""
        for device in devices:
            self.hardware[device.id] = device.hardware_id
            self.check_in(device.id, version)

    def apply(
        self, name: str, target: int, tag: str, waves: Sequence[Mapping[str, Any]], policy: Mapping[str, Any]
    ) -> None:
        file = RolloutFile.parse({"rollout": name, "target": target, "tag": tag, "policy": "usual", "waves": waves})
        self.app.rollouts.apply(file, Policy.parse({"policy": "usual", **policy}), by="mika")

    def start(self, name: str) -> None:
        self.app.rollouts.start(name, by="mika", reason="The lab is ready.")
        self.tick()

    def tick(self, after: timedelta = timedelta(0)) -> None:
        self.now += after
        self.app.ticker.tick(self.now)
        self.app.devices.refresh()

    def publish(self, before: int, after: int, size: int, board: str = "rpi4") -> None:
        self.provider.publish(DeltaPair(self.commit(before, board), self.commit(after, board)), size)

    # ------------------------------------------------------------------------------------- devices

    def check_in(self, device: str, version: int | None = None) -> Offer | None:
        if version is not None:
            self.runs[device] = version
        runs, board = self.runs[device], self.hardware[device]
        said = CheckIn(commit=self.commit(runs, board), version=runs, hardware_id=board)
        answer = self.app.devices.check_in(device, self.tokens[device], said)
        return (answer.result(10) if isinstance(answer, Future) else answer).offer

    def take(self, device: str, *events: str, confirms: bool = False) -> bool:
        """Check in; with an offer, report ``events`` and run the Target when it ``confirms``."""
        offer = self.check_in(device)
        if offer is None:
            return False
        said = [
            ReportedEvent(f"e-{next(self.ids)}", offer.rollout, offer.target.version, each, message=MESSAGES.get(each))
            for each in events
        ]
        if said:
            self.app.devices.report(device, self.tokens[device], said).result(10)
        if confirms:
            self.check_in(device, offer.target.version)
        return True

    def all_of(self, begins: str, *, failing: Sequence[int] = (), most: int = 10_000) -> int:
        """Devices with such ids take what they are offered; those at these turns among them fail."""
        turn = 0
        for device in [each for each in self.tokens if each.startswith(begins)]:
            if turn >= most:
                break
            fails = turn + 1 in failing
            events = ("downloading", "installing", "failed") if fails else ()
            turn += self.take(device, *events, confirms=not fails)
        return turn


MESSAGES = {"failed": "update-agent: exit 4: no space left on /var/sota"}


def _nothing(home: Installation) -> None:
    pass


def believable(
    home: Installation,
    *,
    the_day_before: Callable[[Installation], None] = _nothing,
    just_now: Callable[[Installation], None] = _nothing,
) -> None:
    """Two fleets, four rollouts, builds, silent devices and thirty days of censuses; with what else was the day before
    and is now."""
    home.now = NOON - timedelta(hours=4, minutes=18)
    for version in (40, 41, 42):
        home.target(version, "promoted", "beta")
    home.target(43, "beta")
    for before, size in ((41, 18_400_000), (40, 31_700_000)):
        home.publish(before, 42, size)
    home.publish(41, 42, 22_100_000, "imx8")
    home.publish(40, 42, 35_300_000, "imx8")
    home.publish(41, 43, 9_800_000)
    began, home.now = home.now, home.now - timedelta(days=1)
    the_day_before(home)
    home.now = began
    regions = ("emea", "amer", "apac")
    promoted = [
        Device(
            f"gw-{n:04}",
            "imx8" if n % 5 == 0 else "rpi4",
            "promoted",
            labels={"region": regions[n % 3], "site": HTML if n == 7 else f"site-{n % 40}"},
        )
        for n in range(420)
    ]
    lab = [Device(f"lab-{n:02}", "rpi4", "promoted", group="lab") for n in range(6)]
    beta = [Device(f"beta-{n:03}", "rpi4", "beta", group="friends" if n % 2 else None) for n in range(260)]
    home.enroll(lab, 41)
    home.enroll(promoted[:300], 41)
    home.enroll(promoted[300:], 40)
    home.enroll(beta, 41)
    everybody: list[dict[str, Any]] = [
        {"wave": "friends", "devices": {"group": "friends"}},
        {"wave": "all", "devices": "all"},
    ]
    home.apply("beta-43", 43, "beta", everybody, TOLERANT)
    home.start("beta-43")
    home.tick(timedelta(minutes=1))
    home.tick(timedelta(minutes=1))
    home.all_of("beta-", failing=(3, 5, 9, 11, 13), most=24)
    home.tick()

    home.now = NOON - timedelta(hours=4, minutes=10)
    home.apply("lmp-42", 42, "promoted", WAVES, TOLERANT)
    home.start("lmp-42")
    _look(home)
    home.all_of("lab-")
    home.tick(timedelta(minutes=1))
    home.tick(timedelta(hours=1, minutes=5))
    _look(home)
    home.all_of("gw-")
    home.tick(timedelta(minutes=1))
    home.tick(timedelta(hours=1, minutes=5))
    _look(home)
    home.all_of("gw-", failing=(14,))
    _look(home)
    home.all_of("gw-", failing=(31,), most=50)
    home.now = NOON - timedelta(minutes=4)
    _look(home)
    for device in home.tokens:
        if home.check_in(device) and device.endswith(("1", "3", "7")):
            home.take(device, "downloading")
    home.tick()
    home.apply("lmp-44", 42, "beta", EVERYBODY, TOLERANT)
    _builds(home)
    just_now(home)
    _quiet(home)
    censuses(home)
    home.now = NOON


def _look(home: Installation) -> None:
    """Until its waves have been looked at and have opened."""
    for _ in range(4):
        home.tick(timedelta(seconds=20))


def _builds(home: Installation) -> None:
    """One under way, one that waits and one that failed."""
    pairs = [DeltaPair(home.commit(version, board), home.commit(44, board)) for version, board in BUILDS]
    with home.app.store.writing() as w:
        w.queue_builds({pair: 1000.0 - n for n, pair in enumerate(pairs)}, now=home.now)
        failing = w.lease_build("builder-1", now=home.now, until=home.now + timedelta(minutes=5))
        assert failing is not None
        w.finish_build(failing.key, failing.fence, None, "ostree: the disk is full", now=home.now)
        job = w.lease_build("builder-1", now=home.now, until=home.now + timedelta(minutes=5))
        assert job is not None
        until = home.now + timedelta(minutes=5)
        w.renew_build(job.key, job.fence, until=until, stage="comparing", done=0.43, log="")


BUILDS = ((42, "rpi4"), (41, "rpi4"), (41, "imx8"))


def _quiet(home: Installation) -> None:
    """Devices that were seen long ago."""
    with home.app.store.writing() as w:
        known = w.devices_called([f"gw-{n:04}" for n in range(395, 412)])
        seen = {row.key: home.now - timedelta(days=2 + 3 * n, hours=n) for n, row in enumerate(known)}
        w.touch({key: (at, timedelta(minutes=5)) for key, at in seen.items()})
    for key, at in seen.items():
        # What is noted but not written yet must not come after it.
        home.app.devices.writer.touch(key, at, timedelta(minutes=5))
    home.app.devices.refresh()


def censuses(home: Installation) -> None:
    """Thirty days in which version 41 came and 42 begins."""
    with home.app.store.reading() as r:
        now = r.count_fleet(home.now)
    with home.app.store.writing() as w:
        for day in range(30, 0, -1):
            done = max(0.0, min(1.0, (26 - day) / 18))
            w.keep_census(_as_it_was(now, home.now - timedelta(days=day), done), every=timedelta(minutes=15))
        w.keep_census(now, every=timedelta(minutes=15))


def _as_it_was(now: Census, at: datetime, done: float) -> Census:
    whole = sum(one.devices for one in now.running)
    first = now.running[0]
    newer = round(whole * done)
    older = replace_version(first, 40, round((whole - newer) * 0.85))
    oldest = replace_version(first, 39, whole - newer - older.devices)
    return replace(now, at=at, running=(replace_version(first, 41, newer), older, oldest))


def replace_version(one: Any, version: int, devices: int) -> Any:
    return one._replace(version=version, devices=devices)
