"""``wave --server URL``: another machine's orchestrator, driven with the same commands and the same output."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import Result

from orchestrator.adapters.remote import client
from orchestrator.adapters.remote.client import Client
from orchestrator.errors import Unauthorized
from orchestrator.services.operations import BY_KEY, Operation
from tests.cli.afar import AROUND, ASKS_NOBODY, FROM_AFAR, ONLY_THERE
from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House
from tests.cli.test_help import COMMANDS
from tests.loopback import answering
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
    fleet.ok("user", "add", "ann", "--role", "admin", "--no-password")
    fleet.ok("token", "add", "ann", "--role", "viewer")
    fleet.ok("ca", "revoke", "gw-0007", "--yes")
    fleet.ok("enrolment", "add", "--tag", "promoted")
    fleet.ok("tuf", "init")
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    with served(fleet) as url:
        yield url


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of operations, as they are asked for."""
    found: list[str] = []
    ask = Client._asked

    def noting(self: Client, operation: Operation, *given: Any) -> Any:
        found.append(operation.key)
        return ask(self, operation, *given)

    monkeypatch.setattr(Client, "_asked", noting)
    return found


def asks_what_it_may(words: list[str], asked: list[str]) -> bool:
    """Whether the command asked for what ``afar`` says, and for nothing else."""
    name = words[0] if words[0] in FROM_AFAR or words[0] in ASKS_NOBODY else " ".join(words[:2])
    if name == "journal lmp-42":
        name = "journal show"
    may = AROUND | set(FROM_AFAR.get(name, "").split())
    return set(asked) <= (frozenset() if name in ASKS_NOBODY else may)


def test_every_command_works_from_afar_or_says_why_not() -> None:
    assert sorted([*FROM_AFAR, *ONLY_THERE, *ASKS_NOBODY]) == sorted(COMMANDS)
    tried = {" ".join(shlex.split(line)[:2]) for line in [*LOOKS, *STEPS, *BESIDES, *NOT_FROM_AFAR]}
    tried |= {each.split()[0] for each in tried} | {"journal show"}
    assert set(COMMANDS) - tried == set()
    used = {key for keys in FROM_AFAR.values() for key in keys.split()}
    assert used <= set(BY_KEY)
    assert set(BY_KEY) - used == {"now"}


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
    "gate ask standard",
    "gate ask --rollout lmp-42",
    "gate ask",
    "policy show standard",
    "policy show nonsense",
    "enrolment list --all",
    "enrolment list --json",
    "mender list",
    "mender list --status pending",
    "mender list --status accepted --json",
    "top lmp-42",
    "top --limit 2 --json",
    "top lmp-43",
    "user list",
    "user list --json",
    "user show ann",
    "user show ANN --json",
    "user show nobody",
    "log",
    "log --limit 3 --json",
    "user log",
    "user log --limit 1 --json",
    "token list",
    "token list --all --json",
    "notify list",
    "notify list --dead --rollout lmp-42 --json",
    "notify list --rollout lmp-43",
    "notify destinations",
    "notify destinations --json",
    "notify test nobody",
    "ca list",
    "ca list --json",
    "tuf show",
    "tuf show --json",
    "artifact verify",
    "artifact verify nothing",
    "simulate accelerated --fleet 300 --seeds 2 --jobs 1",
    "simulate slow-roll --scenario broken --fleet 300 --seeds 2 --jobs 1 --json",
    "simulate --compare standard nonsense --fleet 300 --seeds 2",
    "simulate standard --rollout {file} --fleet 300 --seeds 2 --jobs 1 --json",
    "policy list --json",
    "policy schema rollout",
    "help place",
    "version --json",
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


def test_the_same_command_says_the_same_from_afar(fleet: House, there: str, asked: list[str]) -> None:
    differ = []
    for line in LOOKS:
        words = shlex.split(line.format(file=fleet.root / "rollout.yaml"))
        asked.clear()
        here, far = fleet.run(*words), fleet.run(*words, "--server", there)
        if not asks_what_it_may(words, asked):
            differ.append(f"{line} asked for {asked}")
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
    "user add ann --role releaser,approver --no-password",
    "user add ANN --role viewer --no-password",
    "user add x --role boss --no-password",
    "user roles ann --role viewer --json",
    "user roles nobody --role viewer",
    "token add ann --role viewer --until 30d",
    "token add ann --role viewer --json",
    "token add ann --role admin",
    "token add nobody",
    "token add ann --until never",
    "token revoke tok-00000000 --yes",
    "token list --json",
    "user disable ann --yes",
    "user enable ann --json",
    "user show ann --json",
    "user log --json",
    "user log --limit 2",
    "ca revoke gw-0001 --yes",
    "ca revoke --serial xyz --yes",
    "ca revoke --serial 6f1c09ab44 --yes --json",
    "ca list --json",
    "ca revoke --undo gw-0001",
    "ca revoke --undo gw-0001",
    "notify retry",
    "notify retry 17",
    "notify send --json",
    "mender reject --waiting --yes",
    "mender reject --waiting --asked-within 2h --dry-run",
    "mender decommission nothing --yes",
    "artifact remove nothing --yes",
    "target import {file}",
    "list",
]

