"""The requests of real clients, byte for byte, and what their parsers demand of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ddi import event_of
from orchestrator.core.update import EventKind, UpdateStatus
from orchestrator.gateway.ddi.messages import Feedback, config_of, event_id, feedback_of
from orchestrator.gateway.ddi.rendering import sleep
from orchestrator.gateway.http import Problem
from tests.gateway.ddi_world import BASE, DdiWorld

SWUPDATE = {
    "user-agent": "libcurl-agent/1.0",
    "content-type": "application/json",
    "accept": "application/json",
    "charsets": "utf-8",
}
RAUC = {"user-agent": "rauc-hawkbit-c-agent/1.0", "accept": "application/json;charset=UTF-8"}

SWUPDATE_CONFIG = (
    b'{"id":"","time":"20261122T035027","status":{"result":{"finished":"success"},"execution":"closed",'
    b'"details":[""]},"data":{"swVersion":"1.%d.0","serial":"d1","board":"sim"}}'
)
SWUPDATE_BEGINS = (
    b'{"id":%d,"time":"20261122T035031","status":{"result":{"progress":{"cnt":0,"of":1},"finished":"none"},'
    b'"execution":"proceeding","details":["Installing Update Chunk Artifacts."]}}'
)
SWUPDATE_LOGS = (
    b'{"id":%d,"time":"20261122T035032","status":{"result":{"progress":{"cnt":3,"of":1},"finished":"none"},'
    b'"execution":"proceeding","details":["[INFO ] : SWUPDATE running : one","[INFO ] : two"]}}'
)
SWUPDATE_DONE = (
    b'{"id":%d,"time":"20261122T035040","status":{"result":{"progress":{"cnt":0,"of":0},"finished":"success"},'
    b'"execution":"closed","details":["Update Installed."]}}'
)
RAUC_CONFIG = (
    b'{"time":"20261122T040102","status":{"result":{"finished":"success"},"execution":"closed"},'
    b'"data":{"version":"1.%d.0","hw_revision":"2"}}'
)
RAUC_SAYS = (
    b'{"id":"%d","time":"20261122T040103","status":{"result":{"finished":"%s"},"execution":"%s","details":["%s"]}}'
)
ZEPHYR_SAYS = b'{"id":"%d","status":{"execution":"closed","result":{"finished":"success"}}}'


@pytest.fixture
def ddi(tmp_path: Path) -> Iterator[DdiWorld]:
    made = DdiWorld(tmp_path)
    yield made
    made.close()


def read_by_swupdate(answer: dict[str, Any]) -> str:
    """As its parser goes through a deployment; the address it downloads."""
    assert isinstance(answer["deployment"]["update"], str) and answer["deployment"]["update"] != "skip"
    assert -(2**31) <= int(answer["id"]) < 2**31
    (chunk,) = answer["deployment"]["chunks"]
    assert all(isinstance(chunk[key], str) for key in ("part", "version", "name"))
    (artifact,) = chunk["artifacts"]
    assert artifact["filename"].endswith(".swu") and re.fullmatch("[0-9a-f]{40}", artifact["hashes"]["sha1"])
    assert 0 < artifact["size"] < 2**31
    href: str = artifact["_links"]["download-http"]["href"]
    return href


def test_swupdate_from_its_first_boot_to_the_confirmation(ddi: DdiWorld) -> None:
    ddi.artifact(41)
    ddi.artifact(42)
    (device,) = ddi.world.enroll(1)

    def ask(method: str, url: str, body: bytes | None = None) -> Any:
        more = {} if body is None else {"content": body}
        answer = ddi.ask(method, url, device, headers=SWUPDATE, **more)
        assert answer.status_code in (200, 206), answer.text
        return answer

    root = f"{BASE}/{device}"
    ask("PUT", ask("GET", root).json()["_links"]["configData"]["href"], SWUPDATE_CONFIG % 41)
    ddi.world.apply()
    for _ in range(4):  # it looks, and looks again, before it begins
        link = ask("GET", root).json()["_links"]["deploymentBase"]["href"]
        answer = ask("GET", link).json()
    action, file = int(answer["id"]), read_by_swupdate(answer)
    feedback = f"{root}/deploymentBase/{action}/feedback"
    ask("POST", feedback, SWUPDATE_BEGINS % action)
    assert ask("HEAD", file).headers["accept-ranges"] == "bytes"
    ask("GET", file)
    ask("POST", feedback, SWUPDATE_LOGS % action)
    assert ddi.world.status(device) is UpdateStatus.INSTALLING
    ask("POST", feedback, SWUPDATE_BEGINS % action)  # it died and begins again
    ask("POST", feedback, SWUPDATE_DONE % action)
    assert "deploymentBase" not in ask("GET", root).json()["_links"]
    ask("PUT", f"{root}/configData", SWUPDATE_CONFIG % 42)
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED


def test_the_rauc_updater_closes_before_its_reboot(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    root = f"{BASE}/{device}"
    action = ddi.action(device)
    (chunk,) = ddi.get(device, f"{root}/deploymentBase/{action}").json()["deployment"]["chunks"]
    (artifact,) = chunk["artifacts"]
    assert ddi.ask("GET", artifact["_links"]["download"]["href"], device, headers=RAUC).status_code == 200
    said = ["Download complete. 12.00 MB/s", "File checksum OK.", "installing", *(f"{n}% done" for n in range(18))]
    feedback = f"{root}/deploymentBase/{action}/feedback"
    for text in said:
        body = RAUC_SAYS % (action, b"none", b"proceeding", text.encode())
        assert ddi.ask("POST", feedback, device, headers=RAUC, content=body).status_code == 200
    assert ddi.world.status(device) is UpdateStatus.INSTALLING
    body = RAUC_SAYS % (action, b"success", b"closed", b"Software bundle installed successfully.")
    assert ddi.ask("POST", feedback, device, headers=RAUC, content=body).status_code == 200
    assert ddi.world.status(device) is UpdateStatus.APPLIED
    for version, status in ((41, UpdateStatus.APPLIED), (42, UpdateStatus.CONFIRMED)):
        href = ddi.links(device)["configData"]  # it says what it runs only where it is asked to
        assert ddi.ask("PUT", href, device, headers=RAUC, content=RAUC_CONFIG % version).status_code == 200
        assert ddi.world.status(device) is status
    assert ddi.links(device) == {}


def test_a_rauc_bundle_that_does_not_fit_has_failed(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    body = RAUC_SAYS % (action, b"none", b"proceeding", b"LastError: Compatible mismatch: Expected 'a' but found 'b'")
    ddi.post(device, f"deploymentBase/{action}/feedback", body)
    body = RAUC_SAYS % (action, b"failure", b"closed", b"Failed to install software bundle.")
    ddi.post(device, f"deploymentBase/{action}/feedback", body)
    assert ddi.world.status(device) is UpdateStatus.FAILED


def test_zephyr_reads_every_answer_into_its_buffer(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    root = ddi.get(device, "")
    href = root.json()["_links"]["deploymentBase"]["href"]
    assert len(href.partition("deploymentBase/")[2]) <= 50
    assert len(root.json()["config"]["polling"]["sleep"]) == 8
    answer = ddi.get(device, href)
    assert len(answer.content) < 1_100 and len(root.content) < 1_100
    (chunk,) = answer.json()["deployment"]["chunks"]
    (artifact,) = chunk["artifacts"]
    assert chunk["part"] == "bApp" and len(artifact["hashes"]["sha256"]) == 64
    file = artifact["_links"]["download-http"]["href"]
    assert "/DEFAULT/controller/v1" in file and len(file) < 200
    action = int(answer.json()["id"])
    assert ddi.post(device, f"deploymentBase/{action}/feedback", ZEPHYR_SAYS % action).status_code == 200
    assert ddi.world.status(device) is UpdateStatus.APPLIED


# ------------------------------------------------------------------------------------------------- parsers

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "time": JSON,
        "data": JSON,
        "mode": JSON,
        "status": st.fixed_dictionaries(
            {},
            optional={
                "execution": JSON | st.sampled_from(["closed", "proceeding", "canceled", "rejected"]),
                "result": st.fixed_dictionaries(
                    {},
                    optional={
                        "finished": JSON | st.sampled_from(["success", "failure", "none"]),
                        "progress": JSON | st.fixed_dictionaries({"cnt": JSON, "of": JSON}),
                    },
                ),
                "details": JSON | st.lists(st.text(), max_size=3),
                "code": JSON,
            },
        ),
    },
)


@given(st.binary(max_size=200) | NEARLY.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    for read in (feedback_of, config_of):
        with contextlib.suppress(Problem):
            said = read(body)
            if isinstance(said, Feedback):
                assert all(each is None or isinstance(each, str) for each in (said.message, said.code, said.at))
                assert isinstance(event_of(said.said), EventKind)
            else:
                assert all(isinstance(value, str) for value in said.attributes.values())


@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 2**31 - 1))
def test_the_same_words_have_the_same_id_and_others_another(one: bytes, two: bytes, action: int) -> None:
    assert (event_id(action, "", one) == event_id(action, "", two)) is (one == two)
    assert len(event_id(action, "cancel-", one)) <= 128 and event_id(action, "", one) != event_id(action, "x-", one)


@given(st.integers(-5, 10**6))
def test_sleep_is_always_a_time_of_day(seconds: int) -> None:
    text = sleep(seconds)
    assert re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d", text) and text != "00:00:00"


def test_words_in_any_order_never_break_it_and_count_once(ddi: DdiWorld) -> None:
    """The same twenty pieces of feedback, all twice and shuffled, from one device in one event loop."""
    devices = ddi.fleet(3, policy={"tolerate": {"failed": {"at_most": "90%", "then": "count"}}})
    actions = {device: ddi.action(device) for device in devices}

    async def storm(device: str) -> list[int]:
        transport = httpx.ASGITransport(ddi.gateway)
        headers = {"authorization": f"TargetToken {ddi.world.tokens[device]}"}
        async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers) as client:
            action = actions[device]
            bodies = [RAUC_SAYS % (action, b"none", b"proceeding", str(number).encode()) for number in range(19)]
            bodies.append(RAUC_SAYS % (action, b"failure", b"closed", b"no"))
            url = f"{BASE}/{device}/deploymentBase/{action}/feedback"
            answers = await asyncio.gather(*(client.post(url, content=body) for body in bodies * 2))
            return [answer.status_code for answer in answers]

    for device in devices:
        assert set(asyncio.run(storm(device))) <= {200, 410}
        assert ddi.world.status(device) is UpdateStatus.FAILED
    reports = ddi.world.devices.reports
    assert reports.accepted == 60 and reports.refused == 0
    with ddi.world.store.reading() as r:
        assert not r.check(), "the tallies are what the updates come to"


def test_a_body_that_does_not_end_is_cut(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    huge = msgspec.json.encode({"status": {"details": ["x" * 300_000]}})
    assert ddi.post(device, f"deploymentBase/{action}/feedback", huge).status_code == 413
    assert ddi.ask("PUT", f"{BASE}/{device}/configData", device, content=b"x" * 70_000).status_code == 413
