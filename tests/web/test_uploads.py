"""Files in pieces over HTTP, as tus has it: whatever interrupts an upload, it goes on where it stopped, and nobody
else's is touched."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.artifact import LARGEST
from orchestrator.services.metering import Meter
from orchestrator.web.following import Following
from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House
from tests.web.asking import Asking

IMAGE = bytes(range(256)) * 40
SHA256 = hashlib.sha256(IMAGE).hexdigest()
TUS = {"tus-resumable": "1.0.0"}
PIECE = {**TUS, "content-type": "application/offset+octet-stream"}


def metadata(**words: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items())


def begin(api: Asking, role: str = "releaser", size: int = len(IMAGE), **words: str) -> Any:
    said = {"filename": "rootfs.img", "version": "1.1", "hardware_ids": "rpi4,rpi5", **words}
    headers = {**TUS, "upload-length": str(size), "upload-metadata": metadata(**said)}
    return api("POST", "/uploads", role, headers=headers)


def begun(api: Asking, **words: str) -> str:
    answer = begin(api, "releaser", len(IMAGE), **words)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"]).removeprefix("/api/v1")


def patch(
    api: Asking, place: str, offset: int, piece: bytes | Iterator[bytes], role: str = "releaser", **headers: str
) -> Any:
    said = {**PIECE, "upload-offset": str(offset), **headers}
    return api("PATCH", place, role, headers=said, content=piece)


def test_a_file_comes_in_pieces_and_is_an_artifact_with_the_last(api: Asking) -> None:
    place = begun(api, sha256=SHA256)
    first = patch(api, place, 0, IMAGE[:100])
    assert (first.status_code, first.headers["upload-offset"], first.headers["tus-resumable"]) == (204, "100", "1.0.0")
    stands = api("HEAD", place, headers=TUS)
    assert (stands.headers["upload-offset"], stands.headers["upload-length"]) == ("100", str(len(IMAGE)))
    assert stands.headers["cache-control"] == "no-store"
    last = patch(api, place, 100, IMAGE[100:])
    assert (last.status_code, last.headers["wave-artifact"], last.headers["wave-new"]) == (204, SHA256, "true")
    artifact = api.ok("GET", f"/artifacts/{SHA256}")["artifact"]
    assert (artifact["filename"], artifact["version"]) == ("rootfs.img", "1.1")
    assert artifact["hardware_ids"] == ["rpi4", "rpi5"]
    assert api("HEAD", place, headers=TUS).status_code == 404


def test_an_upload_that_is_begun_again_is_the_one_that_was_begun_before(api: Asking) -> None:
    place = begun(api, sha256=SHA256)
    patch(api, place, 0, IMAGE[:100])
    assert begun(api, sha256=SHA256) == place
    assert begun(api, sha256=SHA256, version="1.2") != place
    assert begun(api) != begun(api)


def test_a_piece_that_begins_elsewhere_is_told_where_to_go_on(api: Asking) -> None:
    place = begun(api)
    patch(api, place, 0, IMAGE[:100])
    for offset in (0, 99, 101):
        said = patch(api, place, offset, IMAGE[offset:])
        assert (said.status_code, said.json()["remedy"]) == (409, "Go on at 100.")
    assert patch(api, place, 100, b"").headers["upload-offset"] == "100"


def test_what_comes_to_another_sum_is_thrown_away(api: Asking) -> None:
    place = begun(api, sha256="0" * 64)
    answer = patch(api, place, 0, IMAGE)
    assert answer.status_code == 400
    assert "thrown away" in answer.json()["detail"]
    assert api("HEAD", place, headers=TUS).status_code == 404
    assert api.ok("GET", "/artifacts")["items"] == []


def test_more_than_was_announced_is_refused_before_it_is_read(api: Asking) -> None:
    place = begun(api)
    assert patch(api, place, 0, IMAGE + b"x").status_code == 400
    pieces = iter([IMAGE, b"x"])
    assert patch(api, place, 0, pieces).status_code == 400


def test_only_a_releaser_uploads_and_only_their_own(api: Asking) -> None:
    assert begin(api, "viewer").status_code == 403
    place = begun(api)
    for role, status in (("viewer", 403), ("approver", 403), ("admin", 404)):
        assert api("HEAD", place, role, headers=TUS).status_code == status
        assert patch(api, place, 0, IMAGE, role).status_code == status
    assert api.client.patch(f"/api/v1{place}", headers=PIECE).status_code == 401


@pytest.mark.parametrize(
    "filename", ["../../etc/passwd", "/etc/passwd", "a/b.img", "..", "", "a\nb", "x" * 200, ".hidden", "a\\b"]
)
def test_a_name_that_leads_elsewhere_is_refused(api: Asking, filename: str) -> None:
    assert begin(api, filename=filename).status_code == 400


@pytest.mark.parametrize("upload_id", ["..", "../../wave.db", "%2e%2e%2fwave", "x" * 32, "0" * 32, "0" * 4000])
def test_an_upload_that_is_none_is_not_found(api: Asking, upload_id: str) -> None:
    assert patch(api, f"/uploads/{upload_id}", 0, b"x").status_code in (404, 405)


def test_what_is_no_upload_is_refused(api: Asking) -> None:
    assert begin(api, size=0).status_code == 400
    assert begin(api, size=LARGEST + 1).status_code == 413
    assert begin(api, sha256="x").status_code == 400
    place = begun(api)
    assert patch(api, place, 0, b"x", **{"tus-resumable": "0.2"}).status_code == 412
    assert patch(api, place, 0, b"x", **{"content-type": "text/plain"}).status_code == 415
    assert patch(api, place, 0, b"x", **{"upload-offset": "-1"}).status_code == 400
    headers = {**TUS, "upload-length": "5"}
    for wrong in ("filename", "filename !", "nonsense eA==", metadata(filename="a") + "," + metadata(filename="b")):
        assert api("POST", "/uploads", headers={**headers, "upload-metadata": wrong}).status_code == 400


class Counted:
    """The API with what it answers counted, as `wave serve` has it."""

    def __init__(self, api: Asking) -> None:
        self.meter = Meter()
        self.app = Following(api.client.app, self.meter)

    def patch(
        self, place: str, *pieces: bytes, headers: Mapping[str, str] | None = None, ends: bool = True
    ) -> tuple[int, dict[str, Any]]:
        """Status and problem; the body is what comes in these pieces, and then no end of it unless it ``ends``."""
        said = {**PIECE, "authorization": "Bearer releaser", "upload-offset": "0", **(headers or {})}
        coming, sent = [*pieces], list[Any]()

        async def receive() -> Any:
            if not coming and not ends:
                await asyncio.Event().wait()
            piece = coming.pop(0) if coming else b""
            return {"type": "http.request", "body": piece, "more_body": bool(coming) or not ends}

        async def send(message: Any) -> None:
            sent.append(message)

        path = f"/api/v1{place}"
        named = [(name.encode(), value.encode()) for name, value in said.items()]
        scope: dict[str, Any] = {"type": "http", "method": "PATCH", "path": path, "headers": named}
        scope |= {"raw_path": path.encode(), "query_string": b"", "client": ("192.0.2.1", 1), "http_version": "1.1"}
        before = dict(self.meter.operators)
        asyncio.run(self.app(scope, receive, send))
        status = sent[0]["status"]
        assert self.meter.operators == {**before, status: before.get(status, 0) + 1}
        body = b"".join(each.get("body", b"") for each in sent[1:])
        return status, json.loads(body) if body else {}


def test_what_stops_coming_is_kept_and_told_so(api: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.web.api.uploads.WITHIN", 0.05)
    place, counted = begun(api, sha256=SHA256), Counted(api)
    status, told = counted.patch(place, IMAGE[:100], IMAGE[100:150], ends=False)
    assert (status, told["title"]) == (408, "too slow") and "go on at 150" in told["detail"]
    assert api("HEAD", place, headers=TUS).headers["upload-offset"] == "150"
    assert patch(api, place, 150, IMAGE[150:]).headers["wave-artifact"] == SHA256


def test_a_piece_is_taken_as_it_is_or_not_at_all(api: Asking) -> None:
    """Nothing is unpacked; what is announced as more than is missing is not read, however it is said."""
    place, counted = begun(api), Counted(api)
    bomb = gzip.compress(bytes(1 << 20))
    for headers, expected in (
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "deflate, gzip"}, 415),
        ({"content-length": str(len(IMAGE) + 1)}, 400),
        ({"content-length": "9" * 30}, 400),
        ({"content-length": "-1"}, 400),
        ({"content-length": "\u00b2"}, 400),
        ({"upload-offset": "\u00b2"}, 400),
        ({"upload-offset": "9" * 30}, 400),
        ({"authorization": "Bearer nobody"}, 401),
        ({"authorization": "Bearer viewer"}, 403),
    ):
        assert counted.patch(place, bomb, headers=headers)[0] == expected, headers
    assert api("HEAD", place, headers=TUS).headers["upload-offset"] == "0"


def test_a_piece_without_end_is_refused_when_there_is_no_more_room_for_it(
    api: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.web.api.uploads.PIECE", 1_000)
    place, counted = begun(api), Counted(api)
    status, told = counted.patch(place, *[b"x" * 1_000] * 20, headers={"transfer-encoding": "chunked"})
    assert status == 400 and "this would be more" in told["detail"]


def test_a_piece_that_is_sent_again_is_told_where_to_go_on(api: Asking) -> None:
    place, counted = begun(api), Counted(api)
    assert counted.patch(place, IMAGE[:100])[0] == 204
    assert [counted.patch(place, IMAGE[:100])[0] for _ in range(2)] == [409, 409]
    assert counted.patch(place, IMAGE[200:], headers={"upload-offset": "200"})[0] == 409
    assert counted.patch(place, IMAGE[100:], headers={"upload-offset": "100"})[0] == 204
    assert counted.meter.operators == {204: 2, 409: 3}


def test_a_client_can_ask_what_is_spoken_here(api: Asking) -> None:
    said = api("OPTIONS", "/uploads").headers
    assert (said["tus-version"], said["tus-extension"]) == ("1.0.0", "creation")


# ------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def there(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    with served(house) as url:
        yield url


ADD = ("--version", "1.1", "--hardware-id", "rpi4")


def test_a_file_is_added_from_afar_with_the_same_words(house: House, there: str, tmp_path: Path) -> None:
    file = tmp_path / "rootfs.img"
    file.write_bytes(IMAGE)
    lines = (("--dry-run",), (), (), ("--json",))
    far = [house.run("artifact", "add", str(file), *ADD, *line, "--server", there) for line in lines]
    house.ok("artifact", "remove", SHA256, "--yes")
    here = [house.run("artifact", "add", str(file), *ADD, *line) for line in lines]
    assert [(one.stdout, one.stderr, one.exit_code) for one in far] == [
        (one.stdout, one.stderr, one.exit_code) for one in here
    ]
    house.ok("artifact", "verify")


@pytest.mark.parametrize("words", [(), ("--version", "1\n2"), ("--version", "1", "--hardware-id", "a/b")])
def test_what_is_refused_is_refused_before_it_is_sent(
    house: House, there: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = tmp_path / "rootfs.img"
    file.write_bytes(IMAGE)
    here = house.run("artifact", "add", str(file), *words)
    far = house.run("artifact", "add", str(file), *words, "--server", there)
    assert (far.stderr, far.exit_code) == (here.stderr, here.exit_code) != ("", 0)
    assert not list((house.root / "artifacts" / "incoming").glob("*"))


def test_an_upload_that_was_interrupted_goes_on_where_it_stopped(
    house: House, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of the file, and the command ends; later there is room."""
    monkeypatch.setattr("orchestrator.adapters.remote.uploading.PIECE", 1_000)
    monkeypatch.setattr("orchestrator.adapters.remote.uploading.time.sleep", lambda seconds: None)
    file = tmp_path / "rootfs.img"
    file.write_bytes(IMAGE)
    real, taken = shutil.disk_usage, []

    def full_after_three(path: Any) -> Any:
        taken.append(path)
        usage = real(path)
        return usage if len(taken) <= 4 else usage._replace(free=0)

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.adapters.artifacts.store.shutil.disk_usage", full_after_three)
        ended = house.run("artifact", "add", str(file), *ADD, "--server", there)
        assert ended.exit_code == 6, ended.output
    (part,) = (house.root / "artifacts" / "incoming").glob("*.part")
    assert part.stat().st_size == 3_000
    before = part.stat().st_ino
    house.ok("artifact", "add", str(file), *ADD, "--server", there)
    stored = house.root / "artifacts" / SHA256[:2] / SHA256
    assert (stored.read_bytes(), stored.stat().st_ino) == (IMAGE, before)
