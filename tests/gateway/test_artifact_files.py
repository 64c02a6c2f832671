"""Artifacts over HTTP: by a signed address only, with ranges, and nothing else of the store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.artifact import Artifact, Digests, Format
from orchestrator.errors import ContentUnavailable
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.services.downloads import SHORTEST, Downloads, Signer

NOW = datetime(2026, 5, 4, 9, 7, tzinfo=UTC)
A, B, C = "a" * 64, "b" * 64, "c" * 64
CONTENT = bytes(range(256)) * 1024
SIGNER = Signer(lambda: b"k" * 32)
ARTIFACT = Artifact(Digests(A, "1", "2", len(CONTENT)), Format.SWU, "os-1.0.swu", "os", "1.0")
DELTA = f"deltas/{A}/{B}/{C}.xdelta3"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    for name in (f"aa/{A}", DELTA, f"deltas/{A}/{B}/whole.xdelta3", "incoming/x.part", "urls.key", ".wave/lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(CONTENT)
    return root


class Asking:
    def __init__(self, root: Path, signer: Signer | None) -> None:
        self.now = NOW
        self._app = Gateway([], artifacts=ArtifactServer(root, signer, lambda: self.now))

    def __call__(self, url: str, method: str = "GET", **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, url, headers={k.replace("_", "-"): v for k, v in headers.items()})

        return asyncio.run(ask())


@pytest.fixture
def ask(root: Path) -> Asking:
    return Asking(root, SIGNER)


def local(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


ADDRESS = local(Downloads("http://x", SIGNER).artifact(ARTIFACT, now=NOW))


def test_an_artifact_is_served_whole_in_part_and_by_its_head(ask: Asking) -> None:
    whole = ask(ADDRESS)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert "immutable" in whole.headers["cache-control"]
    part = ask(ADDRESS, range="bytes=1000-1999")
    assert (part.status_code, part.content) == (206, CONTENT[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
    head = ask(ADDRESS, "HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(CONTENT)))
    assert ask(ADDRESS, if_none_match=whole.headers["etag"]).status_code == 304
    assert ask(ADDRESS, range=f"bytes={len(CONTENT)}-").status_code == 416
    assert ask(ADDRESS, "POST").status_code == 405


def test_a_delta_is_served_by_the_path_of_its_record(ask: Asking) -> None:
    assert ask(local(Downloads("http://x", SIGNER).delta(DELTA, now=NOW))).content == CONTENT


def test_without_the_key_of_addresses_nothing_is_served_and_nothing_of_it_told(root: Path) -> None:
    def no_key() -> bytes:
        raise ContentUnavailable("The key /secret/urls.key can be read by others.")

    for method in ("GET", "HEAD"):
        answer = Asking(root, Signer(no_key))(ADDRESS, method)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert b"secret" not in answer.content and bool(answer.content) is (method == "GET")


def test_an_address_ends(ask: Asking) -> None:
    ask.now = NOW + SHORTEST - timedelta(seconds=1)
    assert ask(ADDRESS).status_code == 200
    ask.now = NOW + SHORTEST + timedelta(hours=1)
    assert ask(ADDRESS).status_code == 403


def test_all_devices_of_an_hour_get_one_address() -> None:
    downloads = Downloads("http://x", SIGNER)
    later = [downloads.artifact(ARTIFACT, now=NOW + timedelta(minutes=each)) for each in (0, 30, 52, 54)]
    assert len(set(later)) == 2
    assert len({later[0], later[1], later[2]}) == 1


@pytest.mark.parametrize(
    "address",
    [
        f"/artifacts/{A}/os-1.0.swu",
        ADDRESS.replace("until=1", "until=2"),
        ADDRESS[:-1] + ("A" if ADDRESS[-1] != "A" else "B"),
        ADDRESS.replace("os-1.0", "os-2.0"),
        ADDRESS.replace(A, B),
        ADDRESS.replace("&signature=", "&signature=%00"),
        ADDRESS.partition("&")[0] + "&signature=",
        "/artifacts/urls.key?" + ADDRESS.partition("?")[2],
    ],
)
def test_what_is_not_signed_is_refused(ask: Asking, address: str) -> None:
    answer = ask(address)
    assert (answer.status_code, b"not signed" in answer.content) == (403, True)


@pytest.mark.parametrize(
    "name",
    [
        "urls.key",
        "incoming/x.part",
        f"aa/{A}",
        f"{A}",
        f"{A}/",
        f"{A}/../urls.key",
        f"{A}/x/y",
        f"{A}/%2e%2e",
        f"{A.upper()}/x.swu",
        f"{B}/x.swu",
        ".wave/lock",
        f"deltas/{A}/{B}/whole.xdelta3",
        f"deltas/{A}/{B}/{C}.xdelta3/x",
        f"deltas/{A}/{B}/..",
    ],
)
def test_nothing_else_of_the_store_leaves_the_machine(root: Path, name: str) -> None:
    """Even where nobody asks for a signature."""
    assert Asking(root, None)(f"/artifacts/{name}").status_code == 404


def test_without_a_signer_whoever_knows_the_sha256_may_have_it(root: Path) -> None:
    assert Asking(root, None)(f"/artifacts/{A}/any.name").content == CONTENT


@given(st.text(max_size=300))
def test_no_query_opens_anything(query: str) -> None:
    assert not SIGNER.check("/artifacts/x", query, NOW)
    assert not SIGNER.check("/artifacts/x", f"until=99999999999&signature={query}", NOW)
