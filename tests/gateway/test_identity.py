"""How devices show who they are: the headers, enrolling over HTTP, and that no device can do anything for another."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.services.credentials import GrantKind
from tests.gateway.own_door import Door, error
from tests.services.fleet_world import HARDWARE, TAG, World


def enrolment(world: World, **more: Any) -> str:
    return world.devices.identity.add(GrantKind.ENROLMENT, by="anna", **{"tag": TAG, "uses": 1, **more})[1]


def enrol(door: Door, token: str, /, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {token}"}
    return door.ask("POST", "/v1/enroll", json={"device": "new-1", "hardware_id": HARDWARE, **body}, headers=headers)


def test_a_device_enrols_itself_and_is_served(door: Door) -> None:
    told = enrol(door, enrolment(door.world, group="lab"), labels={"rack": "7"})
    assert told.status_code == 200
    assert told.headers["cache-control"] == "no-store"
    body = told.json()
    assert set(body) == {"device", "token", "hardware_id", "tag", "check_in_after"}
    assert door.post("new-1", "check-in", {}, token=body["token"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"device": "taken"}, 409, "refused"),
        ({"hardware_id": "imx8"}, 403, "forbidden"),
        ({"device": "../../etc"}, 400, "invalid_report"),
        ({"device": 7}, 400, "invalid_report"),
        ({"device": ""}, 400, "invalid_report"),
        ({"labels": {"": "x"}}, 400, "invalid_report"),
        ({"labels": {str(n): "x" for n in range(65)}}, 400, "invalid_report"),
        ({"token": "short"}, 400, "invalid_report"),
        ({"token": "x" * 300}, 400, "invalid_report"),
        ({"token": "\u00e9" * 43}, 400, "invalid_report"),
    ],
)
def test_what_is_refused_at_enrolling(door: Door, body: dict[str, Any], status: int, kind: str) -> None:
    token = enrolment(door.world, hardware_ids=[HARDWARE])
    other = enrolment(door.world)
    assert enrol(door, other, device="taken").status_code == 200
    assert error(enrol(door, token, **body)) == (status, kind)
    assert enrol(door, token).status_code == 200, "nothing was used up"


def test_only_an_enrolment_token_enrols(door: Door) -> None:
    (device,) = door.world.enroll(1)
    identity = door.world.devices.identity
    _, gateway = identity.add(GrantKind.GATEWAY, by="anna", tag=TAG, hardware_ids=[HARDWARE], may_register=True)
    for token in ("wrong", door.world.tokens[device], gateway):
        assert error(enrol(door, token)) == (401, "unauthorized")
    good = enrolment(door.world)
    for scheme in ("GatewayToken", "TargetToken", "Basic"):
        told = door.ask("POST", "/v1/enroll", json={"device": "new-1"}, headers={"authorization": f"{scheme} {good}"})
        assert error(told) == (401, "unauthorized")
    assert error(door.ask("POST", "/v1/enroll", json={"device": "new-1"})) == (401, "unauthorized")
    assert error(door.ask("GET", "/v1/enroll")) == (405, "method_not_allowed")
    assert enrol(door, good).status_code == 200
