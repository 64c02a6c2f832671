"""The real server with TLS, real commands beside it, curl as the device: from enrolling to the night it is revoked."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.loopback import free_port
from tests.waiting import Logged, until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree]

SOURCE = Path(__file__).parents[2]
CHECK_IN = "/v1/devices/gw-1/check-in"
AT_MOST = 3.0
"""Seconds that a revocation may take here: one, and what a busy machine adds."""


def wave(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "orchestrator", "--root", str(root), *words]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


def ok(root: Path, *words: str) -> str:
    ended = wave(root, *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An installation with an authority and a certificate of its own, not running."""
    made = tmp_path / "wave"
    ok(made, "init")
    ok(made, "ca", "init")
    ok(made, "ca", "server", "127.0.0.1", "--out", str(made / "tls"))
    port = free_port()
    settings = ("tls_certificate: tls/server.pem", "tls_key: tls/server.key", "tls_client_ca: ca/ca.pem")
    page = "\n".join(["root: .", f"port: {port}", "builders: 0", "console_port: off", *settings, ""])
    (made / "wave.yaml").write_text(page, encoding="utf-8")
    return made


def port_of(root: Path) -> int:
    page = (root / "wave.yaml").read_text(encoding="utf-8")
    return int(page.partition("port: ")[2].split()[0])


@contextmanager
def served(root: Path, log: Path) -> Iterator[None]:
    with log.open("w", encoding="utf-8") as stream:
        asked = [sys.executable, "-m", "orchestrator", "--root", str(root), "serve"]
        running = subprocess.Popen(asked, stderr=stream, stdout=stream, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        until(
            "it serves devices",
            lambda: "serving devices on https://" in log.read_text(encoding="utf-8"),
            within=30,
            alive=Logged(running, log),
        )
        yield
    finally:
        running.terminate()
        assert running.wait(30) == 0


def test_from_enrolling_to_the_night_it_is_revoked(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    name, enrolment = ok(root, "enrolment", "add", "--tag", "main", "--hardware-id", "rpi4").split()
    with served(root, log), ExitStack() as ending:
        url = f"https://127.0.0.1:{port_of(root)}"
        curl = ["curl", "-s", "-m", "20", "--cacert", str(root / "ca" / "ca.pem"), "-X", "POST"]
        asked = [*curl, "-H", f"Authorization: Bearer {enrolment}", "-d", '{"device": "gw-1"}', f"{url}/v1/enroll"]
        told = json.loads(subprocess.run(asked, capture_output=True, check=True, timeout=30).stdout)
        token = told["token"]
        again = json.loads(subprocess.run(asked, capture_output=True, check=True, timeout=30).stdout)
        assert again["error"]["kind"] == "unauthorized", "it was for one device"
        ok(root, "ca", "issue", "gw-1", "--out", str(tmp_path / "gw-1"))
        context = ssl.create_default_context(cafile=root / "ca" / "ca.pem")
        context.load_cert_chain(tmp_path / "gw-1" / "gw-1.pem", tmp_path / "gw-1" / "gw-1.key")
        worn = ending.enter_context(closing(line_to(root, context)))
        bare = ending.enter_context(closing(line_to(root, ssl.create_default_context(cafile=root / "ca" / "ca.pem"))))

        def by_certificate() -> int:
            return status(worn, {})

        def by_token() -> int:
            return status(bare, {"authorization": f"Bearer {token}"})

        assert (by_certificate(), by_token()) == (200, 200)
        ok(root, "ca", "revoke", "gw-1", "--yes")
        is_shut_out(by_certificate)
        assert by_token() == 200
        ok(root, "device", "token", "gw-1", "--revoke")
        is_shut_out(by_token)
    said = log.read_text(encoding="utf-8")
    assert not [secret for secret in (token, enrolment) if secret in said], "no token in the log"
    assert name in ok(root, "enrolment", "list", "--all")


def is_shut_out(asks: Callable[[], int]) -> None:
    """Within the time that revoking may take; it asks no more often than a device may."""
    until("it is shut out", lambda: asks() == 401, within=AT_MOST, every=0.1)


def line_to(root: Path, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", port_of(root), context=context, timeout=10)


def status(line: http.client.HTTPSConnection, headers: dict[str, str]) -> int:
    line.request("POST", CHECK_IN, b"{}", headers)
    answer = line.getresponse()
    answer.read()
    return answer.status


def test_a_key_that_others_may_read_is_not_served_with(root: Path) -> None:
    (root / "tls" / "server.key").chmod(0o644)
    ended = wave(root, "serve")
    assert ended.returncode == 2
    assert "others may read it" in ended.stderr and "chmod 600" in ended.stderr


ROLLOUT = "rollout: two\ntarget: 2\ntag: main\npolicy: demo\nwaves:\n  - {wave: all, devices: all}\n"


def test_the_reference_device_shows_a_certificate_and_takes_a_target_that_is_a_file(root: Path, tmp_path: Path) -> None:
    """On a machine without ``ostree``."""
    with (root / "wave.yaml").open("a", encoding="utf-8") as settings:
        settings.write("check_in_every: 1s\ntick_at_most: 1s\n")
    for version in (1, 2):
        file = tmp_path / f"os-{version}.img"
        file.write_bytes(b"%d" % version * 300_000)
        ok(root, "artifact", "add", str(file), "--version", f"{version}.0", "--hardware-id", "rpi4")
        ok(root, "target", "add", str(version), "--artifact", str(file), "--tag", "main")
    (tmp_path / "fleet.yaml").write_text("devices:\n  - {id: gw-1, hardware_id: rpi4, tag: main}\n", encoding="utf-8")
    ok(root, "device", "enroll", "--from", str(tmp_path / "fleet.yaml"))
    ok(root, "ca", "issue", "gw-1", "--out", str(tmp_path / "gw-1"))
    state = tmp_path / "device"
    asked = [sys.executable, str(SOURCE / "examples" / "device.py"), "--once"]
    asked += ["--id", "gw-1", "--root", str(state), "--ca", str(root / "ca" / "ca.pem"), "--tag", "main"]
    asked += ["--certificate", *(str(tmp_path / "gw-1" / f"gw-1.{kind}") for kind in ("pem", "key"))]
    asked += ["--server", f"https://127.0.0.1:{port_of(root)}", "--health", "/bin/true"]

    def steps(until: Callable[[], bool]) -> None:
        """One, and more until that is so."""
        gives_up_at = time.monotonic() + 90
        nowhere = {"PATH": str(tmp_path / "none"), "PYTHONPATH": str(SOURCE)}
        while True:
            ended = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False, env=nowhere)
            assert ended.returncode == 0 and time.monotonic() < gives_up_at, ended.stdout + ok(root, "explain", "gw-1")
            if until():
                return

    def status() -> str | None:
        updates = json.loads(ok(root, "explain", "gw-1", "--json"))["result"]["updates"]
        return str(updates[0]["status"]) if updates else None

    with served(root, tmp_path / "serve.log"):
        steps(lambda: True)
        (tmp_path / "rollout.yaml").write_text(ROLLOUT, encoding="utf-8")
        ok(root, "apply", str(tmp_path / "rollout.yaml"), "--start")
        steps(lambda: status() == "confirmed")
    assert (state / "current" / "os-2.img").read_bytes() == b"2" * 300_000
    assert json.loads((state / "state.json").read_bytes())["version"] == 2
