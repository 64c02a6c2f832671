"""Roots, keys and signatures, as a device judges them: every body is read by a verifier that shares nothing with what
signs."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.core.editions import Lifetimes
from orchestrator.core.tuf import ONLINE, Role, read_root
from orchestrator.errors import InvalidInput, NotFound, Refused, Unavailable
from orchestrator.services.tuf import Tuf
from tests.gateway.aktualizr.client import Client, monotone
from tests.gateway.aktualizr.house import House, software
from tests.gateway.aktualizr.verifier import Rejected, check_signed, parsed, written
from tests.services.fleet_world import START, World

DAY = timedelta(days=1)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def house(world: World, tmp_path: Path) -> House:
    return House(tmp_path / "tuf", world)


def a_client(house: House) -> Client:
    (device,) = house.world.fleet(1)
    return house.client(device)


def pem(folder: Path, name: str, key: Any, *, mode: int = 0o600) -> Path:
    file = folder / name
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(mode)
    return file


def test_the_first_root_and_what_lies_where(house: House) -> None:
    view = house.tuf.init()
    assert [root.version for root in view.roots] == [1]
    assert view.root_key and view.problem is None
    keys = house.folder / "keys"
    for name in ("root", "timestamp", "snapshot", "targets"):
        assert stat.S_IMODE((keys / f"{name}.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    root = parsed((house.folder / "1.root.json").read_bytes(), "Root")
    check_signed(root, root, "root")
    assert set(root["signed"]["roles"]) == {"root", "timestamp", "snapshot", "targets"}
    assert {key["keytype"] for key in root["signed"]["keys"].values()} == {"ED25519"}
    assert len(root["signed"]["keys"]) == 4
    with pytest.raises(Refused, match="already"):
        house.tuf.init()


def test_what_is_served_is_the_canonical_json_itself(house: House) -> None:
    house.tuf.init()
    client = a_client(house)
    client.check()
    base = f"/d/{client.device}/{house.world.tokens[client.device]}"
    for name in ("1.root.json", "timestamp.json", "snapshot.json", "targets.json"):
        answer = house.ask("GET", f"{base}/repo/{name}", client.headers)
        assert answer.headers["content-type"] == "application/json"
        assert written(json.loads(answer.content)).encode() == answer.content
    targets = house.ask("GET", f"{base}/repo/targets.json", client.headers).json()["signed"]["targets"]
    assert targets == {
        "rpi4-41": {
            "custom": {
                "hardwareIds": ["rpi4"],
                "name": "rpi4",
                "tags": ["promoted"],
                "targetFormat": "OSTREE",
                "uri": "",
                "version": "41",
            },
            "hashes": {"sha256": software(41).commit},
            "length": 0,
        }
    }


def test_new_online_keys_are_followed_and_old_ones_sign_nothing(house: House) -> None:
    house.tuf.init()
    client = a_client(house)
    client.check()
    before = client.repository.timestamp
    house.tuf.rotate()
    client.check()
    assert client.repository.root is not None and client.repository.root["signed"]["version"] == 2
    assert before is not None and client.repository.timestamp is not None
    assert before["signatures"][0]["keyid"] != client.repository.timestamp["signatures"][0]["keyid"]
    with pytest.raises(Rejected, match="good signatures"):
        check_signed(before, client.repository.root, "timestamp")
    newcomer = house.client(client.device)
    newcomer.check()  # from the first root through the chain
    assert newcomer.repository.root == client.repository.root
    monotone(client)


def test_the_root_key_is_kept_elsewhere_and_given_when_it_is_needed(house: House, tmp_path: Path) -> None:
    away = pem(tmp_path, "root.pem", ed25519.Ed25519PrivateKey.generate())
    view = house.tuf.init(root_key=away)
    assert not view.root_key and not (house.folder / "keys" / "root.key").exists()
    client = a_client(house)
    client.check()
    with pytest.raises(Refused, match="takes 1 of its keys"):
        house.tuf.rotate()
    with pytest.raises(Refused, match="takes 1 of its keys"):
        house.tuf.rotate(root_keys=[pem(tmp_path, "other.pem", ed25519.Ed25519PrivateKey.generate())])
    with pytest.raises(NotFound):
        house.tuf.rotate(root_keys=[tmp_path / "nowhere.pem"])
    fresh = pem(tmp_path, "fresh.pem", rsa.generate_private_key(65537, 2048))
    assert house.tuf.rotate(root_keys=[away], new_root_key=fresh, same_keys=True).roots[0].version == 2
    client.check()
    with pytest.raises(Refused):
        house.tuf.rotate(root_keys=[away])
    assert house.tuf.rotate(root_keys=[fresh]).roots[0].version == 3
    client.check()
    house.client(client.device).check()


def test_a_repository_that_devices_trust_is_taken_over(house: House, tmp_path: Path) -> None:
    """Another server had two roots, the second with two root keys of which both sign; one is RSA."""
    world = house.world
    one, two = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    others = House(tmp_path / "others", world)
    others.tuf.init(root_key=pem(tmp_path, "one.pem", one))
    client = a_client(others)
    client.check()
    second = _with_two_keys((others.folder / "1.root.json").read_bytes(), one, two)
    first = (others.folder / "1.root.json").read_bytes()
    with pytest.raises(Refused, match="takes 2 of its keys"):
        house.tuf.take_over([first, second], root_keys=[tmp_path / "one.pem"])
    assert not house.folder.exists() or not list(house.folder.glob("*.root.json"))
    json_key = tmp_path / "one.sec"
    seed = one.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex()
    public = one.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    json_key.write_text(json.dumps({"keytype": "ED25519", "keyval": {"private": seed + public, "public": public}}))
    json_key.chmod(0o600)
    view = house.tuf.take_over([second, first], root_keys=[json_key, pem(tmp_path, "two.pem", two)])
    assert [root.version for root in view.roots] == [3, 2, 1]
    assert view.roots[0].threshold == 2 and len(view.roots[0].root_keys) == 2
    moved = house.client(client.device)
    moved.repository = client.repository
    moved.repository.get = moved._get
    moved.check()
    assert moved.repository.root is not None and moved.repository.root["signed"]["version"] == 3


def _with_two_keys(first: bytes, one: Any, two: Any) -> bytes:
    from orchestrator.adapters.tuf.keys import PrivateKey
    from orchestrator.core.tuf import canonical, envelope, root_document, signature

    root = read_root(first)
    signers = [PrivateKey(one), PrivateKey(two)]
    keys = {Role.ROOT: [each.key for each in signers], **{role: root.public_keys(role) for role in ONLINE}}
    document = root_document(version=2, expires_at=START + 99 * DAY, keys=keys, root_threshold=2)
    return envelope(document, [signature(each.key, each.sign(canonical(document))) for each in signers])


def test_roots_that_are_no_chain_are_not_taken_over(house: House, tmp_path: Path) -> None:
    others = House(tmp_path / "others", house.world)
    others.tuf.init()
    others.tuf.rotate()
    others.tuf.rotate()
    one, two, three = ((others.folder / f"{number}.root.json").read_bytes() for number in (1, 2, 3))
    key = [others.folder / "keys" / "root.key"]
    for files, why in [
        ([one, three], "Root 2 is missing"),
        ([one, two.replace(b'"version":2', b'"version":2 ').replace(b"ED25519", b"ED25519", 1)[:-1], three], "no root"),
        ([b"{}"], "no root"),
        ([], "no root to take over"),
        ([_changed(one)], "not signed by its own keys"),
        ([one, _changed(two)], "not signed by the keys of root 1"),
    ]:
        with pytest.raises(InvalidInput, match=why):
            house.tuf.take_over(files, root_keys=key)
    assert house.tuf.take_over([one, two, three], root_keys=key).roots[0].version == 4


def _changed(root: bytes) -> bytes:
    document = json.loads(root)
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    return json.dumps(document).encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_not_used(house: House, tmp_path: Path, mode: int) -> None:
    house.tuf.init()
    client = a_client(house)
    client.check()
    key = house.folder / "keys" / "timestamp.key"
    key.chmod(mode)
    house.begin()  # as after a restart
    answer = house.ask("GET", f"/d/{client.device}/{house.world.tokens[client.device]}/repo/timestamp.json")
    assert answer.status_code == 503 and "chmod" not in answer.text
    assert "chmod 600" in str(house.tuf_again().show().problem)
    given = pem(tmp_path, "root.pem", ed25519.Ed25519PrivateKey.generate(), mode=mode)
    with pytest.raises(Refused, match="can be read by others"):
        Tuf(TufFolder(tmp_path / "new"), house.world.clock).init(root_key=given)


def test_keys_of_other_kinds_are_refused(house: House, tmp_path: Path) -> None:
    for name, key in [
        ("curve.pem", ec.generate_private_key(ec.SECP256R1())),
        ("short.pem", rsa.generate_private_key(65537, 1024)),
    ]:
        with pytest.raises(InvalidInput):
            house.tuf.init(root_key=pem(tmp_path, name, key))
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("{not a key")
    nonsense.chmod(0o600)
    with pytest.raises(InvalidInput, match="no private key"):
        house.tuf.init(root_key=nonsense)


def test_the_wrong_online_keys_are_told_and_serve_nobody(house: House, tmp_path: Path) -> None:
    house.tuf.init()
    Tuf(TufFolder(tmp_path / "other"), house.world.clock).init()
    shutil.copy(tmp_path / "other" / "keys" / "targets.key", house.folder / "keys" / "targets.key")
    with pytest.raises(Unavailable, match="not those that root 1 names"):
        house.tuf_again().mint()


def test_a_key_that_is_written_over_in_place_is_noticed_at_once(house: House, tmp_path: Path) -> None:
    """As an editor, or a shell's `>`, does: the directory does not change by it."""
    house.tuf.init()
    client = a_client(house)
    client.check()
    file = house.folder / "keys" / "timestamp.key"
    good = file.read_bytes()
    other = pem(tmp_path, "other.pem", ed25519.Ed25519PrivateKey.generate()).read_bytes()
    assert len(other) == len(good)
    file.write_bytes(other)
    base = f"/d/{client.device}/{house.world.tokens[client.device]}"
    assert house.ask("GET", f"{base}/repo/timestamp.json", client.headers).status_code == 503
    assert "not those that root 1 names" in (house.tuf.show().problem or "")
    file.write_bytes(good)
    client.check()
    file.chmod(0o644)
    assert "can be read by others" in (house.tuf.show().problem or "")


