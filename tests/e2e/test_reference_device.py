"""The reference device against a stub of the server's protocol and the real file server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from examples.device import Device
from examples.device_fetch import read_superblock
from orchestrator.adapters.ostree import OstreeProvider, OstreeSettings
from orchestrator.adapters.ostree.superblock import parse
from orchestrator.gateway.files import FileSent, FileServer
from tests.adapters.ostree_trees import BIG_FILE_BYTES, Versions, make_versions, ostree
from tests.loopback import serving

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.timeout(120)]

PROGRAM = Path(__file__).parents[2] / "examples" / "device.py"


class Stub:
    """Offers ``target`` to whoever runs something else, with the delta from what it runs if there is one."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.provider = OstreeProvider(OstreeSettings(versions.repo))
        self.files = FileServer(versions.repo, on_sent=lambda sent: self.sent.append(sent))
        self.sent: list[FileSent] = []
        self.check_ins: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.target: int | None = None
        self.refuse_reports = 0
        self.hold_path: str | None = None
        self.held = threading.Event()
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.files(scope, receive, send)
        elif scope["path"].startswith("/repo/"):
            await self.files({**scope, "root_path": "/repo"}, receive, self._holding(scope["path"], send))
        else:
            body = b""
            while (message := await receive()).get("more_body"):
                body += message["body"]
            body += message["body"]
            assert dict(scope["headers"])[b"authorization"] == b"Bearer secret"
            status, answer = self.answer(scope["path"], json.loads(body))
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _holding(self, path: str, send: Any) -> Any:
        """Lets the first chunk of ``hold_path`` out and then nothing more until the device is gone."""
        pieces = 0

        async def held(message: Any) -> None:
            nonlocal pieces
            await send(message)
            pieces += message["type"] == "http.response.body"
            if pieces == 1 and path == self.hold_path:
                self.held.set()
                await asyncio.sleep(3600)

        return held

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("/reports"):
            if self.refuse_reports:
                self.refuse_reports -= 1
                return 503, {"kind": "busy"}
            self.events += body["events"]
            return 200, {}
        self.check_ins.append(body)
        offer = None
        if self.target is not None and body["commit"] != self.versions.commits[self.target]:
            numbers = {commit: number for number, commit in self.versions.commits.items()}
            pair = self.versions.pair(numbers.get(body["commit"]), self.target)
            found = self.provider.find(pair) if pair.from_commit else None
            delta = None if found is None else {"from": pair.from_commit, "path": found.path, "bytes": found.bytes}
            target = {"name": f"os-{self.target}", "version": self.target, "commit": pair.to_commit}
            offer = {"rollout": "r1", "target": target, "repository": f"{self.url}/repo", "delta": delta}
        return 200, {"offer": offer, "check_in_after": 5}

    def story(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    versions = make_versions(tmp_path_factory.mktemp("os"))
    provider = OstreeProvider(OstreeSettings(versions.repo))
    for pair in (versions.pair(1, 2), versions.pair(2, 3), versions.pair(3, 4)):
        provider.build(pair, progress=lambda _: None, cancelled=lambda: False)
    return versions


@pytest.fixture
def stub(versions: Versions) -> Iterator[Stub]:
    stub = Stub(versions)
    with serving(stub) as stub.url:
        yield stub


def make_device(stub: Stub, root: Path, *, version: int | None = None, **settings: Any) -> Device:
    device = Device(stub.url, "dev-1", "secret", root, **{"retry_seconds": 0.01, **settings})
    if version is not None:
        device.provision(f"{stub.url}/repo", stub.versions.commits[version], version)
        device.requests = device.bytes = 0
        stub.sent.clear()
    return device


def running(root: Path) -> str:
    return (root / "current/usr/lib/os-release").read_text().strip()


def test_updates_by_delta_and_fetches_nothing_else(stub: Stub, tmp_path: Path) -> None:
    device = make_device(stub, tmp_path, version=1)
    stub.target = 2
    assert device.step() == 5
    assert running(tmp_path) == "VERSION_ID=2"
    assert stub.story() == ["downloading", "installing", "applied"]
    assert [check_in["version"] for check_in in stub.check_ins] == [1, 2]
    record = stub.provider.find(stub.versions.pair(1, 2))
    assert record is not None
    assert device.bytes == record.bytes == sum(sent.bytes for sent in stub.sent)
    assert device.requests == len(stub.sent) == 1 + record.parts
    assert len({event["id"] for event in stub.events}) == 3
    ostree(device.repo, "fsck")


def test_fetches_fallback_objects_beside_the_delta(stub: Stub, tmp_path: Path) -> None:
    device = make_device(stub, tmp_path, version=2)
    stub.target = 3
    device.step()
    record = stub.provider.find(stub.versions.pair(2, 3))
    assert record is not None
    assert record.fallbacks == 1
    assert record.fallback_bytes > BIG_FILE_BYTES
    assert device.bytes == record.bytes + record.fallback_bytes == sum(sent.bytes for sent in stub.sent)
    assert (tmp_path / "current/usr/lib/big").stat().st_size == BIG_FILE_BYTES
    ostree(device.repo, "fsck")


def test_without_a_delta_pulls_the_commit_whole(stub: Stub, tmp_path: Path) -> None:
    device = make_device(stub, tmp_path, version=1)
    stub.target = 3
    device.step()
    assert running(tmp_path) == "VERSION_ID=3"
    assert device.bytes > BIG_FILE_BYTES
    assert not [sent for sent in stub.sent if sent.path.startswith("deltas/")]


def test_a_new_device_is_installed_whole(stub: Stub, tmp_path: Path) -> None:
    stub.target = 1
    make_device(stub, tmp_path).step()
    assert running(tmp_path) == "VERSION_ID=1"
    assert [check_in["commit"] for check_in in stub.check_ins] == [None, stub.versions.commits[1]]


def test_goes_back_when_the_new_version_is_unhealthy(stub: Stub, tmp_path: Path) -> None:
    device = make_device(stub, tmp_path, version=3)
    stub.target = 4
    device.step()
    assert running(tmp_path) == "VERSION_ID=3"
    assert stub.story() == ["downloading", "installing", "applied", "rolled_back"]
    assert stub.events[-1]["code"] == "unhealthy"
    assert [check_in["version"] for check_in in stub.check_ins] == [3, 3]


def test_a_health_check_that_hangs_counts_as_unhealthy(stub: Stub, tmp_path: Path) -> None:
    device = make_device(stub, tmp_path, version=1, health=["sleep", "60"], health_seconds=0.2)
    stub.target = 2
    device.step()
    assert stub.story()[-1] == "rolled_back"
    assert "did not end" in stub.events[-1]["message"]


def test_reports_are_kept_with_their_ids_until_they_are_taken(stub: Stub, tmp_path: Path) -> None:
    device = make_device(stub, tmp_path, version=1)
    stub.target = 2
    stub.refuse_reports = 100
    device.step()
    assert stub.check_ins[-1]["version"] == 2
    stub.refuse_reports = 0
    kept = [event["id"] for event in device.state["events"]]
    assert stub.events == []
    assert len(kept) == 3
    device.close()
    again = make_device(stub, tmp_path)
    again.step()
    assert [event["id"] for event in stub.events] == kept
    assert again.state["events"] == []


def test_a_delta_that_is_gone_is_reported_and_nothing_changes(stub: Stub, tmp_path: Path, monkeypatch: Any) -> None:
    device = make_device(stub, tmp_path, version=1)
    monkeypatch.setattr(FileServer, "_answer", lambda self, scope, response: response.short(HTTPStatus.NOT_FOUND))
    stub.target = 2
    device.step()
    assert stub.story() == ["downloading", "download_failed"]
    assert stub.events[-1]["code"] == "http_404"
    assert running(tmp_path) == "VERSION_ID=1"


def test_killed_in_mid_download_it_goes_on_where_it_was(stub: Stub, tmp_path: Path) -> None:
    make_device(stub, tmp_path / "root", version=2).close()
    (tmp_path / "token").write_text("secret\n")
    stub.target = 3
    record = stub.provider.find(stub.versions.pair(2, 3))
    assert record is not None
    superblock = parse((stub.versions.repo / record.path / "superblock").read_bytes())
    stub.hold_path = f"/repo/{superblock.fallbacks[0].path}"
    command = [sys.executable, str(PROGRAM), "--server", stub.url, "--id", "dev-1", "--once"]
    command += ["--token-file", str(tmp_path / "token"), "--root", str(tmp_path / "root")]
    device = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    assert stub.held.wait(30)
    partial = (
        tmp_path / "root/download" / stub.versions.commits[3] / "extra" / f"{superblock.fallbacks[0].path}.partial"
    )
    while not partial.exists() or partial.stat().st_size < 64 * 1024:
        assert device.poll() is None
    os.killpg(device.pid, signal.SIGKILL)
    device.wait(10)
    assert running(tmp_path / "root") == "VERSION_ID=2"
    stub.hold_path = None
    done = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    assert running(tmp_path / "root") == "VERSION_ID=3"
    assert stub.story() == ["downloading", "installing", "applied"]
    again = [sent for sent in stub.sent if sent.path == superblock.fallbacks[0].path and sent.status == 206]
    assert len(again) == 1
    assert again[0].bytes < superblock.fallbacks[0].size
    assert "2 requests" in done.stdout  # superblock and the rest of the object: the part was there


def test_a_damaged_fallback_object_is_not_installed_nor_kept(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make_device(stub, tmp_path, version=2)
    whole = Device._get

    def damaged(self: Device, url: str, partial: Path) -> None:
        whole(self, url, partial)
        if "/objects/" in url:
            content = bytearray(partial.read_bytes())
            content[len(content) // 2] ^= 1
            partial.write_bytes(content)

    stub.target = 3
    with monkeypatch.context() as patch:
        patch.setattr(Device, "_get", damaged)
        device.step()
    assert stub.story() == ["downloading", "verify_failed"]
    assert running(tmp_path) == "VERSION_ID=2"
    device.step()
    assert running(tmp_path) == "VERSION_ID=3"
    ostree(device.repo, "fsck")


@pytest.mark.parametrize("moment", ["_install", "_switch", "_boot", "_tidy"])
def test_killed_at_any_later_moment_it_ends_the_same(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        pass

    device = make_device(stub, tmp_path, version=1)
    stub.target = 2
    calls = 0

    def kill(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if moment != "_boot" or calls == 2:  # the first is the start before the update
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(device, moment, kill)
        with pytest.raises(Killed):
            device.step()
    device.close()
    again = make_device(stub, tmp_path)
    again.step()
    assert running(tmp_path) == "VERSION_ID=2"
    assert stub.story() == ["downloading", "installing", "applied"]
    assert stub.check_ins[-1]["version"] == 2


def test_both_readers_of_superblocks_agree(versions: Versions) -> None:
    for path in (versions.repo / "deltas").rglob("superblock"):
        ours = parse(path.read_bytes())
        checksums, fallbacks, applicable = read_superblock(path.read_bytes(), ours.to_commit)
        assert checksums == [part.sha256 for part in ours.parts]
        assert fallbacks == [fallback.name for fallback in ours.fallbacks]
        assert applicable == ours.without_fallbacks
