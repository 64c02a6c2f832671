"""Which device of hawkBit's protocol may have what."""

from __future__ import annotations

import pytest

from orchestrator.services.credentials import GrantKind
from tests.gateway.ddi_world import BASE, DdiWorld, body_of
from tests.services.fleet_world import HARDWARE, TAG


def test_an_ostree_commit_is_not_for_a_device_that_takes_files_and_the_reason_is_told(ddi: DdiWorld) -> None:
    ddi.world.target(41)
    ddi.world.target(42)
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "41")
    ddi.world.apply()
    assert ddi.links(device) == {}
    (why,) = ddi.world.devices.why_not(device)
    assert why.kind == "content"
    assert why.sentence == "It speaks hawkBit's protocol, which takes files; the Target is an OSTree commit."
    before = ddi.world.devices.writer.items
    ddi.poll(device)
    assert ddi.world.devices.writer.items == before


def test_a_device_that_never_says_its_version_never_confirms_and_explain_says_so(ddi: DdiWorld) -> None:
    ddi.artifact(42)
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, None, serial="1")
    ddi.world.apply()
    ddi.say(device, ddi.action(device), "closed", "success")
    (why,) = ddi.world.devices.why_not(device)
    assert why.sentence == (
        "It has written the Target, and is confirmed when its configData says its version. "
        "It has never said one, so it would never be confirmed."
    )


def test_a_stranger_and_a_wrong_token_are_told_the_same(ddi: DdiWorld) -> None:
    (device, other) = ddi.world.enroll(2)
    answers = [
        ddi.ask("GET", f"{BASE}/{device}"),
        ddi.ask("GET", f"{BASE}/nobody", other),
        ddi.ask("GET", f"{BASE}/{device}", other),
        ddi.ask("GET", f"{BASE}/{device}", headers={"authorization": "TargetToken wrong"}),
        ddi.ask("GET", f"{BASE}/{device}", headers={"authorization": "GatewayToken wrong"}),
        ddi.ask("GET", f"{BASE}/a%20b", other),
        ddi.ask("PUT", f"{BASE}/{device}/configData", other, json={"data": {}}),
        ddi.ask("POST", f"{BASE}/{device}/deploymentBase/1/feedback", other, json=body_of("closed")),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers[1:5]} == {answers[1].text}


def test_actions_of_others_are_not_there(ddi: DdiWorld) -> None:
    device, other = ddi.fleet(2)
    action = ddi.action(device)
    for path in (f"deploymentBase/{action}", f"cancelAction/{action}", f"softwaremodules/{action}/artifacts"):
        assert ddi.get(other, path).status_code == 404, "it was offered nothing yet"
    assert ddi.say(other, action, "closed", "success").status_code == 404
    for wrong in ("0", "-1", "99999999999", "x", "1e3", str(action + 64), "%2e%2e"):
        assert ddi.get(device, f"deploymentBase/{wrong}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["installedBase", "installedBase/1", "confirmationBase/1", "x", "configData/x", "softwaremodules/1/artifacts/a"],
)
def test_what_is_never_linked_is_not_there(ddi: DdiWorld, path: str) -> None:
    (device,) = ddi.world.enroll(1)
    assert ddi.get(device, path).status_code == 404


def test_nothing_waits_for_a_person_at_the_device(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    assert ddi.get(device, "confirmationBase").json() == {"autoConfirm": {"active": True}}


def test_a_gateways_token_speaks_for_its_devices_and_makes_them_known_where_it_may(ddi: DdiWorld) -> None:
    identity = ddi.world.devices.identity
    _, token = identity.add(GrantKind.GATEWAY, by="anna", tag=TAG, hardware_ids=(HARDWARE,), may_register=True)
    headers = {"authorization": f"GatewayToken {token}"}
    (known,) = ddi.world.enroll(1)
    (foreign,) = ddi.world.enroll(1, tag="other")
    assert ddi.ask("GET", f"{BASE}/{known}", headers=headers).status_code == 200
    assert ddi.ask("GET", f"{BASE}/{foreign}", headers=headers).status_code == 401
    assert ddi.ask("GET", f"{BASE}/new-1", headers=headers).status_code == 200
    with ddi.world.store.reading() as r:
        made = r.device("new-1")
    assert made is not None and (made.device.hardware_id, made.device.tag) == (HARDWARE, TAG)
    body = {"data": {"swVersion": "1.0"}}
    assert ddi.ask("PUT", f"{BASE}/new-1/configData", headers=headers, json=body).status_code == 200
    _, narrow = identity.add(GrantKind.GATEWAY, by="anna", tag=TAG)
    stranger = ddi.ask("GET", f"{BASE}/new-2", headers={"authorization": f"GatewayToken {narrow}"})
    assert stranger.status_code == 401