def test_a_kill_between_a_new_root_and_its_keys_is_mended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.tuf.init()
    client = a_client(house)
    client.check()

    def dies(self: TufFolder) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TufFolder, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            house.tuf.rotate()
    house.begin()
    client.check()
    assert client.repository.root is not None and client.repository.root["signed"]["version"] == 2


def test_signatures_are_renewed_before_they_end_and_the_device_never_sees_one_that_is_over(
    world: World, tmp_path: Path
) -> None:
    """Two years, a poll a day: the timestamp lives a week, the targets sixty days, the root is renewed once a year."""
    house = House(tmp_path / "tuf", world, Lifetimes(timestamp=7 * DAY, targets=60 * DAY))
    house.tuf.init()
    client = a_client(house)
    for day in range(730):
        if day % 300 == 299:
            house.tuf.rotate(same_keys=True)
        client.check()
        world.now += DAY
    monotone(client)
    ends = [versions for versions in client.seen_versions if versions != (0, 0, 0)]
    assert ends[-1][2] > 20  # new editions of the same content
    assert len({versions[0] for versions in ends}) > 150


def test_after_an_old_database_is_restored_a_new_root_lets_devices_begin_anew(house: House) -> None:
    house.tuf.init()
    client = a_client(house)
    for version in (42, 43):
        house.world.target(version)
        client.runs = software(version)
        client.check()
    with house.world.store.writing() as w:
        w.link.run("DELETE FROM shown_edition")
        w.link.run("DELETE FROM edition")
    house.begin()
    with pytest.raises(Rejected, match="rollback attempt"):
        client.check()
    house.tuf.rotate(same_keys=True)
    client.check()
    assert client.seen_versions[-1][2] == 1
    monotone(client)


def test_the_clock_may_jump_and_versions_only_rise(world: World, tmp_path: Path) -> None:
    house = House(tmp_path / "tuf", world, Lifetimes(timestamp=7 * DAY, targets=60 * DAY))
    house.tuf.init()
    client = a_client(house)
    for jump in (0, 400, -399, -300, 5, 900, -900):
        world.now += jump * DAY
        try:
            client.check()
        except Rejected as rejected:
            assert "root: expired" in str(rejected)  # noqa: PT017 - the device's own clock jumps along
    monotone(client)