BESIDES = [
    "artifact add",
    "target add",
    "device replace",
    "enrolment add",
    "user password",
    "ca issue",
    "mender preauthorize",
    "version",
]
"""What is tried by itself, here or in ``test_uploads`` and ``test_mender``."""


def test_the_same_orders_do_the_same_from_afar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
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
            asked.clear()
            one, other = here.run(*words), here.run(*words, "--server", url)
            if not asks_what_it_may(words, asked):
                differ.append(f"{line} asked for {asked}")
            if _told(one) != _told(other):
                differ.append(f"{line}\nhere: {one.output}\nfar: {other.output}")
    assert not differ, "\n\n".join(differ)[:3000]


def _told(ended: Result) -> tuple[str, str, int]:
    """What it said, but for what is another each time: tokens, hashes and salts."""
    stdout = re.sub(r'"(token|hash|before|salt|record|scope)": "[^"]+"', r'"\1": "…"', ended.stdout)
    unnamed = re.sub(r"tok-[0-9a-f]{8}( wave_\S+)?", "tok-…", f"{stdout}\n{ended.stderr}")
    return unnamed, "", ended.exit_code


NOT_FROM_AFAR = [
    "init",
    "serve",
    "tick --once",
    "builder",
    "doctor",
    "backup /tmp/wave.tar.gz",
    "restore /tmp/wave.tar.gz --yes",
    "db check",
    "db upgrade",
    "db copy new.yaml",
    "ca init",
    "ca server updates.example.com --out here",
    "tuf init",
    "tuf rotate --yes",
    "delta build 41 42 --here",
    "target static-deltas 42 --here",
]


@pytest.mark.parametrize("line", NOT_FROM_AFAR)
def test_what_works_only_there_says_so(house: House, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    ended = house.run(*line.split(), "--server", "http://127.0.0.1:9")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == (
        "wave: This works on the machine of the installation itself, and --server or WAVE_SERVER names another. "
        "Run it there, without them.\n"
    )


def test_a_device_is_certified_from_afar_and_its_key_stays_here(
    there: str, fleet: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.ok("ca", "init")
    travelled: list[bytes] = []
    send = Client.send

    def noting(self: Client, method: str, path: str, **more: Any) -> Any:
        answer = send(self, method, path, **more)
        travelled.extend([more.get("content", b""), answer.content])
        return answer

    monkeypatch.setattr(Client, "send", noting)
    out = tmp_path / "out"
    ended = fleet.run("ca", "issue", "gw-0001", "--days", "30", "--out", str(out), "--server", there)
    assert ended.exit_code == 0, ended.output
    made = x509.load_pem_x509_certificate((out / "gw-0001.pem").read_bytes())
    key = load_pem_private_key((out / "gw-0001.key").read_bytes(), None)
    assert made.public_key() == key.public_key()
    authority = x509.load_pem_x509_certificate((out / "ca.pem").read_bytes())
    made.verify_directly_issued_by(authority)
    assert (out / "gw-0001.key").stat().st_mode & 0o077 == 0
    assert not [each for each in travelled if b"PRIVATE" in each]
    assert fleet.run("ca", "issue", "gw-0002", "--csr", str(out / "ca.pem"), "--server", there).exit_code == 2


def test_a_password_is_set_from_afar_and_signs_in(there: str, fleet: House) -> None:
    words = ("user", "password", "ann", "--server", there)
    assert fleet.run(*words, input="short\n").exit_code == 2
    ended = fleet.run(*words, input="correct horse battery\n")
    assert ended.stdout == "ann has a new password, and is signed out everywhere.\n"
    added = ("user", "add", "ben", "--role", "viewer", "--server", there)
    assert fleet.run(*added, input="another long password\n").exit_code == 0
    with fleet.application() as app:
        app.door.sign_in("ann", "correct horse battery", address="")
        app.door.sign_in("ben", "another long password", address="")
        with pytest.raises(Unauthorized):
            app.door.sign_in("ann", "short", address="")


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
            self.send_header("location", f"{url.replace('127.0.0.1', 'localhost')}/elsewhere")
            self.end_headers()

    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    with answering(Other) as url:
        ended = house.run("list", "--server", url)
    assert ended.exit_code == 6
    assert "not as an orchestrator does" in ended.stderr
    assert len(asked) == 1


def test_a_list_of_several_pages_is_the_same_from_afar(
    fleet: House, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """One version may be made for any number of boards."""
    for number in range(7):
        fleet.ok("target", "add", "7", commit(42), "--hardware-id", f"board-{number}")
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    monkeypatch.setattr(client, "PAGE", 3)
    with served(fleet) as url:
        for more in ((), ("--json",)):
            one = fleet.ok("target", "show", "7", *more)
            asked.clear()
            assert fleet.ok("target", "show", "7", *more, "--server", url) == one
            assert asked == ["targets.show"] * 3
            assert one.count("board-6-7") == 1
