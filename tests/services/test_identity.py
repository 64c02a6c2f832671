"""Who may speak as whom: every kind of credential, its scope, its end, and how soon a revocation counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.fleet import DeviceStatus
from orchestrator.errors import Forbidden, InvalidInput, NotFound, Refused, Unauthorized
from orchestrator.services.credentials import (
    REGISTERED,
    Bearer,
    Certificate,
    GatewayToken,
    Grant,
    GrantKind,
    RevokedKind,
    Secret,
    Shown,
    TargetToken,
    digest_of,
)
from orchestrator.services.devices import Devices
from orchestrator.services.mender.tokens import new_token
from orchestrator.services.messages import Enrol
from tests.services.fleet_world import HARDWARE, TAG, World

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def enrolment(world: World, **more: Any) -> str:
    return world.devices.identity.add(GrantKind.ENROLMENT, by="anna", **{"tag": TAG, "uses": 1, **more})[1]


def gateway(world: World, **more: Any) -> str:
    return world.devices.identity.add(GrantKind.GATEWAY, by="anna", **{"tag": TAG, **more})[1]


def certificate(world: World, device: str, *, serial: str = "a1", **more: Any) -> Certificate:
    known = {"not_before": world.now - DAY, "not_after": world.now + DAY, "fingerprint": serial * 32}
    return Certificate(device, serial, **{**known, **more})


def join(world: World, token: str, device: str = "new-1", hardware_id: str | None = HARDWARE, **labels: str) -> str:
    """The device's own token."""
    known, own = world.devices.join(token, Enrol(device, hardware_id, labels)).result(10)
    assert known.id == device
    return own


def admitted(devices: Devices, device: str, shown: Shown) -> bool:
    try:
        found = devices.let_in(device, shown)
        found = found.result(10) if isinstance(found, Future) else found
    except Unauthorized:
        return False
    assert found.person.device.id == device
    return True


# ------------------------------------------------------------------------------------------------- own tokens


@pytest.mark.parametrize("shape", [str, Bearer, TargetToken, Secret])
def test_a_devices_own_token_speaks_for_it_alone_however_it_is_carried(
    world: World, shape: Callable[[str], Shown]
) -> None:
    one, other = world.enroll(2)
    assert admitted(world.devices, one, shape(world.tokens[one]))
    assert not admitted(world.devices, other, shape(world.tokens[one]))
    assert not admitted(world.devices, "nobody", shape(world.tokens[one]))
    assert not admitted(world.devices, one, shape(""))
    world.devices.register.revoke(one)
    assert not admitted(world.devices, one, shape(world.tokens[one]))


@pytest.mark.parametrize("shape", [Bearer, TargetToken, Secret, GatewayToken])
def test_nothing_that_is_printed_shows_a_token(shape: Callable[[str], Shown]) -> None:
    assert "hush" not in repr(shape("hush")) + str(shape("hush"))


# ------------------------------------------------------------------------------------------------- enrolment


@pytest.mark.parametrize("shape", [str, Bearer, TargetToken, Secret])
def test_a_token_that_ends_has_ended_however_it_is_carried(world: World, shape: Callable[[str], Shown]) -> None:
    device, other = world.enroll(2)
    token, digest = new_token(device, world.now + DAY)
    with world.store.writing() as w:
        w.set_token(device, digest)
        w.set_token(other, digest_of(own := f"{token}.its.own.making"))
    world.devices.forget([device, other])
    assert admitted(world.devices, device, shape(token)) and admitted(world.devices, other, shape(own))
    world.later(DAY, tick=False)
    assert not admitted(world.devices, device, shape(token)), "not by another protocol either"
    assert admitted(world.devices, other, shape(own))


def test_a_device_enrols_itself_and_checks_in_at_once(world: World) -> None:
    assert not admitted(world.devices, "new-1", "x")  # remembered as a stranger
    own = join(world, enrolment(world, group="lab", labels={"site": "berlin"}), rack="7", site="mars")
    assert admitted(world.devices, "new-1", own)
    with world.store.reading() as r:
        row = r.device("new-1")
    assert row is not None
    device = row.device
    assert (device.tag, device.group, device.hardware_id) == (TAG, "lab", HARDWARE)
    assert device.labels == {"site": "berlin", "rack": "7"}, "the operator's label stays"
    assert own.encode() not in (row.token_digest or b"")
    world.tokens["new-1"] = own
    world.answer("new-1", labels={"rack": "8"})
    with world.store.reading() as r:
        row = r.device("new-1")
    assert row is not None and row.device.labels == {"site": "berlin", "rack": "8"}, "its own label is its own"


