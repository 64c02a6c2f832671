"""An installation for the tests of the command line: the real application on SQLite, content that exists in name only,
a clock that the test sets, and devices that do as they are told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator import bootstrap
from orchestrator.adapters.files.library import Library
from orchestrator.cli.app import app as tree
from orchestrator.cli.context import Openers, install
from orchestrator.services.application import Application
from orchestrator.services.messages import CheckIn, ReportedEvent
from orchestrator.services.settings import Settings
from tests.services.fake_provider import FakeProvider, commit

ROLLOUT = """
rollout: lmp-42
target: 42
tag: promoted
policy: {policy}
waves:
  - wave: lab
    devices: {{group: lab}}
  - wave: canary
    devices: {{count: 20}}
  - wave: rest
    devices: all
    policy: {{promote: manual}}
"""


@dataclass
class House:
    """``now`` is set by the test. ``tokens`` by device id."""

    root: Path
    now: datetime = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
    tokens: dict[str, str] = field(default_factory=dict)
    provider: FakeProvider = field(init=False)
    database: str | None = None

    def __post_init__(self) -> None:
        folder = self.root / "content"
        folder.mkdir(parents=True)
        self.provider = FakeProvider(folder, [commit(version) for version in (30, 41, 42)])

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let commands open this installation and no other."""
        patch.setattr(bootstrap, "open_provider", lambda settings: self.provider)
        patch.setenv("WAVE_USER", "mika")
        patch.setenv("COLUMNS", "80")
        patch.setenv("WAVE_ROOT", str(self.root))
        for name in ("WAVE_SETTINGS", "WAVE_SERVER", "WAVE_TOKEN", "WAVE_TOKEN_FILE", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        install(
            Openers(
                load_settings=bootstrap.load_settings,
                open_application=self.open,
                open_files=lambda settings: Library(settings.policies),
                open_tuf=lambda settings: bootstrap.open_tuf(settings, clock=lambda: self.now),
                serve=lambda settings: None,
                run_builder=lambda settings: None,
                upgrade_database=bootstrap.upgrade_database,
                initialise=lambda root: [],
                open_elsewhere=bootstrap.open_elsewhere,
                examine=bootstrap.examine,
                settings_file=bootstrap.settings_file,
                back_up=bootstrap.back_up,
                restore=bootstrap.restore,
                copy_database=bootstrap.copy_database,
            )
        )
        bootstrap.open_application(self.settings, create=True).close()

    @property
    def settings(self) -> Settings:
        return Settings(root=self.root, database=self.database)

    def open(self, settings: Settings, *, create: bool = False) -> Application:
        return bootstrap.open_application(settings, create=create, clock=lambda: self.now)

    @contextmanager
    def application(self) -> Iterator[Application]:
        app = self.open(self.settings)
        try:
            yield app
        finally:
            app.close()

    # ------------------------------------------------------------------------------------------ the command line

    def run(self, *words: str, input: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        """One command line, as it would end in a shell. No traceback, ever."""
        ended = CliRunner().invoke(tree, list(words), input=input, env=env)
        assert "Traceback" not in ended.output, ended.output
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        return ended

    def ok(self, *words: str, input: str | None = None) -> str:
        """Standard output of a command that must go well."""
        ended = self.run(*words, input=input)
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    def json(self, *words: str) -> Any:
        """The result out of the envelope."""
        answer = json.loads(self.ok(*words, "--json"))
        assert set(answer) == {"format", "kind", "result"}
        return answer["result"]

    # ------------------------------------------------------------------------------------------ the world

    def content(self) -> None:
        """Versions 30, 41 and 42, all deltas to 42 published."""
        for version in (30, 41, 42):
            self.ok("target", "add", str(version), commit(version), "--hardware-id", "rpi4", "--tag", "main")

    def fleet(self, *, lab: int = 4, field_: int = 300) -> None:
        """Devices on 41 (every third on 30) that follow ``promoted`` and have been seen."""
        with self.application() as app:
            from orchestrator.core.fleet import Device

            devices = [Device(f"lab-{n:02}", "rpi4", "promoted", group="lab") for n in range(lab)]
            devices += [Device(f"gw-{n:04}", "rpi4", "promoted") for n in range(field_)]
            self.tokens.update({k: v for k, v in app.devices.register.enroll(devices, tokens=True) if v is not None})
            for n, device in enumerate(devices):
                self._check_in(app, device.id, 30 if n % 3 == 2 else 41)

    def rollout(self, policy: str = "accelerated", text: str = ROLLOUT) -> Path:
        file = self.root / "rollout.yaml"
        file.write_text(text.format(policy=policy))
        return file

    def tick(self, after: timedelta = timedelta(0)) -> None:
        self.now += after
        self.ok("tick", "--once")

    def build(self) -> None:
        """Publish whatever is queued."""
        self.ok("delta", "build", "30", "42", "--here")
        self.ok("delta", "build", "41", "42", "--here")

    def devices_do(self, what: str, *, most: int = 10_000) -> int:
        """Let each device check in; those with an offer take it: ``confirmed``, ``failed``. How many had one."""
        done = 0
        with self.application() as app:
            for device_id in self.tokens:
                kept = app.queries.device(device_id).device.version
                answer = self._check_in(app, device_id, kept)
                if answer.offer is None or done >= most:
                    continue
                done += 1
                if what == "confirmed":
                    self._check_in(app, device_id, answer.offer.target.version)
                else:
                    event = ReportedEvent(f"{device_id}-1", answer.offer.rollout, answer.offer.target.version, what)
                    app.devices.report(device_id, self.tokens[device_id], [event]).result(10)
        return done

    def check_in(self, device_id: str, said: CheckIn) -> None:
        with self.application() as app:
            answer = app.devices.check_in(device_id, self.tokens[device_id], said)
            if isinstance(answer, Future):
                answer.result(10)

    def _check_in(self, app: Application, device_id: str, version: int | None) -> Any:
        said = CheckIn(commit=None if version is None else commit(version), version=version)
        answer = app.devices.check_in(device_id, self.tokens[device_id], said)
        return answer.result(10) if isinstance(answer, Future) else answer
