"""The file server: what leaves the machine, how it is cached, and that a real ``ostree`` can pull through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.gateway.files import CHUNK_BYTES, FileSent, FileServer, in_repository, servable
from tests.adapters.ostree_trees import Versions, make_versions, ostree
from tests.loopback import serving

PART = "deltas/ab/cdef+g_h-ij/0"
SUPERBLOCK = "deltas/ab/cdef+g_h-ij/superblock"
OBJECT = f"objects/aa/{'b' * 62}.filez"
META = f"objects/aa/{'b' * 62}.commitmeta"
SERVED = [
    "config",
    "summary",
    "summary.sig",
    "refs/heads/os/1",
    OBJECT,
    META,
    PART,
    SUPERBLOCK,
    "delta-indexes/ab/cd.index",
]
HIDDEN = [
    ".wave/index.lock",
    "tmp/cache/x",
    "state/x.commitpartial",
    "objects/.hidden",
    ".lock",
    "secret",
    "extensions/x",
]
BIG = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files") / "repo"
    for name in SERVED + HIDDEN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"content of {name}".encode())
    (root / OBJECT).write_bytes(BIG)
    (root / "empty").touch()
    (root / "deltas/ab/cdef+g_h-ij/7").touch()
    (root.parent / "outside").write_text("secret")
    (root / "objects/link").symlink_to(root.parent / "outside")
    (root / "objects/up").symlink_to(root.parent)
    (root / "refs/heads/alias").symlink_to("os/1")
    os.mkfifo(root / "objects/fifo")
    return root


@pytest.fixture
def sent() -> list[FileSent]:
    return []


@pytest.fixture
def get(root: Path, sent: list[FileSent]) -> Callable[..., httpx.Response]:
    def get(path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(FileServer(root, on_sent=sent.append))
            async with httpx.AsyncClient(transport=transport, base_url="http://files") as client:
                names = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, "/" + path, headers=names)

        return asyncio.run(ask())

    return get


@pytest.mark.parametrize("name", SERVED)
def test_serves_what_a_client_asks_for(get: Callable[..., httpx.Response], root: Path, name: str) -> None:
    answer = get(name)
    assert (answer.status_code, answer.content) == (200, (root / name).read_bytes())
    assert answer.headers["content-length"] == str(len(answer.content))
    forever = name == OBJECT
    assert answer.headers["cache-control"] == ("public, max-age=31536000, immutable" if forever else "no-cache")
    head = get(name, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers} == {**answer.headers}


NOT_THERE = [
    *HIDDEN,
    *[
        "",
        "objects",
        "objects/",
        "objects/aa",
        "objects//aa",
        "config/",
        "config/x",
        "Config",
        "empty",
        "refs/remotes/x",
    ],
    *["objects/%2e%2e/config", "objects/..%2fconfig", "objects/%5c..%5cconfig", "config%00", "objects/%C3%A9"],
    *["objects/link", "objects/up/outside", "refs/heads/alias", "objects/fifo", "objects/" + "a" * 5000],
]


@pytest.mark.parametrize("name", NOT_THERE)
def test_nothing_else_is_there(get: Callable[..., httpx.Response], sent: list[FileSent], name: str) -> None:
    answer = get(name)
    assert answer.status_code == 404
    assert b"secret" not in answer.content
    assert [one.status for one in sent] == [404]


@pytest.mark.parametrize(
    "path", ["//config", "/deltas/../config", "/./config", "/objects/../../outside", "/config\0", "\\config"]
)
def test_paths_that_no_decent_client_sends(root: Path, path: str) -> None:
    assert run(FileServer(root), path)[0]["status"] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_is_read_only(get: Callable[..., httpx.Response], method: str) -> None:
    answer = get("config", method)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=1000000-", (1_000_000, len(BIG))),
        ("bytes=-5", (len(BIG) - 5, len(BIG))),
        (f"bytes=-{len(BIG) * 2}", (0, len(BIG))),
        ("bytes=0-99999999999", (0, len(BIG))),
        (f"bytes=1-{CHUNK_BYTES + 1}", (1, CHUNK_BYTES + 2)),
    ],
)
def test_ranges(get: Callable[..., httpx.Response], range_: str, expected: tuple[int, int]) -> None:
    answer = get(OBJECT, range=range_)
    start, stop = expected
    assert answer.status_code == 206
    assert answer.content == BIG[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BIG)}"


@pytest.mark.parametrize("range_", [f"bytes={len(BIG)}-", "bytes=-0", f"bytes={'9' * 30}-"])
def test_ranges_that_cannot_be_met(get: Callable[..., httpx.Response], range_: str) -> None:
    answer = get(OBJECT, range=range_)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(BIG)}"


@pytest.mark.parametrize("range_", ["bytes=-", "bytes=5-1", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes=²-", ""])
def test_what_is_no_single_range_is_answered_whole(get: Callable[..., httpx.Response], range_: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        answer = get(OBJECT, range=range_)
        assert (answer.status_code, answer.content) == (200, BIG)


def test_an_empty_file_is_served_whole_and_has_no_ranges(get: Callable[..., httpx.Response]) -> None:
    name = "deltas/ab/cdef+g_h-ij/7"
    assert (get(name).status_code, get(name).content) == (200, b"")
    assert get(name, range="bytes=0-").status_code == 416


def test_validators(get: Callable[..., httpx.Response]) -> None:
    first = get("summary")
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in (
        {"if_none_match": etag},
        {"if_none_match": f'"other", W/{etag}'},
        {"if_none_match": "*"},
        {"if_modified_since": modified},
    ):
        answer = get("summary", **headers)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
        assert "content-length" not in answer.headers
    for headers in (
        {"if_none_match": '"other"'},
        {"if_none_match": '"other"', "if_modified_since": modified},  # the tag decides
        {"if_modified_since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"if_modified_since": "nonsense"},
    ):
        assert get("summary", **headers).status_code == 200


def test_a_range_of_what_has_changed_is_answered_whole(get: Callable[..., httpx.Response]) -> None:
    first = get(OBJECT)
    for guard in (first.headers["etag"], first.headers["last-modified"]):
        assert get(OBJECT, range="bytes=0-9", if_range=guard).status_code == 206
    for guard in ('"other"', "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"):
        assert get(OBJECT, range="bytes=0-9", if_range=guard).status_code == 200


def test_a_file_that_was_replaced_has_another_tag(root: Path, get: Callable[..., httpx.Response]) -> None:
    before = get("summary").headers["etag"]
    status = (root / "summary").stat()
    new = root / "summary.new"
    new.write_bytes((root / "summary").read_bytes())
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(root / "summary")
    assert get("summary").headers["etag"] != before


def test_counts_what_was_sent(get: Callable[..., httpx.Response], sent: list[FileSent]) -> None:
    get(OBJECT)
    get(OBJECT, range="bytes=0-9")
    get(OBJECT, "HEAD")
    get("nothing")
    assert sent == [
        FileSent(OBJECT, 200, len(BIG)),
        FileSent(OBJECT, 206, 10),
        FileSent(OBJECT, 200, 0),
        FileSent("nothing", 404, len("Not Found\n")),
    ]


def run(server: FileServer, path: str, **scope: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def receive() -> Any:
        await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        messages.append(message)

    full = {"type": "http", "method": "GET", "path": path, "headers": [], **scope}
    asyncio.run(server(full, receive, send))
    return messages


def test_hands_over_the_path_where_the_server_can_send_it(root: Path) -> None:
    sent: list[FileSent] = []
    server = FileServer(root, on_sent=sent.append)
    offered: dict[str, Any] = {"extensions": {"http.response.pathsend": {}}}
    assert run(server, f"/{OBJECT}", **offered)[1] == {"type": "http.response.pathsend", "path": str(root / OBJECT)}
    assert sent[-1].bytes == len(BIG)
    # a file that may be replaced meanwhile would be sent with the length of the old one
    assert run(server, "/summary", **offered)[1]["type"] == "http.response.body"


def test_may_be_mounted_below_a_prefix(root: Path) -> None:
    assert run(FileServer(root), "/repo/summary", root_path="/repo")[0]["status"] == 200
    assert run(FileServer(root), "/repo/tmp/cache/x", root_path="/repo")[0]["status"] == 404


def test_a_missing_repository_is_unavailable(tmp_path: Path) -> None:
    messages = run(FileServer(tmp_path / "gone"), "/config")
    assert messages[0]["status"] == 503
    assert str(tmp_path).encode() not in messages[1]["body"]


def test_stops_reading_when_the_device_hangs_up(root: Path) -> None:
    sent: list[FileSent] = []
    gone = asyncio.Event()
    bodies = 0

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal bodies
        bodies += message["type"] == "http.response.body"
        if bodies == 1:
            gone.set()

    scope = {"type": "http", "method": "GET", "path": f"/{OBJECT}", "headers": []}
    asyncio.run(FileServer(root, on_sent=sent.append)(scope, receive, send))
    assert sent[0].bytes < len(BIG)


def test_a_big_file_does_not_block_the_loop(root: Path) -> None:
    async def main() -> int:
        other_turns = 0

        async def other() -> None:
            nonlocal other_turns
            while True:
                other_turns += 1
                await asyncio.sleep(0)

        async def receive() -> Any:
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            pass

        task = asyncio.create_task(other())
        await FileServer(root)({"type": "http", "method": "GET", "path": f"/{OBJECT}", "headers": []}, receive, send)
        task.cancel()
        return other_turns

    assert asyncio.run(main()) >= len(BIG) // CHUNK_BYTES


SEGMENTS = st.sampled_from(
    [
        *["..", ".", "", "config", "summary", "objects", "deltas", "refs", "heads", "aa", "link", "up", "outside"],
        *["tmp", ".wave", "\0", "\\", "%2e%2e", "%2F", "a\nb", "index.lock", "fifo", "ab", "0", "x" * 300],
    ]
)


@given(st.lists(SEGMENTS | st.text(max_size=6), max_size=7), st.booleans())
@example(["objects", "up", "outside"], True)
@example(["objects", "..", "..", "outside"], True)
def test_no_path_leads_out(root: Path, segments: list[str], slash: bool) -> None:
    path = ("/" if slash else "") + "/".join(segments)
    placed = servable({"path": path}, in_repository)
    messages = run(FileServer(root), path)
    if messages[0]["status"] == 404:
        return
    assert placed is not None
    name = placed.path
    assert not any(part.startswith(".") for part in name.split("/"))
    served = (root / name).resolve()
    assert served.is_relative_to(root.resolve())
    assert name in SERVED or name.startswith(("objects/", "deltas/", "refs/heads/", "delta-indexes/"))
    assert b"secret" not in b"".join(message.get("body", b"") for message in messages)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    versions = make_versions(tmp_path_factory.mktemp("os"))
    for origin, target in ((1, 2), (2, 3)):
        ostree(versions.repo, "static-delta", "generate", *_options(versions, origin, target))
    ostree(versions.repo, "summary", "-u")
    return versions


def _options(versions: Versions, origin: int, target: int) -> list[str]:
    return [f"--from={versions.commits[origin]}", f"--to={versions.commits[target]}"]


@pytest.fixture
def served(versions: Versions) -> Iterator[tuple[str, list[FileSent]]]:
    """A real server on a port of its own, and what it sent."""
    sent: list[FileSent] = []
    with serving(FileServer(versions.repo, on_sent=sent.append)) as url:
        yield url, sent


@pytest.fixture
def device(served: tuple[str, list[FileSent]], tmp_path: Path) -> Path:
    device = tmp_path / "device"
    device.mkdir()
    ostree(device, "init", "--mode=bare-user-only")
    ostree(device, "remote", "add", "--no-gpg-verify", "server", served[0])
    return device


@pytest.mark.ostree
@pytest.mark.timeout(60)
def test_ostree_pulls_through_it(served: tuple[str, list[FileSent]], device: Path, versions: Versions) -> None:
    _, sent = served
    ostree(device, "pull", "server", "os/1")
    assert ostree(device, "rev-parse", "server:os/1") == versions.commits[1]
    sent.clear()
    ostree(device, "pull", "server", "os/2")  # finds the delta by the index
    assert [one for one in sent if one.path.startswith("deltas/") and one.status == 200]
    ostree(device, "fsck")
    assert {one.status for one in sent} <= {200, 404}


@pytest.mark.ostree
@pytest.mark.timeout(60)
def test_a_delta_fetched_file_by_file_applies_offline(
    served: tuple[str, list[FileSent]], device: Path, versions: Versions, tmp_path: Path
) -> None:
    url, sent = served
    ostree(device, "pull", "server", "os/1")
    sent.clear()
    (folder,) = (path.parent for path in (versions.repo / "deltas").rglob("superblock") if _is_first(path, versions))
    files = tmp_path / "delta"
    files.mkdir()
    for file in folder.iterdir():
        with urllib.request.urlopen(f"{url}/{file.relative_to(versions.repo)}", timeout=10) as answer:
            (files / file.name).write_bytes(answer.read())
    ostree(device, "static-delta", "apply-offline", str(files / "superblock"))
    ostree(device, "refs", "--create=server:os/2", versions.commits[2])
    ostree(device, "fsck")
    assert sum(one.bytes for one in sent) == sum(file.stat().st_size for file in folder.iterdir())
    with pytest.raises(subprocess.CalledProcessError):
        ostree(device, "rev-parse", "server:os/3")


def _is_first(superblock: Path, versions: Versions) -> bool:
    return bytes.fromhex(versions.commits[1]) in superblock.read_bytes()