def test_a_token_is_good_for_as_many_devices_as_it_may(world: World) -> None:
    token = enrolment(world, uses=2)
    join(world, token, "new-1")
    join(world, token, "new-2")
    for _ in range(2):
        with pytest.raises(Unauthorized):
            join(world, token, "new-3")
    (grant,) = world.devices.identity.grants()
    assert (grant.uses_left, grant.used) == (0, 2)


def test_a_device_that_made_its_own_token_asks_again_when_the_answer_is_lost(world: World) -> None:
    token, own = enrolment(world), "x" * 43
    for _ in range(2):
        device, told = world.devices.join(token, Enrol("new-1", HARDWARE, token=own)).result(10)
        assert (device.id, told) == ("new-1", own)
    assert admitted(world.devices, "new-1", own)
    with pytest.raises(Unauthorized):
        world.devices.join(token, Enrol("new-1", HARDWARE, token="y" * 43)).result(10)
    with pytest.raises(Unauthorized):
        world.devices.join(token, Enrol("new-2", HARDWARE, token=own)).result(10)
    assert world.devices.identity.grants()[0].used == 1


def test_refusals_use_nothing_up(world: World) -> None:
    (known,) = world.enroll(1)
    token = enrolment(world, hardware_ids=[HARDWARE])
    with pytest.raises(Refused) as refused:
        join(world, token, known)
    assert refused.value.kind == "refused"
    with pytest.raises(Forbidden):
        join(world, token, hardware_id="imx8")
    with pytest.raises(InvalidInput):
        join(world, token, "no id")
    with pytest.raises(InvalidInput):
        join(world, token, "new-1", HARDWARE, **{"no key!": "x"})
    assert admitted(world.devices, known, world.tokens[known])
    assert join(world, token, hardware_id=None), "a token for one hardware id need not be told it"


def test_a_token_for_any_hardware_has_to_be_told_it(world: World) -> None:
    with pytest.raises(InvalidInput, match="has to say its hardware id"):
        join(world, enrolment(world), hardware_id=None)


def test_only_a_token_that_may_replaces_a_device_and_only_one_in_its_scope(world: World) -> None:
    (one,) = world.enroll(1)
    (other,) = world.enroll(1, tag="devel")
    token = enrolment(world, may_replace=True, uses=5)
    own = join(world, token, one)
    assert admitted(world.devices, one, own)
    assert not admitted(world.devices, one, world.tokens[one])
    with pytest.raises(Forbidden):
        join(world, token, other)
    assert admitted(world.devices, other, world.tokens[other])


def test_an_enrolment_token_ends_and_is_revoked_and_is_no_devices_token(world: World) -> None:
    token = enrolment(world, uses=9, until=world.now + DAY)
    join(world, token)
    assert not admitted(world.devices, "new-1", token)
    assert not admitted(world.devices, "new-1", GatewayToken(token))
    world.now += DAY
    with pytest.raises(Unauthorized):
        join(world, token, "new-2")
    fresh = enrolment(world)
    (_, grant) = world.devices.identity.grants()
    assert world.devices.identity.revoke(grant.name)
    assert not world.devices.identity.revoke(grant.name)
    with pytest.raises(Unauthorized):
        join(world, fresh, "new-2")
    with pytest.raises(Unauthorized):
        join(world, gateway(world, may_register=True, hardware_ids=[HARDWARE]), "new-2")


def test_however_many_come_together_a_token_makes_no_more_known_than_it_may(world: World) -> None:
    """Thirty devices at two processes' doors, half of them with an id that somebody else has just taken."""
    token = enrolment(world, uses=7)
    doors = [world.devices, world.another()]

    def come(number: int) -> str | None:
        try:
            device, _ = doors[number % 2].join(token, Enrol(f"new-{number % 15}", HARDWARE)).result(20)
        except (Unauthorized, Refused):
            return None
        return device.id

    with ThreadPoolExecutor(8) as pool:
        made = [each for each in pool.map(come, range(30)) if each]
    assert len(made) == len(set(made)) == 7
    (grant,) = world.devices.identity.grants()
    assert (grant.uses_left, grant.used) == (0, 7)
    doors[1].close()


