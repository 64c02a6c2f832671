"""Mutual TLS on a real socket, by Python's ``ssl`` and by curl: who gets in, and how soon who is revoked does not."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.authority import FileAuthority
from orchestrator.errors import InvalidInput
from orchestrator.gateway import tls
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.own import OwnDoor
from orchestrator.gateway.tls import certificate_of, server_context
from orchestrator.services.credentials import RevokedKind
from tests.gateway.test_server import serving
from tests.services.fleet_world import World

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
"""Handshakes go by the machine's clock, so this world does too."""


@dataclass
class House:
    """A gateway with TLS, its authority, and another one that it does not trust."""

    world: World
    port: int
    directory: Path
    authority: FileAuthority
    stranger: FileAuthority

    def client(self, device: str | None, by: FileAuthority | None = None, **more: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.certificate_file)
        if device is not None:
            key, pem = self.files(device, by, **more)
            context.load_cert_chain(pem, key)
        return context

    def files(self, device: str, by: FileAuthority | None = None, **more: Any) -> tuple[Path, Path]:
        authority = by or self.authority
        known = {"lasts": 30 * DAY, "since": NOW - DAY, "request": None, **more}
        issued = authority.device(device, **known)
        directory = self.directory / issued.serial
        key, pem, *_ = authority.save(issued, directory, "device")
        return key, pem

    def connection(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)

    def check_in(self, line: http.client.HTTPSConnection, device: str, token: str | None = None) -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        line.request("POST", f"/v1/devices/{device}/check-in", b"{}", headers)
        answer = line.getresponse()
        answer.read()
        return answer.status

    def once(self, context: ssl.SSLContext, device: str, token: str | None = None) -> int:
        line = self.connection(context)
        try:
            return self.check_in(line, device, token)
        finally:
            line.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    yield from opened(tmp_path)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[House]:
    """One that takes nobody without a certificate."""
    yield from opened(tmp_path, required=True)


def opened(tmp_path: Path, *, required: bool = False) -> Iterator[House]:
    world = World()
    world.now = NOW
    authority, stranger = FileAuthority(tmp_path / "ca"), FileAuthority(tmp_path / "other")
    for each in (authority, stranger):
        each.make("test", lasts=3650 * DAY, now=NOW - 365 * DAY)
    issued = authority.server(["localhost", "127.0.0.1"], lasts=90 * DAY, since=NOW - DAY)
    key, pem, _ = authority.save(issued, tmp_path / "server", "server")
    context = server_context(certificate=pem, key=key, client_ca=authority.certificate_file, required=required)
    with serving(Gateway([OwnDoor(world.devices)]), tls=context) as (_, port):
        yield House(world, port, tmp_path, authority, stranger)
    world.close()


def test_a_certificate_lets_in_the_device_that_it_names_and_no_other(house: House) -> None:
    one, other = house.world.enroll(2)
    context = house.client(one)
    assert house.once(context, one) == 200
    assert house.once(context, other) == 401
    assert house.once(house.client("nobody"), "nobody") == 401
    assert house.once(house.client(other), one) == 401


def test_tokens_go_on_working_beside_certificates(house: House) -> None:
    one, other = house.world.enroll(2)
    tokens = house.world.tokens
    assert house.once(house.client(None), one, tokens[one]) == 200
    assert house.once(house.client(None), one) == 401
    assert house.once(house.client(other), one, tokens[one]) == 200, "what is said counts, not what is worn"
    assert house.once(house.client(one), one, tokens[other]) == 401


def test_a_revoked_certificate_is_worth_nothing_on_an_open_connection_either(house: House) -> None:
    one, other = house.world.enroll(2)
    context = house.client(one)
    line = house.connection(context)
    assert house.check_in(line, one) == 200
    house.world.devices.identity.revoke_certificates(RevokedKind.DEVICE, one, by="anna")
    assert house.check_in(line, one) == 401, "the same connection, the next request"
    assert house.once(context, one) == 401
    line.close()
    key, pem = house.files(other)
    serial = subprocess.run(
        ["openssl", "x509", "-in", str(pem), "-noout", "-serial"], capture_output=True, text=True, check=True
    )
    again = ssl.create_default_context(cafile=house.authority.certificate_file)
    again.load_cert_chain(pem, key)
    assert house.once(again, other) == 200
    house.world.devices.identity.revoke_certificates(
        RevokedKind.SERIAL, serial.stdout.strip().partition("=")[2], by="anna"
    )
    assert house.once(again, other) == 401
    assert house.once(house.client(other), other) == 200, "its other certificate is good"


def test_a_certificate_that_ends_is_worth_nothing_on_an_open_connection_either(house: House) -> None:
    (one,) = house.world.enroll(1)
    line = house.connection(house.client(one, lasts=2 * DAY))
    assert house.check_in(line, one) == 200
    house.world.now += DAY
    assert house.check_in(line, one) == 401
    line.close()


