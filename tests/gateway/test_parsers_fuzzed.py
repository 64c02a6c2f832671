"""Whatever bytes a device sends for a body: they are read, or refused with an answer of 400."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InvalidInput
from orchestrator.gateway.ddi.messages import config_of, event_id, feedback_of
from orchestrator.gateway.http import Problem, decoded
from orchestrator.services.messages import CheckIn, Enrol, Report

check_in_of = msgspec.json.Decoder(CheckIn).decode
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "check-in": lambda body: decoded(check_in_of, body).check(),
    "report": lambda body: decoded(msgspec.json.Decoder(Report).decode, body),
    "enrol": lambda body: decoded(msgspec.json.Decoder(Enrol).decode, body),
    "feedback": lambda body: feedback_of(body).said,
    "configuration": lambda body: config_of(body).attributes,
}
GOOD = {
    "check-in": {"commit": "a" * 64, "version": 1, "hardware_id": "rpi4", "tag": "main", "labels": {"a": "b"}},
    "report": {"events": [{"id": "e", "rollout": "r", "target": 42, "event": "failed", "code": "x"}]},
    "enrol": {"device": "dev", "hardware_id": "rpi4", "labels": {"a": "b"}},
    "feedback": {
        "id": "1",
        "status": {"execution": "closed", "result": {"finished": "success", "progress": {"cnt": 1}}, "details": ["x"]},
    },
    "configuration": {"mode": "merge", "data": {"swVersion": "1.0.0", "serial": 7}},
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read(name: str, body: bytes) -> None:
    refused: Problem | None = None
    try:
        PARSERS[name](body)
    except InvalidInput:
        pass
    except Problem as problem:
        refused = problem
    assert refused is None or refused.status == 400


@pytest.mark.parametrize("name", PARSERS)
@given(body=st.binary(max_size=200))
def test_any_bytes(name: str, body: bytes) -> None:
    read(name, body)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_a_good_body_with_something_else_in_one_place(name: str, data: st.DataObject) -> None:
    body: Any = json.loads(json.dumps(GOOD[name]))
    place = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(values)
        break
    read(name, json.dumps(body).encode())


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_a_good_body_with_flipped_bits_or_cut_off(name: str, data: st.DataObject) -> None:
    body = bytearray(json.dumps(GOOD[name]).encode())
    for where in data.draw(st.lists(st.integers(0, 8 * len(body) - 1), max_size=5)):
        body[where // 8] ^= 1 << where % 8
    read(name, bytes(body[: data.draw(st.integers(0, len(body)))]))


@pytest.mark.parametrize("name", PARSERS)
def test_a_deep_body(name: str) -> None:
    read(name, b"[" * 60_000)
    read(name, b'{"status":' * 20_000)


@given(body=st.binary(max_size=100))
def test_feedback_is_known_by_its_words(body: bytes) -> None:
    assert event_id(1, "", body) == event_id(1, "", body) != event_id(2, "", body)
