"""What aktualizr-lite may say, and what is made of it: never an error of ours, whatever stands there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.tuf import read_root
from orchestrator.core.update import EventKind
from orchestrator.errors import InvalidInput
from orchestrator.gateway.aktualizr.messages import ClientEvent, all_healthy, events, meaning, running
from orchestrator.gateway.http import Problem
from orchestrator.services.aktualizr import Running
from orchestrator.services.messages import LONGEST_ID

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=140) | ANYTHING,
        "deviceTime": st.text() | ANYTHING,
        "eventType": st.fixed_dictionaries({"id": st.sampled_from(["EcuDownloadStarted", "X", ""]) | ANYTHING})
        | ANYTHING,
        "event": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(["version", "targetName", "success", "details", "correlationId"], ANYTHING)
        ),
    },
)


def read(body: bytes) -> list[ClientEvent]:
    """None where it was refused."""
    try:
        return events(body)
    except Problem as problem:
        return [] if problem.status == 400 else [ClientEvent("", problem.kind, None, None, None, "", None)]


@settings(max_examples=2000, deadline=None)
@given(st.lists(NEARLY | ANYTHING, max_size=6) | ANYTHING | st.binary())
def test_whatever_is_said_of_events_is_read_or_refused(said: Any) -> None:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    for event in read(body):
        assert 0 < len(event.id) <= LONGEST_ID
        made = meaning(event)
        assert made.shown.isascii() and len(made.shown) < 140


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(st.sampled_from([b"x-ats-ostreehash", b"x-ats-target", b"x-ats-tags"]), st.binary(max_size=300)))
def test_whatever_stands_in_headers_is_taken_or_left(headers: dict[bytes, bytes]) -> None:
    found = running(headers.get)
    assert found.commit is None or len(found.commit) == 64
    assert all(tag.isascii() for tag in found.tags) and len(found.tags) <= 16


@settings(max_examples=1000, deadline=None)
@given(ANYTHING | st.binary())
def test_whatever_is_said_of_apps_and_roots_is_read_or_refused(said: Any) -> None:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    assert all_healthy(body) in (True, False, None)
    with pytest.raises(InvalidInput):
        read_root(body)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, Running()),
        ({b"x-ats-ostreehash": b"unknown", b"x-ats-target": b"unknown", b"x-ats-tags": b""}, Running()),
        ({b"x-ats-ostreehash": b"A" * 64, b"x-ats-target": b"Initial Target"}, Running()),
        (
            {b"x-ats-ostreehash": b"a" * 64, b"x-ats-target": b"lmp-42", b"x-ats-tags": b"main, devel,,"},
            Running("a" * 64, "lmp-42", ("main", "devel")),
        ),
    ],
)
def test_what_runs_is_read_off_the_headers(headers: dict[bytes, bytes], found: Running) -> None:
    assert running(headers.get) == found


@pytest.mark.parametrize(
    ("kind", "success", "details", "counts", "shown", "code"),
    [
        ("EcuDownloadStarted", None, "", EventKind.DOWNLOADING, "downloading", None),
        ("EcuDownloadCompleted", True, "", None, "downloaded", None),
        ("EcuDownloadCompleted", None, "", None, "ecu_download_completed", None),
        (
            "EcuDownloadCompleted",
            False,
            "Server returned HTTP 404",
            EventKind.DOWNLOAD_FAILED,
            "download_failed",
            "http_404",
        ),
        ("EcuInstallationStarted", None, "", EventKind.INSTALLING, "installing", None),
        ("EcuInstallationApplied", None, "need reboot", EventKind.APPLIED, "applied", None),
        ("EcuInstallationCompleted", True, "", EventKind.APPLIED, "installed", None),
        ("EcuInstallationCompleted", None, "", None, "ecu_installation_completed", None),
        (
            "EcuInstallationCompleted",
            False,
            "Wrong version booted",
            EventKind.ROLLED_BACK,
            "rolled_back",
            "wrong_version_booted",
        ),
        (
            "EcuInstallationCompleted",
            False,
            "however failed to start App after booting on a new sysroot version; app: a",
            EventKind.FAILED,
            "failed",
            "app_start_failed",
        ),
        ("EcuInstallationCompleted", False, "", EventKind.FAILED, "failed", None),
        ("MetadataUpdateCompleted", False, "err", None, "metadata_update_completed_failed", None),
        ("CertRotationStarted", None, "", None, "cert_rotation_started", None),
    ],
)
def test_what_an_event_means(
    kind: str, success: bool | None, details: str, counts: EventKind | None, shown: str, code: str | None
) -> None:
    assert meaning(ClientEvent("e", kind, "rpi4-42", 42, success, details, None)) == (counts, shown, code)
