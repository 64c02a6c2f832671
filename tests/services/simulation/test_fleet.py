"""A virtual fleet: who there is, and who is in which wave."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.membership import Member, WaveSelector, wave_of
from orchestrator.core.position import bound_of_share, device_hash, wave_salt
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import InvalidInput
from orchestrator.services.simulation.fleet import Shape, allotted, fitting, made
from orchestrator.services.simulation.waves import USUAL, waves_of


def test_the_shares_are_those_asked_for_and_there_are_twelve_segment_values() -> None:
    fleet = made(Shape(2_000))
    sizes = {name: fleet.sizes(name) for name in ("hardware_id", "source_version", "label:region")}
    assert sizes["hardware_id"] == {"hw-a": 1_200, "hw-b": 500, "hw-c": 200, "hw-d": 100}
    assert sum(map(len, sizes.values())) == 12
    assert all(sum(found.values()) == 2_000 for found in sizes.values())


@given(st.integers(1, 400), st.booleans())
def test_every_device_is_in_exactly_one_wave_by_rising_position(devices: int, hashed: bool) -> None:
    found = allotted(made(Shape(devices, hashed=hashed)), waves_of(USUAL), "salt", Random(1))
    assert sorted(device for members in found.values() for _, device in members) == list(range(devices))
    assert all(members == sorted(members) for members in found.values())
    assert len(found["lab"]) == min(5, devices)


def test_membership_is_that_of_the_core() -> None:
    spec = waves_of("early 10%, more 30%, rest")
    found = allotted(made(Shape(300)), spec, "salt", Random(1))
    shares = {"early": 0.1, "more": 0.3, "rest": 1.0}
    selectors = [
        WaveSelector(name, wave_salt("salt", name), bound=bound_of_share(share)) for name, share in shares.items()
    ]
    for name, members in found.items():
        for _, device in members:
            member = Member(device_hash(f"device-{device}"), "hw-a", None, {})
            selector = wave_of(member, selectors)
            assert selector is not None
            assert selector.wave == name


def test_groups_and_labels_that_a_rollout_file_names_exist() -> None:
    waves = [
        {"wave": "lab", "devices": {"group": "lab"}},
        {"wave": "canary", "devices": {"count": 20, "spread": "hardware_id"}},
        {"wave": "emea", "devices": {"labels": {"region": "emea"}, "share": "25%"}},
        {"wave": "rest", "devices": "all"},
    ]
    spec = RolloutFile.parse({"rollout": "x", "target": 2, "tag": "t", "policy": "standard", "waves": waves})
    fleet = made(fitting(Shape(1_000), spec))
    found = allotted(fleet, spec, "salt", Random(1))
    assert len(found["lab"]) == 5
    assert len(found["canary"]) == 20
    assert {fleet.kinds[fleet.kind_of[device]].hardware_id for _, device in found["canary"]} == {
        "hw-a",
        "hw-b",
        "hw-c",
        "hw-d",
    }
    assert 60 < len(found["emea"]) < 200
    assert {fleet.kinds[fleet.kind_of[device]].labels["region"] for _, device in found["emea"]} == {"emea"}


@pytest.mark.parametrize("text", ["", "a,,b", "rest, canary 20", "canary twenty", "a 10%%", "canary 0"])
def test_what_is_no_wave_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        waves_of(text)


def test_a_last_wave_for_all_the_others_is_added() -> None:
    assert [wave.name for wave in waves_of("5, 10%").waves] == ["wave-1", "wave-2", "rest"]
    assert [wave.name for wave in waves_of("all").waves] == ["all"]


def test_a_fleet_that_cannot_be_is_refused() -> None:
    for wrong in (Shape,):
        with pytest.raises(InvalidInput, match="1 to 1,000,000"):
            wrong(devices=0)
        with pytest.raises(InvalidInput, match="sum to 100 %"):
            wrong(hardware={"a": 0.5})
