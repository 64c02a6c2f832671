"""``wave --server URL``: another machine's orchestrator, driven with the same commands and the same output."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House
from tests.services.fake_provider import commit


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


STEPS = [
    "target add 50 {commit} --hardware-id rpi5 --tag next",
    "target add 50 {commit} --hardware-id rpi5 --tag next",
    "target tag --tags next,main 50 --by-version --json",
    "target tag --tags x nobody",
    "device enroll new-1 --hardware-id rpi4 --tag promoted --label region=emea --json",
    "device enroll bad!id --hardware-id rpi4 --tag promoted",
    "device label site=a new-1 lab-00",
    "device label --remove site new-1",
    "device group shelf new-1",
    "device group empty",
    "device hold new-1 --reason bench",
    "device show new-1",
    "device release new-1",
    "device retire new-1 --yes --json",
    "device retire nobody --yes",
    "device token new-1 --revoke",
    "apply {file}",
    "apply {file} --json",
    "start lmp-42 --dry-run",
    "start lmp-42 --reason go",
    "pause lmp-42 --reason 'Grüße & <b>Küsse</b>'",
    "status lmp-42",
    "resume lmp-42",
    "promote lmp-42 rest --json",
    "exclude lmp-42 hardware_id=rpi4 --reason dark --yes",
    "include lmp-42 hardware_id=rpi4 --reason light --yes",
    "halt lmp-42 --yes --reason 'black screens'",
    "resume lmp-42 --reason better",
    "complete lmp-42 lab --yes",
    "skip lmp-42 canary",
    "complete lmp-42 --yes",
    "freeze --reason certificate",
    "unfreeze --json",
    "unfreeze",
    "cancel lmp-42 --yes",
    "delta build 30 42 --no-wait",
    "delta drop 41 42",
    "delta verify 30 42 --json",
    "enrolment revoke nothing --yes",
    "mender accept nothing --hardware-id a --tag b",
    "policy check {file}",
    "journal lmp-42 --json",
    "list",
]


def test_the_same_orders_do_the_same_from_afar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installations that are alike: one is driven where it is, the other from afar."""
    far, here = House(tmp_path / "far"), House(tmp_path / "here")
    for house in (far, here):
        house.install(monkeypatch)
        house.content()
        house.fleet(field_=30)
    file = here.rollout()
    differ = []
    far.install(monkeypatch)
    with served(far) as url:
        here.install(monkeypatch)
        monkeypatch.setenv("WAVE_TOKEN", MIKA)
        for line in STEPS:
            words = shlex.split(line.format(file=file, commit=commit(42)))
            one, other = here.run(*words), here.run(*words, "--server", url)
            if _told(one) != _told(other):
                differ.append(f"{line}\nhere: {one.output}\nfar: {other.output}")
    assert not differ, "\n\n".join(differ)[:3000]


def _told(ended: Result) -> tuple[str, str, int]:
    """What it said, but for what is another each time: tokens, hashes and salts."""
    stdout = re.sub(r'"(token|hash|before|salt|record|scope)": "[^"]+"', r'"\1": "…"', ended.stdout)
    return stdout, ended.stderr, ended.exit_code


NOT_FROM_AFAR = ["init", "serve", "tick --once", "builder", "db check", "db upgrade", "ca list", "tuf show", "doctor"]


@pytest.mark.parametrize("line", NOT_FROM_AFAR)
def test_what_works_only_there_says_so(house: House, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    ended = house.run(*line.split(), "--server", "http://127.0.0.1:9")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "This works on the machine of the installation itself" in ended.stderr


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("http://example.com", "in the clear"),
        ("https://ann:secret@example.com", "ends up in logs"),
        ("ftp://127.0.0.1", "no address of a server"),
        ("127.0.0.1:8701", "no address of a server"),
        ("http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_an_address_that_cannot_be_is_refused(
    house: House, server: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    ended = house.run("list", "--server", server)
    assert ended.exit_code in (2, 6)
    assert said in ended.stderr
    assert MIKA not in ended.output


def test_the_token_comes_from_a_file_that_only_its_owner_reads(there: str, fleet: House, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{MIKA}\n")
    file.chmod(0o644)
    far = ("list", "--server", there)
    assert "others may read it" in fleet.run(*far, "--token-file", str(file)).stderr
    file.chmod(0o600)
    assert fleet.run(*far, "--token-file", str(file)).exit_code == 0
    assert fleet.run("list", env={"WAVE_SERVER": there, "WAVE_TOKEN": "", "WAVE_TOKEN_FILE": str(file)}).exit_code == 0
    file.write_text("wrong\n")
    ended = fleet.run(*far, "--token-file", str(file))
    assert ended.exit_code == 4
    assert "The token is not known here." in ended.stderr
    assert "needs a token" in fleet.run(*far, env={"WAVE_TOKEN": ""}).stderr
    assert "--by" in fleet.run("pause", "lmp-42", "--by", "ann", "--server", there).stderr


def test_a_server_that_is_something_else_is_told_apart(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers with a redirect to another host, which would get the token."""
    asked: list[str] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("location", f"http://localhost:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *said: object) -> None:
            pass

    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        ended = house.run("list", "--server", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join(10)
    assert ended.exit_code == 6
    assert "not as an orchestrator does" in ended.stderr
    assert len(asked) == 1