@pytest.mark.parametrize("case", ["another authority", "over", "not yet", "a server's"])
def test_a_certificate_that_is_none_ends_in_the_handshake(house: House, case: str) -> None:
    (one,) = house.world.enroll(1)
    if case == "a server's":
        issued = house.authority.server([one], lasts=DAY, since=NOW - timedelta(hours=1))
        key, pem, _ = house.authority.save(issued, house.directory / "wrong", "x")
        context = house.client(None)
        context.load_cert_chain(pem, key)
    else:
        wrong: dict[str, dict[str, Any]] = {
            "another authority": {"by": house.stranger},
            "over": {"since": NOW - 3 * DAY, "lasts": 2 * DAY},
            "not yet": {"since": NOW + DAY},
        }
        more = wrong[case]
        context = house.client(one, **more)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        house.once(context, one)
    assert house.once(house.client(one), one) == 200


def test_who_must_show_a_certificate_gets_nowhere_without_one(strict: House) -> None:
    (one,) = strict.world.enroll(1)
    assert strict.once(strict.client(one), one) == 200
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        strict.once(strict.client(None), one, strict.world.tokens[one])


def test_a_session_that_is_taken_up_again_brings_its_certificate(house: House) -> None:
    one, other = house.world.enroll(2)
    context = house.client(one)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    first = house.connection(context)
    assert house.check_in(first, one) == 200
    session = first.sock.session
    first.close()
    bare = socket.create_connection(("127.0.0.1", house.port), 10)
    raw = context.wrap_socket(bare, session=session, server_hostname="127.0.0.1")
    assert raw.session_reused
    again = house.connection(context)
    again.sock = raw
    assert house.check_in(again, one) == 200
    assert house.check_in(again, other) == 401
    house.world.devices.identity.revoke_certificates(RevokedKind.DEVICE, one, by="anna")
    assert house.check_in(again, one) == 401
    again.close()


def test_curl_checks_in_with_a_certificate_and_is_refused_in_clear(house: House) -> None:
    (one,) = house.world.enroll(1)
    key, pem = house.files(one)
    asked = ["curl", "-s", "-m", "10", "--cacert", str(house.authority.certificate_file), "-X", "POST", "-d", "{}"]
    url = f"//127.0.0.1:{house.port}/v1/devices/{one}/check-in"
    told = subprocess.run(
        [*asked, "--cert", str(pem), "--key", str(key), f"https:{url}"], capture_output=True, check=True, timeout=20
    )
    assert json.loads(told.stdout)["offer"] is None
    bare = subprocess.run([*asked, f"https:{url}"], capture_output=True, check=True, timeout=20)
    assert json.loads(bare.stdout)["error"]["kind"] == "unauthorized"
    for version in ("1.0", "1.1"):
        old = subprocess.run([*asked, "--tls-max", version, f"https:{url}"], capture_output=True, timeout=20)
        assert old.returncode == 35
    assert subprocess.run([*asked, f"http:{url}"], capture_output=True, timeout=20).returncode != 0


def test_a_handshake_that_does_not_come_is_hung_up_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.2)
    gateway = Gateway([OwnDoor(house.world.devices)])
    with serving(gateway, tls=house_context(house)) as (_, port), socket.create_connection(("127.0.0.1", port)) as line:
        line.settimeout(5)
        assert line.recv(1) == b""


def house_context(house: House) -> ssl.SSLContext:
    folder = house.directory / "server"
    return server_context(certificate=folder / "server.pem", key=folder / "server.key", client_ca=None)


def test_without_an_authority_no_certificate_is_asked_for(house: House) -> None:
    (one,) = house.world.enroll(1)
    with serving(Gateway([OwnDoor(house.world.devices)]), tls=house_context(house)) as (_, port):
        plain = House(house.world, port, house.directory, house.authority, house.stranger)
        assert plain.once(plain.client(one), one) == 401
        assert plain.once(plain.client(None), one, house.world.tokens[one]) == 200


@pytest.mark.parametrize("part", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"])
def test_files_that_cannot_be_used_are_named(house: House, part: str, content: str | None) -> None:
    wrong = house.directory / "wrong.pem"
    if content is not None:
        wrong.write_text(content, encoding="ascii")
    folder = house.directory / "server"
    files: dict[str, Any] = {"certificate": folder / "server.pem", "key": folder / "server.key", "client_ca": None}
    with pytest.raises(InvalidInput, match=r"wrong\.pem"):
        server_context(**{**files, part: wrong})


@pytest.mark.parametrize(
    "subject",
    [
        (),
        ((("organizationName", "acme"),),),
        ((("commonName", "a"),), (("commonName", "b"),)),
        ((("commonName", "no id"),),),
        ((("commonName", "gw-1\0evil"),),),
    ],
)
def test_a_certificate_without_one_name_that_a_device_can_have_says_nothing(subject: Any) -> None:
    said = {
        "subject": subject,
        "serialNumber": "0A",
        "notBefore": "May  4 09:00:00 2026 GMT",
        "notAfter": "May  4 09:00:00 2027 GMT",
    }
    assert certificate_of(said, b"whole") is None
    assert certificate_of(None, b"whole") is None and certificate_of({}, b"whole") is None
    good = certificate_of({**said, "subject": ((("commonName", "gw-1"),),)}, b"whole")
    assert good is not None and (good.device_id, good.serial, good.not_before.year) == ("gw-1", "a", 2026)
