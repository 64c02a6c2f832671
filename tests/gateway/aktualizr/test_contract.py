"""Byte for byte: the requests as aktualizr-lite was seen to send them, over a connection, and the whole answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orchestrator.gateway.aktualizr.treehub import Treehub
from orchestrator.gateway.files import FileServer
from orchestrator.gateway.server import Server
from tests.gateway.aktualizr.house import House
from tests.services.fleet_world import World, commit_of

HEADERS = (
    "Host: 127.0.0.1\r\n"
    "User-Agent: Aktualizr/2023.08+fio\r\n"
    "Accept: */*\r\n"
    "x-ats-dockerapps: \r\n"
    f"x-ats-ostreehash: {commit_of(41)}\r\n"
    "x-ats-tags: promoted\r\n"
    "x-ats-target: rpi4-41\r\n"
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    world = World()
    house = House(tmp_path / "tuf", world)
    keys = tmp_path / "keys"
    keys.mkdir()
    for number, role in enumerate(("root", "timestamp", "snapshot", "targets"), 1):
        file = keys / f"{role}.key"
        private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.chmod(0o600)
    house.tuf.init(keys=keys)
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config").write_text("[core]\nrepo_version=1\nmode=archive-z2\n")
    port: Future[int] = Future()
    server = Server(
        Treehub(house.gateway, FileServer(tmp_path / "repo")), port=0, signals=False, started=port.set_result
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    house.port = port.result(10)
    yield house
    server.stop()
    thread.join(15)
    world.close()


def exchange(house: House, device: str, request: str, body: str = "") -> tuple[str, dict[str, str], str]:
    """One request over one connection; the status line, the headers but the date, and the body."""
    base = f"/d/{device}/{house.world.tokens[device]}"
    method, _, rest = request.partition(" ")
    path, _, more = rest.partition("\r\n")
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    raw = f"{method} {base}{path} HTTP/1.1\r\n{HEADERS}{more}{length}Connection: close\r\n\r\n{body}"
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as connection:
        connection.sendall(raw.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, _, content = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    headers.pop("date")
    assert headers.pop("connection") == "close"
    assert headers.pop("content-length") == str(len(content.encode()))
    return status, headers, content


OK = "HTTP/1.1 200 OK"
JSON = {"content-type": "application/json", "cache-control": "no-store"}

POLL = [
    (
        "/repo/1.root.json",
        '{"signatures":[{"keyid":"fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2"'
        ',"method":"ed25519","sig":"2jQpdvYOppUlE+tklMzdZNl+PelVxWRt8hwNo68qnvipA5upjtiCA1G/zR3405B'
        'FnVmIe06BbDvZyKvaK/QpBQ=="}],"signed":{"_type":"Root","consistent_snapshot":false,"expires'
        '":"2027-11-02T09:00:00Z","keys":{"47dea58ea00fae9417ee19d76755bfef690899021132effb04fe1f9e'
        '4f0c8059":{"keytype":"ED25519","keyval":{"public":"8139770ea87d175f56a35466c34c7ecccb8d8a9'
        '1b4ee37a25df60f5b8fc9b394"}},"8cef065b7af83669150b7d32704d3d3e75c3e9aee0d4f6740544c68e81b3'
        '77aa":{"keytype":"ED25519","keyval":{"public":"ed4928c628d1c2c6eae90338905995612959273a5c6'
        '3f93636c14614ac8737d1"}},"d016df3d83373617c06b5e1d6359caa06eeba8b3af2c7077234f109f2194516c'
        '":{"keytype":"ED25519","keyval":{"public":"ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7'
        '726879333dbdabe7c"}},"fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2":{"'
        'keytype":"ED25519","keyval":{"public":"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf37'
        '48801b40f6f5c"}}},"roles":{"root":{"keyids":["fd110d301d2f077de1414b8f99f441b1403fab207b20'
        '52fbd2c065e4ee8e7dc2"],"threshold":1},"snapshot":{"keyids":["8cef065b7af83669150b7d32704d3'
        'd3e75c3e9aee0d4f6740544c68e81b377aa"],"threshold":1},"targets":{"keyids":["d016df3d8337361'
        '7c06b5e1d6359caa06eeba8b3af2c7077234f109f2194516c"],"threshold":1},"timestamp":{"keyids":['
        '"47dea58ea00fae9417ee19d76755bfef690899021132effb04fe1f9e4f0c8059"],"threshold":1}},"versi'
        'on":1}}',
    ),
    (
        "/repo/timestamp.json",
        '{"signatures":[{"keyid":"47dea58ea00fae9417ee19d76755bfef690899021132effb04fe1f9e4f0c8059"'
        ',"method":"ed25519","sig":"pbW+8GDYQBh5/Nb1CPJrCoWbwJzJ2AxR7oDYr04XgpDtiIvYLqR0bjWE6SdFln5'
        '0SVAtFQzJoh7TCoiUd5RkBA=="}],"signed":{"_type":"Timestamp","expires":"2026-11-09T09:00:00Z'
        '","meta":{"snapshot.json":{"hashes":{"sha256":"79dc99c4283fc5e67c9103a76200a105e96c7798e2d'
        '668dcf1e8599959d68e26"},"length":448,"version":1}},"version":1000}}',
    ),
    (
        "/repo/snapshot.json",
        '{"signatures":[{"keyid":"8cef065b7af83669150b7d32704d3d3e75c3e9aee0d4f6740544c68e81b377aa"'
        ',"method":"ed25519","sig":"zBxomjfXGu1MZmiDUmKPf54M1K2UyXnYwbIIim9tHqh6ZR/Cm0olKhfymV9racb'
        'Zvwy99zIGuwoB+Q7ROpDOAw=="}],"signed":{"_type":"Snapshot","expires":"2027-11-02T09:00:00Z"'
        ',"meta":{"root.json":{"version":1},"targets.json":{"hashes":{"sha256":"1574377af9a7eec69e3'
        '42a5e2bb68d438a408fe6c0d2c037d0552a087a94c6a9"},"length":521,"version":1}},"version":1}}',
    ),
    (
        "/repo/targets.json",
        '{"signatures":[{"keyid":"d016df3d83373617c06b5e1d6359caa06eeba8b3af2c7077234f109f2194516c"'
        ',"method":"ed25519","sig":"zKGjIfC1zQgbMHIqQtM/93aS97Oiw5h50YAHdXiXRqnn6MFcGo+SsYmHNucSNX9'
        '/AnujzX+kYkzEeMjXHw96DA=="}],"signed":{"_type":"Targets","expires":"2027-11-02T09:00:00Z",'
        '"targets":{"rpi4-41":{"custom":{"hardwareIds":["rpi4"],"name":"rpi4","tags":["promoted"],"'
        'targetFormat":"OSTREE","uri":"","version":"41"},"hashes":{"sha256":"0000000000000000000000'
        '000000000000000000000000000000727069340041"},"length":0}},"version":1}}',
    ),
]


def test_a_poll_of_a_device_that_is_up_to_date(house: House) -> None:
    (device,) = house.world.fleet(1)
    for path, body in POLL:
        assert exchange(house, device, f"GET {path}") == (OK, JSON, body), path
    status, headers, _ = exchange(house, device, "GET /repo/2.root.json")
    assert (status, headers["content-type"]) == ("HTTP/1.1 404 Not Found", "application/json")


EVENTS = (
    '[{"deviceTime":"2026-11-02T09:00:05Z","event":{"correlationId":"42-6b0d1f1c-0000-4000-8000-000000000001",'
    '"details":"Updating from rpi4-41 to rpi4-42","ecu":"serial-1","targetName":"rpi4-42","version":"42"},'
    '"eventType":{"id":"EcuDownloadStarted","version":0},"id":"6b0d0000-0000-4000-8000-000000000001"},'
    '{"deviceTime":"2026-11-02T09:00:07Z","event":{"correlationId":"","details":"Insufficient storage available;'
    ' (cached status)","ecu":"serial-1","success":false,"targetName":"rpi4-42","version":"42"},'
    '"eventType":{"id":"EcuDownloadCompleted","version":0},"id":"6b0d0000-0000-4000-8000-000000000002"}]'
)
OTHER_CLIENT = (
    '[{"id":"7c","deviceTime":"2026-11-02T09:00:09Z","eventType":{"id":"UpdateInitStarted","version":2},'
    '"event":{"correlationId":"c","targetName":"rpi4-42","version":"42","success":null,"details":""}},'
    '{"id":"7d","deviceTime":"2026-11-02T09:00:09Z","eventType":{"id":"EcuInstallationStarted","version":2},'
    '"event":{"correlationId":"c","targetName":"rpi4-42","version":"42","success":null,"details":""}},'
    '{"id":"7e","deviceTime":"2026-11-02T09:00:10Z","eventType":{"id":"EcuInstallationCompleted","version":2},'
    '"event":{"correlationId":"c","targetName":"rpi4-42","version":"42","success":null,"details":""}}]'
)


def test_what_a_device_tells(house: House) -> None:
    (device,) = house.world.fleet(1)
    house.world.apply()
    exchange(house, device, "GET /repo/timestamp.json")
    json = "Content-Type: application/json\r\n"
    for method, path, headers, body in [
        ("POST", "/events", json, EVENTS),
        ("POST", "/events", json, EVENTS),
        ("POST", "/events", json, OTHER_CLIENT),
        ("PUT", "/system_info", json, '{"id":"board","class":"system"}'),
        ("PUT", "/system_info/network", json, '{"hostname":"b1","local_ipv4":"10.0.0.2","mac":"00:01:02:03:04:05"}'),
        ("PUT", "/system_info/config", "Content-Type: application/toml\r\n", '[pacman]\ntype = "ostree"\n'),
        ("POST", "/apps-states", json, '{"deviceTime":"2026-11-02T09:00:00Z","ostree":"","apps":{}}'),
    ]:
        assert exchange(house, device, f"{method} {path}\r\n{headers}", body) == (OK, JSON, "{}"), path
    assert house.world.status(device) == "installing"
    with house.world.store.reading() as r:
        found = sorted((event.kind, event.code) for event in r.events(device=device))
    assert found == [
        ("download_failed", "no_space"),
        ("downloading", None),
        ("ecu_installation_completed", None),
        ("installing", None),
        ("update_init_started", None),
    ]


def test_the_other_paths(house: House) -> None:
    (device,) = house.world.fleet(1)
    assert exchange(house, device, "GET /device") == (OK, JSON, '{"Name":"dev-0001"}')
    status, _, _ = exchange(house, device, "POST /treehub/download-urls\r\nContent-Type: application/json\r\n", "{}")
    assert status == "HTTP/1.1 404 Not Found"
    for path in ("/treehub/config", "/ostree/config"):
        status, headers, body = exchange(house, device, f"GET {path}")
        assert (status, headers["content-type"]) == (OK, "application/octet-stream")
        assert body == "[core]\nrepo_version=1\nmode=archive-z2\n"
    for path in ("/treehub/summary.sig", "/treehub/../wave.yaml", "/treehub/objects/aa/../../../x"):
        assert exchange(house, device, f"GET {path}")[0] == "HTTP/1.1 404 Not Found"


@pytest.mark.parametrize("body", ["", "[", "{}", '"x"', "[" * 100_000, "null"])
def test_what_is_no_list_of_events_is_refused(house: House, body: str) -> None:
    (device,) = house.world.fleet(1)
    status, headers, _ = exchange(house, device, "POST /events\r\n", body or " ")
    assert (status, headers["content-type"]) == ("HTTP/1.1 400 Bad Request", "application/json")


def test_too_much_at_once_is_413_so_that_the_client_halves_it(house: House) -> None:
    (device,) = house.world.fleet(1)
    base = f"/d/{device}/{house.world.tokens[device]}"
    assert house.ask("POST", f"{base}/events", None, b"[" + b" " * 300_000 + b"]").status_code == 413
    many = f"[{','.join([EVENTS[1:-1]] * 60)}]"
    assert house.ask("POST", f"{base}/events", None, many.encode()).status_code == 413


def test_a_log_that_is_no_utf_8_holds_up_nothing_that_comes_after_it(house: House) -> None:
    (device,) = house.world.fleet(1)
    house.world.apply()
    base = f"/d/{device}/{house.world.tokens[device]}"
    exchange(house, device, "GET /repo/timestamp.json")
    broken = EVENTS.encode().replace(b'"details":"', b'"details":"\xff', 1)
    assert broken != EVENTS.encode()
    assert house.ask("POST", f"{base}/events", None, broken).status_code == 200
    assert house.world.status(device) == "downloading"


def test_items_that_are_no_events_are_passed_over(house: House) -> None:
    (device,) = house.world.fleet(1)
    house.world.apply()
    exchange(house, device, "GET /repo/timestamp.json")
    junk = '[1,null,{},{"id":7},{"id":"","eventType":{"id":"EcuDownloadStarted"},"event":{}},'
    good = EVENTS[1:-1]
    assert exchange(house, device, "POST /events\r\n", f"{junk}{good}]") == (OK, JSON, "{}")
    assert house.world.status(device) == "downloading"
