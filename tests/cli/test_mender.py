"""``wave mender``: who waits, who is let in, and who is out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.errors import WaveError
from orchestrator.services.mender.authentication import Authentication
from tests.cli.house import House
from tests.services.mender.keys import key_of, pem_of, request_of

HERE = ("--hardware-id", "rpi4", "--tag", "promoted")


def asks(house: House, name: str, key: str | None = None) -> bool:
    """A device asks; whether it is let in."""
    with house.application() as app:
        door = Authentication(
            app.store, app.devices, app.clock, token_for=app.settings.mender_token_for, most_pending=10
        )
        try:
            door.ask(*request_of(name, key=key)).result(10)
        except WaveError:
            return False
    return True


def test_a_device_is_listed_accepted_rejected_and_decommissioned(house: House) -> None:
    assert "No authentication set." in house.ok("mender", "list")
    assert not asks(house, "aa:bb")
    assert '{"mac":"aa:bb"}' in house.ok("mender", "list", "--status", "pending")
    assert "would be accepted as device aa:bb, new" in house.ok("mender", "accept", "aa:bb", *HERE, "--dry-run")
    assert not asks(house, "aa:bb")
    assert "is accepted as device aa:bb, new in the fleet." in house.ok("mender", "accept", "aa:bb", *HERE)
    assert asks(house, "aa:bb")
    [found] = house.json("mender", "list")["sets"]
    assert (found["status"], found["device"], found["identity"]) == ("accepted", "aa:bb", {"mac": "aa:bb"})
    assert found["decided_by"] == "mika" and found["public_key"] == pem_of(key_of("aa:bb"))
    assert "is rejected" in house.ok("mender", "reject", found["id"][:8])
    assert not asks(house, "aa:bb")
    assert "would be decommissioned" in house.ok("mender", "decommission", "aa:bb", "--dry-run")
    assert "is decommissioned" in house.ok("mender", "decommission", "aa:bb", "--yes")
    assert house.json("mender", "list")["sets"] == []
    assert house.json("device", "show", "aa:bb")["status"] == "retired"


def test_many_that_wait_are_rejected_at_once(house: House) -> None:
    for name in ("m1", "m2", "m3"):
        asks(house, name)
        house.now += timedelta(hours=1)
    house.ok("mender", "accept", "m1", *HERE)
    listed = house.json("mender", "list", "--status", "pending")["sets"]
    assert [one["identity"]["mac"] for one in listed] == ["m3", "m2"], "who asked last comes first"
    assert "would be rejected" in house.ok("mender", "reject", "--waiting", "--dry-run")
    assert house.ok("mender", "reject", "--waiting", "--asked-within", "90m", "--yes").count("is rejected") == 1
    assert [one["identity"]["mac"] for one in house.json("mender", "list", "--status", "pending")["sets"]] == ["m2"]
    assert len(house.json("mender", "reject", "--waiting")["sets"]) == 1
    assert "Nobody waits." in house.ok("mender", "reject", "--waiting", "--yes")
    assert [one["identity"]["mac"] for one in house.json("mender", "list", "--status", "accepted")["sets"]] == ["m1"]


def test_another_key_takes_over_when_a_person_says_so(house: House) -> None:
    asks(house, "m1")
    house.ok("mender", "accept", "m1", *HERE)
    assert not asks(house, "m1", "new")
    assert "is worth nothing now" in house.ok("mender", "accept", "m1")
    assert asks(house, "m1", "new") and not asks(house, "m1")


def test_who_has_not_asked_yet_is_preauthorised(house: House, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(pem_of(key_of("m1")))
    decided = house.json("mender", "preauthorize", "--identity", '{"mac": "m1"}', "--key", str(key), *HERE)
    assert decided["sets"][0]["device"] == "m1" and decided["sets"][0]["enrolled"]
    assert asks(house, "m1") and not asks(house, "m1", "other")
    assert house.run("mender", "preauthorize", "--identity", "{}", "--key", str(key)).exit_code == 2
    assert house.run("mender", "preauthorize", "--identity", '{"a":"b"}', "--key", "none").exit_code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["accept", "nobody", *HERE], 3),
        (["reject", "nobody"], 3),
        (["list", "--status", "odd"], 2),
        (["accept", "a", "b", "--device", "c"], 2),
        (["accept", "m1"], 2),
        (["reject"], 2),
        (["reject", "m1", "--waiting"], 2),
        (["reject", "m1", "--asked-within", "1h"], 2),
        (["reject", "--waiting", "--asked-within", "soon"], 2),
    ],
)
def test_what_cannot_be_is_told(house: House, words: list[str], code: int) -> None:
    asks(house, "m1")
    assert house.run("mender", *words).exit_code == code
