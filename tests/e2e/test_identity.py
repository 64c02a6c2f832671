"""The real server with TLS, real commands beside it, curl as the device: from enrolling to the night it is revoked."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.ostree]

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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
        until = time.monotonic() + 30
        while "serving devices on https://" not in log.read_text(encoding="utf-8"):
            assert running.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.1)
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
    ends = time.monotonic() + AT_MOST
    while asks() != 401:
        assert time.monotonic() < ends
        time.sleep(0.1)


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
