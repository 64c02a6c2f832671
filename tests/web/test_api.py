"""The operators' API: who may do what, what is refused in which words, and that lists are whole page by page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from orchestrator.core.roles import Role, may
from orchestrator.services.operations import OPERATIONS, Operation
from orchestrator.web.bounds import MOST_BYTES
from tests.cli.house import ROLLOUT, House
from tests.web.asking import Asking
from tests.web.described import OPERATORS, operators

NAMED = {"name": "lmp-42", "wave": "lab", "device_id": "lab-00", "old_id": "lab-00", "which": "42"}
FILE = ROLLOUT.format(policy="accelerated")


def path_of(operation: Operation) -> str:
    return operation.path.format_map({**NAMED, "before": "41", "after": "42"})


def test_the_description_in_docs_is_of_this_api() -> None:
    assert OPERATORS.read_text(encoding="utf-8") == operators(), "run python -m tests.docs.generate"


def test_the_description_is_served_to_anybody(api: Asking) -> None:
    assert api.client.get("/api/v1/openapi.json").json() == json.loads(operators())


def test_nobody_does_what_their_role_does_not_say(api: Asking) -> None:
    for operation in OPERATIONS:
        stranger = api.client.request(operation.method, f"/api/v1{path_of(operation)}")
        assert stranger.status_code == 401, operation.key
        for role in Role:
            if not may([role], operation.role):
                api.refused(403, "forbidden", operation.method, path_of(operation), role)


def test_a_viewer_who_acts_changes_nothing(api: Asking, house: House) -> None:
    api.refused(403, "forbidden", "POST", "/rollouts/lmp-42/start", "viewer", json={"reason": "because"})
    api.refused(403, "forbidden", "POST", "/rollouts/lmp-42/start", "approver", content=b"{" * 100)
    assert house.json("status", "lmp-42")["status"] == "draft"


def test_an_order_is_given_and_the_journal_says_by_whom(api: Asking) -> None:
    started = api.ok("POST", "/rollouts/lmp-42/start", json={"reason": "it is time", "dry_run": True})
    assert started["status"] == "running"
    assert api.ok("GET", "/rollouts/lmp-42", "viewer")["summary"]["status"] == "draft"
    api.ok("POST", "/rollouts/lmp-42/start", json={"reason": "it is time"})
    halted = api.ok("POST", "/rollouts/lmp-42/halt", json={"reason": "black screens"})
    assert halted == {
        "rollout": "lmp-42",
        "status": "halted",
        "sentence": "Rollout lmp-42 is halted: nothing more is offered.",
    }
    last = api.ok("GET", "/rollouts/lmp-42/journal", "viewer")["items"][-1]
    assert (last["event"], last["by"]) == ("halted", "a releaser")
    assert "black screens" in last["sentence"]
    said = api.refused(409, "wrong_state", "POST", "/rollouts/lmp-42/pause")
    assert "halted" in said["detail"]


def test_nobody_says_in_whose_name_they_order(api: Asking) -> None:
    said = api.refused(400, "invalid_input", "POST", "/rollouts/lmp-42/halt", json={"by": "somebody else"})
    assert "by" in said["detail"]


def test_a_rollout_is_applied_as_text_and_as_an_object(api: Asking) -> None:
    text = FILE.replace("lmp-42", "again")
    assert api.ok("POST", "/rollouts", json={"rollout": text, "dry_run": True})["created"]
    made = api.ok("POST", "/rollouts", json={"rollout": text})
    assert made["rollout"] == "again"
    policy = api.ok("GET", "/policies/accelerated", "viewer")["document"]
    as_object = {"rollout": "again", "target": 42, "tag": "promoted", "policy": "accelerated"}
    waves: list[Any] = [{"wave": "lab", "devices": {"group": "lab"}}, {"wave": "canary", "devices": {"count": 20}}]
    waves.append({"wave": "rest", "devices": "all", "policy": {"promote": "manual"}})
    same = api.ok("POST", "/rollouts", json={"rollout": {**as_object, "waves": waves}, "policy": policy})
    assert (same["spec_digest"], same["changes"]) == (made["spec_digest"], [])
    assert len(api.ok("POST", "/plans", "viewer", json={"rollout": text})["waves"]) == 3


def test_a_file_that_cannot_be_taken_is_told_with_line_and_key_and_everything_that_is_wrong(api: Asking) -> None:
    text = FILE.replace("{count: 20}", "{count: -1}").replace("target: 42", "target: x")
    said = api.refused(400, "invalid_file", "POST", "/plans", json={"rollout": text})
    assert [(each["file"], each["line"], each["path"]) for each in said["problems"]] == [
        ("rollout", 3, "target"),
        ("rollout", 10, "waves[1].devices.count"),
    ]
    assert (said["file"], said["line"], said["path"]) == ("rollout", 3, "target")


@pytest.mark.parametrize("policy", ["../../secrets.yaml", "/etc/passwd", "./mine.yaml"])
def test_no_path_in_a_file_leads_anywhere(api: Asking, policy: str) -> None:
    text = FILE.replace("policy: accelerated", f"policy: {policy}")
    said = api.refused(400, "invalid_file", "POST", "/plans", json={"rollout": text})
    assert "leads nowhere" in said["detail"]
    api.refused(400, "invalid_file", "POST", "/plans", json={"rollout": FILE, "policy": policy})


def test_a_name_that_can_be_nobodys_is_not_found(api: Asking) -> None:
    for name in ("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "a%0ab", "\N{GRINNING FACE}", "x" * 5000):
        for path in (
            "/rollouts/{}",
            "/devices/{}",
            "/targets/{}",
            "/policies/{}",
            "/artifacts/{}",
            "/rollouts/{}/halt",
        ):
            answer = api("POST" if path.endswith("halt") else "GET", path.format(name))
            assert answer.status_code in (400, 404, 405), (name, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


def test_a_list_is_whole_page_by_page(api: Asking) -> None:
    found: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(20):
        page = api.ok("GET", "/devices", "viewer", params={"limit": 7, **cursor})
        assert len(page["items"]) <= 7
        found += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == sorted(found)
    assert len(found) == 34 == api.ok("GET", "/counts/devices", "viewer")


def test_a_list_that_shrinks_between_two_pages_goes_on_where_it_stood(api: Asking) -> None:
    for name in ("one", "two", "three"):
        api.ok("POST", "/rollouts", json={"rollout": FILE.replace("lmp-42", name)})
    first = api.ok("GET", "/rollouts", "viewer", params={"limit": 2})
    assert [each["rollout"] for each in first["items"]] == ["three", "two"]
    rest = api.ok("GET", "/rollouts", "viewer", params={"limit": 2, "cursor": first["next"]})
    assert [each["rollout"] for each in rest["items"]] == ["one", "lmp-42"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=%F0", "nonsense=1", "tag=a&tag=b", "label=x"]
)
def test_a_page_that_cannot_be_is_refused(api: Asking, query: str) -> None:
    api.refused(400, "invalid_input", "GET", f"/devices?{query}", "viewer")


def test_a_cursor_of_another_list_is_refused(api: Asking) -> None:
    cursor = api.ok("GET", "/devices", "viewer", params={"limit": 1})["next"]
    api.refused(400, "invalid_input", "GET", f"/targets?cursor={cursor}", "viewer")


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"reason": 7}', "application/json", 400),
        (b'{"reasons": "x"}', "application/json", 400),
        (b"reason=x", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b"x" * (MOST_BYTES + 1), "application/json", 413),
    ],
)
def test_a_body_that_cannot_be_is_refused(api: Asking, body: bytes, media: str, status: int) -> None:
    answer = api("POST", "/rollouts/lmp-42/start", content=body, headers={"content-type": media})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_body_without_an_announced_length_is_read_no_further_than_it_may_be(api: Asking) -> None:
    pieces = iter([b" " * 65_536] * (MOST_BYTES // 65_536 + 1))
    answer = api("POST", "/rollouts/lmp-42/start", content=pieces, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_token_is_shown_once_and_its_digest_never(api: Asking) -> None:
    grant, token = api.ok("POST", "/enrolments", "admin", json={"kind": "enrolment", "tag": "promoted", "uses": 1})
    listed = api.ok("GET", "/enrolments", "viewer")["items"]
    assert [each["name"] for each in listed] == [grant["name"]]
    assert token not in json.dumps(listed)
    assert not grant["digest"]
    assert not listed[0]["digest"]


def test_every_answer_says_what_time_it_is_there(api: Asking, house: House) -> None:
    assert api("GET", "/rollouts", "viewer").headers["wave-now"] == house.now.isoformat()


def test_it_is_openapi_to_another_reader() -> None:
    schema = from_dict(json.loads(operators()))
    assert [operation for operation in schema.get_all_operations() if not isinstance(operation, Ok)] == []


def test_a_session_may_look_too(api: Asking) -> None:
    client = TestClient(api.client.app, cookies={"wave_session": "viewer"})
    assert client.get("/api/v1/rollouts").status_code == 200