# ------------------------------------------------------------------------------------------------- gateway tokens


def test_a_gateway_token_speaks_for_the_devices_in_its_scope(world: World) -> None:
    (inside,) = world.enroll(1, group="lab")
    (elsewhere,) = world.enroll(1, group="field")
    (other_board,) = world.enroll(1, group="lab", hardware_id="imx8")
    (other_tag,) = world.enroll(1, group="lab", tag="devel")
    token = GatewayToken(gateway(world, group="lab", hardware_ids=[HARDWARE]))
    assert admitted(world.devices, inside, token)
    for device in (elsewhere, other_board, other_tag, "nobody"):
        assert not admitted(world.devices, device, token)
    assert not admitted(world.devices, inside, Bearer(token.token))
    found = world.devices.check_in(inside, token, world.said(41))
    assert not isinstance(found, Future) or found.result(10).offer is None
    world.devices.register.set_group([inside], "field")
    world.now += 2 * SECOND
    assert not admitted(world.devices, inside, token)


def test_a_gateway_token_that_registers_makes_unknown_ids_known_up_to_its_bound(world: World) -> None:
    token = GatewayToken(
        gateway(world, hardware_ids=[HARDWARE, "imx8"], group="lab", labels={"a": "b"}, may_register=True, uses=2)
    )
    assert admitted(world.devices, "new-1", token) and admitted(world.devices, "new-1", token)
    assert admitted(world.devices, "new-2", token)
    assert not admitted(world.devices, "new-3", token) and not admitted(world.devices, "new-3", token)
    with world.store.reading() as r:
        row = r.device("new-1")
    assert row is not None and row.token_digest is None
    assert (row.device.hardware_id, row.device.group, row.device.labels) == (HARDWARE, "lab", {"a": "b"})
    assert not admitted(world.devices, "new-1", "")
    other = GatewayToken(gateway(world, hardware_ids=[HARDWARE], may_register=True))
    assert not admitted(world.devices, "no id", other) and admitted(world.devices, "new-3", other)


def test_a_gateway_token_without_a_bound_has_one(world: World) -> None:
    with world.store.writing() as w:  # as they were handed out once
        w.add_grant(
            Grant(
                name="gw-old",
                kind=GrantKind.GATEWAY,
                digest=digest_of("old"),
                tag=TAG,
                hardware_ids=(HARDWARE,),
                used=REGISTERED - 1,
                may_register=True,
                created_at=world.now,
                created_by="anna",
            )
        )
    gateway(world, hardware_ids=[HARDWARE], may_register=True)
    gateway(world, hardware_ids=[HARDWARE], may_register=True, uses=REGISTERED + 1)
    assert [each.left for each in world.devices.identity.grants()] == [1, REGISTERED, REGISTERED + 1]
    assert admitted(world.devices, "new-1", GatewayToken("old"))
    assert not admitted(world.devices, "new-2", GatewayToken("old"))


def test_a_gateway_token_that_does_not_register_makes_nobody_known(world: World) -> None:
    assert not admitted(world.devices, "new-1", GatewayToken(gateway(world)))


# ------------------------------------------------------------------------------------------------- certificates


def test_a_certificate_speaks_for_the_device_that_it_names(world: World) -> None:
    one, other = world.enroll(2)
    shown = certificate(world, one)
    assert admitted(world.devices, one, shown)
    assert not admitted(world.devices, other, shown)
    assert not admitted(world.devices, "nobody", certificate(world, "nobody"))
    found = world.devices.check_in(one, shown, world.said(41))
    assert not isinstance(found, Future) or found.result(10).offer is None
    world.now += DAY
    assert not admitted(world.devices, one, shown), "over, though the connection may be open still"


