"""``wave enrolment``: tokens are shown once, listed without themselves, and ended."""

from __future__ import annotations

from datetime import timedelta

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
