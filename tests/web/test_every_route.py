"""What holds of every route of the operators' API, whichever it is: errors are problem documents, lists are whole page
by page, orders are given once by key, and no answer holds a secret."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from orchestrator.core.roles import Role
from orchestrator.services.operations import OPERATIONS
from orchestrator.web.api.described import describe
from orchestrator.web.bounds import MOST_BYTES
from tests.cli.house import House
from tests.web.asking import Asking
from tests.web.everything import NAMES, furnish

NAMED = {"name": "lmp-42", "wave": "lab", "device_id": "lab-00", "old_id": "lab-00", "which": "42"}
QUERY = {"queries.device": {}, "deltas.resolve_pair": {"before": "41", "after": "42"}, "people.get": {"name": "ann"}}
QUERY["deltas.static_deltas"] = {"version": "42", "tag": "promoted"}

LISTS = [operation for operation in OPERATIONS if operation.listing is not None]
WRITES = [operation for operation in OPERATIONS if operation.writes]
SENT = [operation for operation in OPERATIONS if operation.method == "POST"]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def path_of(path: str) -> str:
    return path.format_map({**NAMED, "before": "41", "after": "42", "upload_id": "0" * 32})


def is_problem(answer: Any, status: int) -> Any:
    """What it says. No line of the program is in it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    said = answer.json()
    assert said["type"].startswith("urn:wave:problem:")
    assert said["status"] == status
    assert said["title"] and said["detail"].endswith("."), said
    assert "Traceback" not in answer.text and ".py" not in answer.text
    return said


@pytest.fixture
def whole(api: Asking, house: House) -> tuple[Asking, list[str]]:
    """No list is empty; what no answer may hold."""
    return api, furnish(house, api.app)


# ------------------------------------------------------------------------------------------------- errors


def test_another_method_or_path_is_a_problem(api: Asking) -> None:
    paths = describe()["paths"]
    for path, known in paths.items():
        real = path_of(path)
        taken = {method.upper() for each, said in paths.items() if path_of(each) == real for method in said}
        taken |= {"GET", "DELETE"} if _also_a_name(real, paths) else set()
        for method in sorted(METHODS - taken - {"PARAMETERS"}):
            answer = api.client.request(method, real, headers={"authorization": "Bearer admin"})
            said = is_problem(answer, 405)
            assert said["type"].endswith("method_not_allowed"), (method, real)
            assert answer.headers["allow"], (method, real, known)
        slashed = api.client.get(f"{real}/", headers={"authorization": "Bearer admin"}, follow_redirects=False)
        is_problem(slashed, 404)
    is_problem(api("GET", "/nothing"), 404)
    is_problem(api("GET", "/"), 404)


def _also_a_name(path: str, paths: dict[str, Any]) -> bool:
    """Whether a path that is written out has the form of one with a name in it."""
    forms = [re.compile(re.sub(r"\{\w+\}", "[^/]+", each)) for each in paths if "{" in each]
    return any(each.fullmatch(path) for each in forms)


def test_a_body_that_cannot_be_is_a_problem(api: Asking) -> None:
    for operation in SENT:
        path = path_of(operation.path)
        json_ = {"content-type": "application/json"}
        for content, headers, status in (
            (b"{}", {"content-type": "text/plain"}, 415),
            (b"{}", {**json_, "content-encoding": "gzip"}, 415),
            (b"x" * (MOST_BYTES + 1), json_, 413),
            (b"{", json_, 400),
            (b"[]", json_, 400),
            (b'{"nobody knows this": 1}', json_, 400),
            (b"[" * 100_000, json_, 400),
            (b'"\xff"', json_, 400),
            (b'{"name": "\\ud800"}', json_, 400),
        ):
            is_problem(api("POST", path, "admin", content=content, headers=headers), status)


