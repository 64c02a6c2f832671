"""Serving behind a proxy: a real nginx with the configuration of the guide, as it stands there but for ports and files,
in front of a real server with the guide's settings."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from orchestrator.adapters.authority import FileAuthority
from tests.e2e.faults import ROOT, House
from tests.loopback import free_port, listens
from tests.waiting import until

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs/how-to/proxy.md").read_text(encoding="utf-8")
PASSWORD = "three blind mice run"

AROUND = """
daemon off;
{user}
pid {here}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
{blocks}
}}
"""


def block(mark: str, language: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, mark
    return found[1]


@dataclass
class Behind:
    """A house, and the two ports under which a proxy serves it."""

    house: House
    devices: int
    people: int
    tls: ssl.SSLContext

    def ask(
        self, port: int, method: str, path: str, body: str = "", **headers: str
    ) -> tuple[http.client.HTTPResponse, str]:
        """From an address that is not the proxy's own."""
        connection = http.client.HTTPSConnection(
            "localhost", port, timeout=30, context=self.tls, source_address=("127.0.0.2", 0)
        )
        with closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body or None, headers={"X-Forwarded-For": "203.0.113.9", **named})
            answer = connection.getresponse()
            return answer, answer.read().decode()


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx is not None, "nginx is missing: `make test` gets it"
    console = free_port()
    kept = [line for line in block("yaml: settings", "yaml").splitlines() if not line.startswith(("host:", "port:"))]
    house = House.bare(tmp_path / "wave", more="\n".join([*kept, "builders: 0", f"console_port: {console}"]))
    here = tmp_path / "nginx"
    here.mkdir()
    authority = FileAuthority(here / "ca")
    now = datetime.now(UTC)
    authority.make("here", lasts=timedelta(days=2), now=now)
    authority.save(authority.server(["localhost"], lasts=timedelta(days=1), since=now), here, "server")
    devices, people = free_port(), free_port()
    blocks = ""
    for mark, port, ours, behind_it in (("devices", devices, house.port, "8700"), ("people", people, console, "8701")):
        text = block(f"nginx: {mark}", "nginx").replace("listen 443", f"listen 127.0.0.1:{port}")
        text = re.sub(r"/etc/ssl/\w+\.pem", str(here / "server.pem"), text)
        text = re.sub(r"/etc/ssl/private/\w+\.key", str(here / "server.key"), text)
        assert f"127.0.0.1:{behind_it};" in text
        blocks += text.replace(f"127.0.0.1:{behind_it};", f"127.0.0.1:{ours};")
    file = here / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    file.write_text(AROUND.format(here=here, blocks=blocks, user=user))
    said = subprocess.run(
        [nginx, "-t", "-p", here, "-c", file], capture_output=True, text=True, timeout=30, check=False
    )
    assert said.returncode == 0 and "[warn]" not in said.stderr, said.stderr
    log = (here / "log").open("wb")
    proxy = subprocess.Popen([nginx, "-p", here, "-c", file, "-e", "stderr"], stdout=log, stderr=log)
    try:
        until("the proxy listens", lambda: listens(devices) and listens(people))
        context = ssl.create_default_context(cafile=str(here / "ca/ca.pem"))
        yield Behind(house, devices, people, context)
    finally:
        house.close()
        proxy.terminate()
        proxy.wait(20)
        log.close()


def test_devices_and_people_come_through_and_are_who_they_are(behind: Behind) -> None:
    """A device is answered and told the public address; a person signs in, with a cookie for TLS alone and under the
    address from which they came, whatever they say of it themselves."""
    house = behind.house
    house.wave("init", str(house.root))
    token = house.ok("device", "enroll", "lab-1", "--hardware-id", "rpi4", "--tag", "main").out.split()[-1]
    house.ok("user", "add", "ann", "--role", "viewer", typed=f"{PASSWORD}\n")
    house.serve().operators()
    answer, said = behind.ask(behind.devices, "GET", "/healthz")
    assert (answer.status, said) == (200, '{"status":"ok"}')
    body = json.dumps({"commit": "0" * 64, "version": 1})
    answer, said = behind.ask(
        behind.devices, "POST", "/v1/devices/lab-1/check-in", body, Authorization=f"Bearer {token}"
    )
    assert answer.status == 200, said

    answer, said = behind.ask(behind.people, "GET", "/sign-in")
    cookie = answer.headers["set-cookie"]
    assert "Secure" in cookie
    shown = re.search(r'name="csrf" value="(\w+)"', said)
    assert shown is not None
    form = urlencode({"name": "ann", "password": PASSWORD, "csrf": shown[1]})
    kind = "application/x-www-form-urlencoded"
    answer, said = behind.ask(
        behind.people, "POST", "/sign-in", form, Cookie=cookie.partition(";")[0], Content_Type=kind
    )
    assert answer.status == 303, said
    assert all("Secure" in each for each in answer.headers.get_all("set-cookie", []) if "wave_session=" in each)
    log = house.ok("user", "log").out
    assert "127.0.0.2" in log and "203.0.113.9" not in log
