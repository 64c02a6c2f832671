"""`wave doctor`: what people and programs are told, and how it ends."""

from __future__ import annotations

import json
from datetime import timedelta

from orchestrator.adapters.authority import FileAuthority
from orchestrator.bootstrap import utc_now
from orchestrator.services.doctor import Area
from tests.cli.house import House


def with_repository(house: House) -> None:
    (house.root / "repo/objects").mkdir(parents=True)
    (house.root / "repo/config").write_text("[core]\nmode=archive-z2\n")


def test_what_fails_has_a_remedy_below_it_and_ends_with_1(house: House) -> None:
    (house.root / "wave.db").chmod(0o644)
    ended = house.run("doctor")
    assert ended.exit_code == 1
    assert "FAIL" in ended.stdout
    assert "chmod 600" in ended.stdout


def test_warnings_end_with_1_only_when_that_is_asked_for(house: House) -> None:
    with_repository(house)
    FileAuthority(house.root / "ca").make("factory", lasts=timedelta(days=20), now=utc_now())
    assert "0 failures" in house.ok("doctor")
    assert house.run("doctor", "--strict").exit_code == 1


def test_json_has_every_finding(house: House) -> None:
    ended = house.run("doctor", "--json")
    assert ended.exit_code == 1
    found = json.loads(ended.stdout)["result"]
    assert found["verdict"] == "fail", "it has no repository"
    assert {each["area"] for each in found["findings"]} == set(Area)
    assert all(set(each) == {"area", "level", "sentence", "remedy"} for each in found["findings"])
