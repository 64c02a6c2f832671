"""What a label may be: one rule, at every door by which one comes in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.document import InvalidDocument
from orchestrator.core.fleet import Device, check_label
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import InvalidInput
from orchestrator.services.messages import CheckIn
from orchestrator.services.register import check_device

Door = Callable[[dict[str, str]], object]


def in_a_fleet_file(labels: dict[str, str]) -> object:
    return FleetFile.parse({"devices": [{"id": "a", "hardware_id": "h", "tag": "t", "labels": labels}]})


def in_a_rollout_file(labels: dict[str, str]) -> object:
    waves = [{"wave": "a", "devices": {"labels": labels}}, {"wave": "rest", "devices": "all"}]
    return RolloutFile.parse({"rollout": "r", "target": 1, "tag": "t", "policy": "p", "waves": waves})


def by_hand(labels: dict[str, str]) -> object:
    for key, value in labels.items():
        check_label(key, value)
    return labels


DOORS: dict[str, Door] = {
    "a fleet file": in_a_fleet_file,
    "a rollout file": in_a_rollout_file,
    "a check-in": lambda labels: CheckIn(labels=labels).check(),
    "wave device label": by_hand,
    "wave device enroll": lambda labels: check_device(Device("a", "h", "t", labels=labels)),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("key", ["region", "site/rack", "example.org/a.b:c-d_e", "7", "a" * 128])
def test_a_key_may_be_a_path(door: Door, key: str) -> None:
    door({key: "x"})


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("key", ["", "/x", "a b/c", "é", "a" * 129, "a\n", "a=b"])
def test_a_key_that_cannot_be_is_named_as_it_is_with_what_is_allowed(door: Door, key: str) -> None:
    with pytest.raises((InvalidInput, InvalidDocument)) as refused:
        door({key: "x"})
    said = str(refused.value)
    assert "is no name for a label: use letters, digits and . _ / : -, beginning with a letter or digit" in said
    assert key[:80] in said or repr(key[:80]) in said


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("value", ["", "a\nb", "x" * 256])
def test_a_value_is_one_line(door: Door, value: str) -> None:
    with pytest.raises((InvalidInput, InvalidDocument), match="must be 1 to 255 printable characters on one line"):
        door({"region": value})