def test_a_mistake_of_the_servers_is_a_problem(api: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*given: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("orchestrator.web.api.routes._done", mistake)
    for operation in OPERATIONS:
        answer = api(operation.method, path_of(operation.path), "admin")
        assert is_problem(answer, 500)["type"].endswith("internal"), operation.key
        assert "secret" not in answer.text


def test_who_is_nobody_is_told_how_to_say_who_they_are(api: Asking) -> None:
    for operation in OPERATIONS:
        for headers in ({}, {"authorization": "Bearer nobody"}, {"authorization": "Basic YTpi"}, {"cookie": "x=y"}):
            answer = api.client.request(operation.method, f"/api/v1{path_of(operation.path)}", headers=headers)
            is_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"


# ------------------------------------------------------------------------------------------------- lists


def test_whatever_is_many_is_a_page() -> None:
    """Asked for by GET, nothing answers with all there is."""
    bare = []
    for operation in OPERATIONS:
        answer = describe()["paths"][f"/api/v1{operation.path}"][operation.method.lower()]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"]
        many = schema.get("type") == "array" and schema.get("items") is not False
        if operation.method == "GET" and many:
            bare.append(operation.key)
    assert bare == []


def test_a_list_is_the_same_item_by_item(whole: tuple[Asking, list[str]]) -> None:
    for operation in LISTS:
        api, _ = whole
        path = path_of(operation.path)
        everything = api.ok("GET", path, "admin", params={"limit": 1000})
        assert everything["next"] is None
        assert len(everything["items"]) >= 3, "nothing to page through"
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = api.ok("GET", path, "admin", params={"limit": 1, **cursor})
            assert len(page["items"]) == 1
            found += page["items"]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert found == everything["items"]


def test_no_page_is_larger_than_it_may_be_and_no_cursor_is_forged(whole: tuple[Asking, list[str]]) -> None:
    for operation in LISTS:
        api, _ = whole
        path = path_of(operation.path)
        for limit in ("0", "-1", "1001", "9" * 40, "1.5", "x", "", "1&limit=2"):
            is_problem(api("GET", f"{path}?limit={limit}", "admin"), 400)
        for key in ("a", 1, -1, 2**63, 10**40, 1.5, None, [1], {"a": 1}, "\x00", "x" * 10_000, "' OR 1=1 --"):
            for at in (0, -5, 2**70):
                answer = api("GET", path, "admin", params={"cursor": forged(operation.key, key, at)})
                assert answer.status_code in (200, 400, 404), answer.text
                if answer.status_code != 200:
                    is_problem(answer, answer.status_code)
        for cursor in ("x", "%00", "\N{GRINNING FACE}", "A" * 5_000, forged("another.list", "a", 0)):
            is_problem(api("GET", path, "admin", params={"cursor": cursor}), 400)


def forged(operation: str, key: object, at: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([operation, key, at]).encode()).rstrip(b"=").decode()


# ------------------------------------------------------------------------------------------------- once


def test_an_order_is_given_once_by_key(whole: tuple[Asking, list[str]]) -> None:
    for operation in WRITES:
        api, _ = whole
        path, sends = path_of(operation.path), operation.method == "POST"
        keyed = {"headers": {"idempotency-key": operation.key}}
        body: dict[str, Any] = {"json": {}} if sends else {}
        first = api(operation.method, path, "admin", **body, **keyed)
        again = api(operation.method, path, "admin", **body, **keyed)
        if operation.secret and first.status_code == 200:
            assert "shown that once" in is_problem(again, 409)["detail"]
        elif first.status_code == 503 or b"urn:wave:problem:conflict" in first.content:
            assert again.status_code == first.status_code  # nothing was done: it may be sent again
        else:
            assert (again.status_code, again.content) == (first.status_code, first.content)
            assert again.headers["idempotency-replayed"] == "true"
        if first.status_code != 503:
            another = {"json": {"dry_run": True, "x": 1}} if sends else {"params": {"x": "1"}}
            assert (
                "another request" in is_problem(api(operation.method, path, "admin", **another, **keyed), 409)["detail"]
            )


def test_a_key_says_nothing_to_anybody_else(whole: tuple[Asking, list[str]]) -> None:
    api, _ = whole
    keyed = {"headers": {"idempotency-key": "a"}}
    api.ok("POST", "/rollouts/lmp-42/pause", "admin", json={"reason": "mine"}, **keyed)
    answer = api("POST", "/rollouts/lmp-42/pause", "releaser", json={"reason": "mine"}, **keyed)
    assert "idempotency-replayed" not in answer.headers
    is_problem(answer, 409)
    for role in ("viewer", "approver"):
        is_problem(api("POST", "/rollouts/lmp-42/pause", role, json={"reason": "mine"}, **keyed), 403)


def test_an_upload_is_begun_once_by_key(api: Asking) -> None:
    filename = base64.b64encode(b"i.img").decode()
    headers = {"tus-resumable": "1.0.0", "upload-length": "7", "upload-metadata": f"filename {filename}"}
    first, again = (api("POST", "/uploads", headers={**headers, "idempotency-key": "a"}) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.headers["location"] == again.headers["location"]
    is_problem(api("POST", "/uploads", headers={**headers, "upload-length": "8", "idempotency-key": "a"}), 409)
    assert api("POST", "/uploads", headers=headers).headers["location"] != first.headers["location"]


def test_what_changes_nothing_keeps_nothing(api: Asking) -> None:
    """Whoever may only look cannot fill the store with answers."""
    for operation in OPERATIONS:
        if operation.role is Role.VIEWER and operation.method == "POST":
            body = {"json": {}, "headers": {"idempotency-key": "a"}}
            for _ in range(2):
                assert "idempotency-replayed" not in api("POST", path_of(operation.path), "viewer", **body).headers


# ------------------------------------------------------------------------------------------------- secrets


def test_no_answer_holds_a_secret(whole: tuple[Asking, list[str]]) -> None:
    api, secrets = whole
    for operation in OPERATIONS:
        if operation.method != "GET":
            continue
        answer = api("GET", path_of(operation.path), "admin", params=QUERY.get(operation.key, {}))
        for secret in secrets:
            assert secret not in answer.text, operation.key
    people = api.ok("GET", "/people", "admin")["items"]
    assert [each["name"] for each in people] == list(NAMES)
    assert [each["has_password"] for each in people] == [True, False, False]


def test_only_an_admin_knows_of_people_and_their_tokens(whole: tuple[Asking, list[str]]) -> None:
    api, _ = whole
    for operation in OPERATIONS:
        if operation.service == "people":
            for role in ("viewer", "releaser", "approver"):
                is_problem(api(operation.method, path_of(operation.path), role), 403)


def test_a_password_is_nowhere_to_be_tried_against(api: Asking, house: House) -> None:
    """Of a body that is remembered for its key no digest is kept that is quickly made."""
    import hashlib

    body = json.dumps({"name": "dan", "roles": ["viewer"], "password": "correct horse battery"}).encode()
    headers = {"idempotency-key": "a", "content-type": "application/json"}
    answer = api("POST", "/people", "admin", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "battery" not in answer.text
    quick = hashlib.sha256(b"POST\0/api/v1/people\0\0" + body).digest()
    for file in house.root.glob("wave.db*"):
        assert b"battery" not in file.read_bytes()
        assert quick not in file.read_bytes()
    assert api("POST", "/people", "admin", content=body, headers=headers).headers["idempotency-replayed"] == "true"
