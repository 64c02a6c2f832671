"""``Idempotency-Key``: an order that is sent again is not carried out again, however it went."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.errors import Busy
from tests.cli.house import House
from tests.web.asking import Asking

START = "/rollouts/lmp-42/start"


def keyed(key: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": key}}


def entries(api: Asking) -> list[str]:
    return [each["event"] for each in api.ok("GET", "/rollouts/lmp-42/journal")["items"]]


def test_the_same_again_gets_the_same_answer_and_does_nothing(api: Asking) -> None:
    first = api("POST", START, json={"reason": "x"}, **keyed("a"))
    again = api("POST", START, json={"reason": "x"}, **keyed("a"))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert entries(api).count("started") == 1


def test_a_refusal_is_answered_again_as_it_was(api: Asking) -> None:
    first = api.refused(409, "wrong_state", "POST", "/rollouts/lmp-42/pause", **keyed("a"))
    api.ok("POST", START)
    again = api.refused(409, "wrong_state", "POST", "/rollouts/lmp-42/pause", **keyed("a"))
    assert again == first


def test_a_key_is_one_request_of_one_person(api: Asking) -> None:
    api.ok("POST", START, json={"reason": "x", "dry_run": True}, **keyed("a"))
    said = api.refused(409, "refused", "POST", START, json={"reason": "y", "dry_run": True}, **keyed("a"))
    assert "another request" in said["detail"]
    api.refused(409, "refused", "POST", "/rollouts/lmp-42/halt", json={"reason": "x", "dry_run": True}, **keyed("a"))
    api.ok("POST", START, "admin", json={"reason": "y", "dry_run": True}, **keyed("a"))


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
def test_what_cannot_be_a_key_is_refused(api: Asking, key: str) -> None:
    api.refused(400, "invalid_input", "POST", START, **keyed(key))


def test_of_many_at_once_one_is_carried_out(api: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits in the middle of its order until all the others were answered."""
    within, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("orchestrator.services.rollouts.transitions.to_status", _waiting(within, go_on))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(api, "POST", START, **keyed("a"))
        assert within.wait(20)
        others = [pool.submit(api, "POST", START, **keyed("a")) for _ in range(6)]
        go_on.set()
        answers = [first.result(20), *(each.result(20) for each in others)]
    assert entries(api).count("started") == 1
    assert {each.status_code for each in answers} <= {200, 409}
    assert first.result().status_code == 200
    for each in answers:
        if each.status_code == 409:
            assert each.json()["type"] == "urn:wave:problem:conflict"


def _waiting(within: threading.Event, go_on: threading.Event) -> Any:
    from orchestrator.core.transitions import to_status

    def wait(*asked: Any, **more: Any) -> Any:
        within.set()
        assert go_on.wait(20)
        return to_status(*asked, **more)

    return wait


def test_what_was_not_done_may_be_sent_again(api: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*asked: Any, **more: Any) -> Any:
        raise Busy("The database was busy.")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.services.rollouts.transitions.to_status", busy)
        api.refused(503, "busy", "POST", START, **keyed("a"))
    api.ok("POST", START, **keyed("a"))


def test_of_what_was_begun_and_never_answered_nobody_says_that_it_was_done(api: Asking, house: House) -> None:
    with house.application() as app, app.store.writing() as w:
        w.begin_once("a releaser", "a", b"another", now=house.now)
    api.refused(409, "refused", "POST", START, **keyed("a"))

    def mistake(*asked: Any, **more: Any) -> Any:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.services.rollouts.transitions.to_status", mistake)
        assert api("POST", START, **keyed("b")).status_code == 500
    api.refused(409, "conflict", "POST", START, **keyed("b"))
    house.now += timedelta(hours=1)
    said = api.refused(409, "refused", "POST", START, **keyed("b"))
    assert "nobody knows" in said["detail"]
    house.now += timedelta(hours=24)
    api.ok("POST", START, **keyed("b"))


def test_a_token_that_is_shown_once_is_not_kept_for_a_second_time(api: Asking, house: House) -> None:
    _, token = api.ok("POST", "/enrolments", "admin", json={"kind": "enrolment", "tag": "promoted"}, **keyed("a"))
    body = {"kind": "enrolment", "tag": "promoted"}
    said = api.refused(409, "refused", "POST", "/enrolments", "admin", json=body, **keyed("a"))
    assert "shown that once" in said["detail"]
    assert len(api.ok("GET", "/enrolments")["items"]) == 1
    for file in house.root.glob("wave.db*"):
        assert token.encode() not in file.read_bytes()