def test_certificates_are_revoked_by_device_serial_and_fingerprint(world: World) -> None:
    one, other, third = world.enroll(3)
    identity = world.devices.identity
    shown = {device: certificate(world, device, serial=f"{n}{n}") for n, device in enumerate((one, other, third), 1)}
    identity.revoke_certificates(RevokedKind.DEVICE, one, by="anna")
    identity.revoke_certificates(RevokedKind.SERIAL, "00:22", by="anna")
    identity.revoke_certificates(RevokedKind.FINGERPRINT, ":".join(["33"] * 32).upper(), by="anna")
    for device, each in shown.items():
        assert not admitted(world.devices, device, each)
    world.now += SECOND
    assert admitted(world.devices, one, certificate(world, one, not_before=world.now))
    identity.allow_certificates(RevokedKind.SERIAL, "22")
    assert admitted(world.devices, other, shown[other])
    with pytest.raises(NotFound):
        identity.allow_certificates(RevokedKind.SERIAL, "22")
    assert [each.value for each in identity.revoked_certificates()] == [one, "33" * 32]
    for kind, value in ((RevokedKind.SERIAL, "xyz"), (RevokedKind.FINGERPRINT, "ab"), (RevokedKind.DEVICE, "no id")):
        with pytest.raises(InvalidInput):
            identity.revoke_certificates(kind, value, by="anna")


# ------------------------------------------------------------------------------------------------- at once


def test_what_another_process_revokes_is_worth_nothing_within_a_second(world: World) -> None:
    (device,) = world.enroll(1)
    elsewhere = world.another()
    shown: list[Shown] = [
        GatewayToken(gateway(world)),
        certificate(world, device),
        Bearer(world.tokens[device]),
    ]
    assert all(admitted(elsewhere, device, each) for each in shown)
    (grant,) = world.devices.identity.grants()
    world.devices.identity.revoke(grant.name)
    world.devices.identity.revoke_certificates(RevokedKind.DEVICE, device, by="anna")
    world.devices.register.revoke(device)
    assert not any(admitted(world.devices, device, each) for each in shown), "here: from the next request on"
    world.now += SECOND
    assert not any(admitted(elsewhere, device, each) for each in shown), "there: a second later"
    elsewhere.close()


def test_without_the_store_the_picture_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(f"sqlite:///{tmp_path / 'wave.db'}")
    (device,) = world.enroll(1)
    token = GatewayToken(gateway(world))
    assert admitted(world.devices, device, token)
    world.store._engine._busy_after = 0.01
    world.now += 2 * SECOND
    look = world.devices.identity.look

    def gone() -> Any:
        raise Refused("gone")

    monkeypatch.setattr(world.store, "reading", gone)
    assert token.token and look(world.now).grants
    assert "could not be read" in caplog.text and token.token not in caplog.text
    monkeypatch.undo()
    world.close()


def test_a_retired_device_is_not_made_active_by_enrolling_it_again(world: World) -> None:
    (device,) = world.enroll(1)
    world.devices.set_status([device], DeviceStatus.RETIRED)
    join(world, enrolment(world, may_replace=True), device)
    with world.store.reading() as r:
        row = r.device(device)
    assert row is not None and row.device.status is DeviceStatus.RETIRED


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        (GrantKind.ENROLMENT, {}),
        (GrantKind.ENROLMENT, {"tag": "no tag"}),
        (GrantKind.ENROLMENT, {"tag": TAG, "hardware_ids": ["no hw"]}),
        (GrantKind.ENROLMENT, {"tag": TAG, "labels": {"no key!": "x"}}),
        (GrantKind.ENROLMENT, {"tag": TAG, "uses": 0}),
        (GrantKind.ENROLMENT, {"tag": TAG, "until": "now"}),
        (GrantKind.GATEWAY, {}),
        (GrantKind.GATEWAY, {"tag": TAG, "may_replace": True}),
        (GrantKind.GATEWAY, {"tag": TAG, "labels": {"a": "b"}}),
        (GrantKind.GATEWAY, {"tag": TAG, "may_register": True}),
        (GrantKind.GATEWAY, {"hardware_ids": [HARDWARE], "may_register": True}),
    ],
)
def test_a_scope_that_says_nothing_or_cannot_be_is_refused(kind: GrantKind, scope: dict[str, Any]) -> None:
    world = World()
    if scope.get("until") == "now":
        scope = {**scope, "until": world.now}
    with pytest.raises(InvalidInput):
        world.devices.identity.add(kind, by="anna", **scope)
    world.close()
