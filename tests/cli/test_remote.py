"""``wave --server URL``: another machine's orchestrator, driven with the same commands and the same output."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House


@pytest.fixture
def there(fleet: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an installation with a rollout that runs and has something to show."""
    fleet.build()
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    fleet.devices_do("confirmed", most=2)
    fleet.devices_do("failed", most=1)
    fleet.tick()
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    with served(fleet) as url:
        yield url


LOOKS = [
    "list",
    "list --json",
    "list --status held",
    "list --status nonsense",
    "status",
    "status lmp-42 --json",
    "status lmp-43",
    "status --exit-code",
    "explain lmp-42",
    "explain lab-00",
    "explain lab-00 --json",
    "explain nobody",
    "journal lmp-42",
    "journal lmp-42 --facts --after 1",
    "journal lmp-42 --json",
    "journal verify",
    "replay lmp-42",
    "replay lmp-42 --policy slow-roll --json",
    "device list",
    "device list --json --limit 7",
    "device list --tag promoted --group lab --label a=b",
    "device list --after gw-0003 --limit 2",
    "device show lab-00",
    "device show lab-00 --json",
    "target list",
    "target list --json --tag main",
    "target show 42",
    "target show nobody",
    "delta list",
    "delta list --json",
    "delta show 41 42",
    "delta show 41 42 --json",
    "delta show 7 8",
    "artifact list",
    "artifact show nothing",
    "policy list",
    "policy show standard",
    "policy show nonsense",
    "enrolment list --all",
    "mender list",
    "plan {file}",
    "plan {file} --json",
    "apply {file} --dry-run",
    "promote lmp-42 rest --dry-run",
    "promote lmp-42 nowhere",
    "approve lmp-42 --dry-run",
    "pause lmp-42 --dry-run --json",
    "halt lmp-42 --dry-run --reason 'ünder test'",
    "exclude lmp-42 hardware_id=rpi4 --dry-run --reason x",
    "retry lmp-42 --dry-run",
    "start lmp-42",
    "target static-deltas --dry-run --by-tag promoted 42",
    "device enroll new-1 --hardware-id rpi4 --tag promoted --dry-run",
]


def test_the_same_command_says_the_same_from_afar(fleet: House, there: str) -> None:
    differ = []
    for line in LOOKS:
        words = shlex.split(line.format(file=fleet.root / "rollout.yaml"))
        here, far = fleet.run(*words), fleet.run(*words, "--server", there)
        if (far.stdout, far.stderr, far.exit_code) != (here.stdout, here.stderr, here.exit_code):
            differ.append(f"{line}\nhere: {here.output}\nfar: {far.output}")
    assert not differ, "\n\n".join(differ)[:2000]
