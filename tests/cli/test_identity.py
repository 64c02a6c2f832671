"""``wave enrolment`` and ``wave ca``: tokens are shown once and listed without themselves, certificates signed and
revoked."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.services.messages import Enrol
from tests.cli.house import House

GRANT = set(
    "name kind state tag group hardware_ids labels uses_left used until replace register created_at created_by "
    "revoked_at".split()
)


def joined(house: House, token: str, device: str) -> None:
    with house.application() as app:
        app.devices.join(token, Enrol(device, "rpi4")).result(10)


def test_an_enrolment_token_is_shown_once_and_ends(house: House) -> None:
    ended = house.run("enrolment", "add", "--tag", "promoted", "--group", "lab", "--hw-id", "rpi4", "--label", "a=b")
    assert ended.exit_code == 0, ended.output
    name, token = ended.stdout.split()
    assert "tag promoted; group lab; hardware rpi4; a=b" in ended.stderr and "2026-05-11 09:00" in ended.stderr
    joined(house, token, "gw-1")
    listed = house.ok("enrolment", "list", "--all")
    assert name in listed and "spent" in listed and token not in listed
    assert "No token." in house.ok("enrolment", "list")
    assert house.ok("enrolment", "revoke", name, "--yes") == f"{name} is revoked.\n"
    assert house.json("enrolment", "revoke", name) == {"name": name, "changed": False}
    (found,) = house.json("enrolment", "list", "--all")
    assert set(found) == GRANT
    assert (found["state"], found["uses_left"], found["used"], found["created_by"]) == ("revoked", 0, 1, "mika")


def test_a_gateway_token_lasts_until_it_is_revoked(house: House) -> None:
    made = house.json("enrolment", "add", "--gateway", "--tag", "main", "--hardware-id", "rpi4", "--register")
    assert set(made) == GRANT | {"token"}
    assert (made["kind"], made["uses_left"], made["until"]) == ("gateway", 1000, None)
    house.now += timedelta(days=3650)
    listed = house.ok("enrolment", "list")
    assert made["name"] in listed and "never" in listed
    assert "for ever" in house.run("enrolment", "add", "--gateway", "--group", "lab").stderr


@pytest.mark.parametrize(
    ("until", "end"),
    [
        ("12h", "2026-05-04T21:00:00Z"),
        ("2026-06-01", "2026-06-02T00:00:00Z"),
        ("2026-06-01T10:00+02:00", "2026-06-01T08:00:00Z"),
        ("never", None),
    ],
)
def test_an_end_is_a_duration_a_date_or_never(house: House, until: str, end: str | None) -> None:
    assert house.json("enrolment", "add", "--tag", "main", "--until", until)["until"] == end


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tag main --until 2026-06-01T10:00", "has no time zone"),
        ("--tag main --until 9999-12-31T23:59-14:00", "no time that can be reckoned with"),
        ("--tag main --until soon", "is no end"),
        ("--tag main --until 2026-01-01", "would be over before it is used"),
        ("--hardware-id rpi4", "which tag its devices follow"),
        ("--tag main --register", "--register is for a gateway token"),
        ("--gateway --tag main --uses 3", "--uses counts devices"),
        ("--gateway", "without a scope"),
        ("--tag main --label nothing", "is no label"),
    ],
)
def test_what_makes_no_sense_is_refused(house: House, words: str, said: str) -> None:
    ended = house.run("enrolment", "add", *words.split())
    assert ended.exit_code == 2
    assert said in ended.stderr
    assert house.json("enrolment", "list", "--all") == []


def test_a_name_that_nobody_has_is_told(house: House) -> None:
    ended = house.run("enrolment", "revoke", "enr-none", "--yes")
    assert ended.exit_code == 3 and "There is no enrolment token enr-none" in ended.stderr


# ------------------------------------------------------------------------------------------------- certificates

CERTIFICATE = set("subject serial fingerprint not_before not_after certificate".split())


def test_an_authority_signs_and_revokes(house: House, tmp_path: Path) -> None:
    assert "wave ca init" in house.run("ca", "issue", "gw-1", "--out", str(tmp_path / "x")).stderr
    made = house.ok("ca", "init", "--name", "Acme devices")
    assert "Acme devices" in made and "tls_client_ca" in made
    assert house.run("ca", "init").exit_code == 4
    told = house.ok("ca", "issue", "gw-1", "--out", str(tmp_path / "gw-1"))
    assert sum(line.startswith("+") for line in told.splitlines()) == 3
    key = tmp_path / "gw-1" / "gw-1.key"
    assert key.stat().st_mode & 0o777 == 0o600 and "PRIVATE KEY" not in told
    server = house.json("ca", "server", "localhost", "127.0.0.1", "--out", str(tmp_path / "gw"), "--days", "90")
    assert set(server) == CERTIFICATE | {"files"} and "PRIVATE KEY" not in json.dumps(server)
    assert house.ok("ca", "revoke", "gw-1", "--yes") == "What has the device gw-1 is revoked.\n"
    assert house.json("ca", "revoke", "--serial", "00:AB") == {"kind": "serial", "value": "00:AB", "revoked": True}
    assert "gw-1" in house.ok("ca", "list")
    assert [(each["kind"], each["value"]) for each in house.json("ca", "list")] == [
        ("device", "gw-1"),
        ("serial", "ab"),
    ]
    assert "good again" in house.ok("ca", "revoke", "--serial", "ab", "--undo")
    assert house.run("ca", "revoke", "--serial", "ab", "--undo").exit_code == 3
    renewed = house.json("ca", "issue", "gw-1", "--out", str(tmp_path / "again"))
    assert renewed["not_before"] > house.json("ca", "list")[0]["revoked_at"]


def test_a_request_is_signed_and_its_key_stays_where_it_is(house: House, tmp_path: Path) -> None:
    house.ok("ca", "init")
    made = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gw-1 -keyout k.pem -out r.pem"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)
    told = house.run("ca", "issue", "gw-1", "--csr", str(tmp_path / "r.pem"))
    assert told.stdout.startswith("-----BEGIN CERTIFICATE-----") and "serial" in told.stderr
    (tmp_path / "gw-1.pem").write_text(told.stdout, encoding="ascii")
    # the world's clock is another; signatures and purposes are what is looked at
    checked = f"openssl verify -no_check_time -purpose sslclient -CAfile {house.root}/ca/ca.pem gw-1.pem"
    subprocess.run(checked.split(), cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("issue gw-1", "must go somewhere"),
        ("issue gw-1 --csr nothing.pem", "cannot be read"),
        ("issue gw-2 --csr pyproject.toml", "no certificate signing request"),
        ("revoke", "one of the three"),
        ("revoke gw-1 --serial ab", "one of the three"),
        ("revoke --serial xyz --yes", "hex digits"),
        ("server --out x -- -a", "neither a host name nor an address"),
    ],
)
def test_what_makes_no_sense_of_certificates_is_refused(house: House, words: str, said: str) -> None:
    house.ok("ca", "init")
    ended = house.run("ca", *words.split())
    assert (ended.exit_code, said in ended.stderr) == (2, True), ended.stderr


def test_a_request_may_not_be_endless(house: House, tmp_path: Path) -> None:
    house.ok("ca", "init")
    (tmp_path / "long.pem").write_bytes(b"x" * 70_000)
    assert "too large" in house.run("ca", "issue", "gw-1", "--csr", str(tmp_path / "long.pem")).stderr
    assert "No certificate was revoked." in house.ok("ca", "list")
