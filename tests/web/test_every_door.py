"""Every route there is, asked by everybody who may not: nobody, who was somebody, a forged page, a viewer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from orchestrator.core.roles import Role, may
from orchestrator.services.operations import OPERATIONS
from orchestrator.web.csrf import SAFE, csrf_token
from tests.cli.house import House
from tests.web.house_of_people import FILLED, Populated, doors

FOR_ANYBODY = {
    ("GET", "/api/v1/openapi.json"),
    ("OPTIONS", "/api/v1/uploads"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("GET", "/sign-in/oidc"),
    ("GET", "/sign-in/oidc/callback"),
    ("GET", "/sign-in.css"),
    ("GET", "/static/lmp-42"),
    ("POST", "/sign-out"),
    ("GET", "/"),
}
"""What says nothing of this installation and changes nothing of it."""

ASKS_BY_POST = {
    ("POST", "/api/v1/plans"),
    ("POST", "/api/v1/rollouts/lmp-42/replay"),
    ("POST", "/api/v1/artifacts/verify"),
}
"""Questions that are too long for an address: a viewer may ask them."""


WAVES = [{"wave": "all", "devices": "all"}]
BODIES = {
    "/api/v1/freeze": {"reason": "a fire"},
    "/api/v1/rollouts/lmp-42/exclude": {"segment": "hardware_id=rpi4", "reason": "a fire"},
    "/api/v1/rollouts/lmp-42/include": {"segment": "hardware_id=rpi4", "reason": "a fire"},
}
"""What some orders cannot be given without."""


@pytest.fixture
def inside(house: House) -> Iterator[Populated]:
    with house.application() as app:
        yield Populated(house, app)


def stands(inside: Populated) -> object:
    """All that a person could have changed."""
    with inside.app.store.reading() as r:
        names = [row.state for row in r.rollouts()]
        return (r.feed_head(), names, r.frozen(), r.groups(), r.targets(), r.grants(), r.people(), r.stir())


@pytest.mark.parametrize("shown", ["nothing", "another's token", "an expired token", "a revoked token", "signed out"])
def test_no_door_opens_to_nobody(inside: Populated, shown: str) -> None:
    client = inside.client()
    match shown:
        case "another's token":
            client.headers["authorization"] = "Bearer wave_of-another-house"
        case "an expired token":
            client.headers["authorization"] = f"Bearer {inside.token('admin', for_=timedelta(hours=1))[1]}"
            inside.house.now += timedelta(hours=1)
        case "a revoked token":
            name, text = inside.token("admin")
            client.headers["authorization"] = f"Bearer {text}"
            inside.people.revoke_token(name, by="root")
        case "signed out":
            session = inside.session("admin")
            client.cookies.set("wave_session", session)
            client.headers["x-csrf-token"] = csrf_token(session)
            inside.door.sign_out(session)
    before = stands(inside)
    for method, path in doors(inside.side()):
        if (method, path) in FOR_ANYBODY:
            continue
        answer = client.request(method, path)
        if path.startswith("/api/") or path == "/metrics":
            assert answer.status_code == 401, (method, path, answer.text)
        else:
            assert answer.status_code == 303, (method, path, answer.text)
            assert answer.headers["location"].startswith("/sign-in")
    assert stands(inside) == before


@pytest.mark.parametrize("shown", ["nothing", "another session's token", "of another site"])
def test_no_door_takes_an_order_that_a_page_of_another_made_the_browser_send(inside: Populated, shown: str) -> None:
    session = inside.session("admin")
    client = inside.client(cookies={"wave_session": session})
    match shown:
        case "another session's token":
            client.headers["x-csrf-token"] = csrf_token(inside.session("admin"))
        case "of another site":
            client.headers["x-csrf-token"] = csrf_token(session)
            client.headers["sec-fetch-site"] = "cross-site"
    before = stands(inside)
    writing = [(method, path) for method, path in doors(inside.side()) if method not in SAFE]
    assert len(writing) > 40
    for method, path in writing:
        answer = client.request(method, path)
        assert answer.status_code == 403, (method, path, answer.text)
        assert "page of" in answer.text, (method, path)
    assert stands(inside) == before
    assert client.get("/api/v1/me").status_code == 200, "not even the session is ended by another's page"


def test_what_a_get_asks_for_changes_nothing_whatever_it_calls_itself(inside: Populated) -> None:
    session = inside.session("admin")
    client = inside.client(cookies={"wave_session": session})
    before = stands(inside)
    posing = {"x-http-method-override": "POST", "x-method-override": "DELETE", "x-http-method": "PATCH"}
    for method, path in doors(inside.side()):
        if method == "GET" and path not in ("/live", "/api/v1/journal/feed"):
            client.request(method, path, headers=posing, params={"_method": "POST", "step": "do", "reason": "because"})
    assert stands(inside) == before


@pytest.mark.parametrize("by", ["session", "token"])
def test_a_viewer_who_tries_every_door_changes_nothing(inside: Populated, by: str) -> None:
    client = inside.client()
    if by == "session":
        session = inside.session("viewer")
        client.cookies.set("wave_session", session)
        client.headers["x-csrf-token"] = csrf_token(session)
    else:
        client.headers["authorization"] = f"Bearer {inside.token('viewer')[1]}"
    before = stands(inside)
    for method, path in doors(inside.side()):
        if method in SAFE or (method, path) in FOR_ANYBODY or (method, path) in ASKS_BY_POST:
            continue
        answer = client.request(method, path, headers={"tus-resumable": "1.0.0"})
        assert answer.status_code == 403, (method, path, answer.text)
    assert stands(inside) == before
    assert client.get("/rollouts/lmp-42/order/halt").status_code == 403


def test_a_token_for_other_tags_opens_no_door_to_orders(inside: Populated) -> None:
    """Whatever its roles say: nothing about rollouts of another tag, and nothing that is about no rollout."""
    client = inside.client(headers={"authorization": f"Bearer {inside.token('admin', tags=['beta'])[1]}"})
    before = stands(inside)
    for method, path in doors(inside.side()):
        if method in SAFE or (method, path) in FOR_ANYBODY or (method, path) in ASKS_BY_POST:
            continue
        # What every order needs, so that it is not refused for want of that.
        answer = client.request(method, path, headers={"tus-resumable": "1.0.0"}, json=BODIES.get(path, {}))
        assert answer.status_code in (400, 403), (method, path, answer.text)
        if answer.status_code == 400:
            assert "object" in answer.json()["detail"].lower() or "missing" in answer.json()["detail"], (
                path,
                answer.text,
            )
    assert stands(inside) == before
    for name in ("halt", "pause", "start"):
        assert client.post(f"/api/v1/rollouts/lmp-42/{name}", json={}).status_code == 403
    file = {"rollout": "other", "target": 42, "tag": "promoted", "policy": "accelerated", "waves": WAVES}
    assert client.post("/api/v1/rollouts", json={"rollout": file}).status_code == 403
    # Nor by giving another's rollout a tag of one's own.
    mine = {**file, "rollout": "lmp-42", "tag": "beta"}
    assert client.post("/api/v1/rollouts", json={"rollout": mine, "yes": True}).status_code == 403
    assert client.post("/api/v1/rollouts/nobody/halt", json={}).status_code == 404
    assert stands(inside) == before


def test_a_token_for_a_tag_orders_about_its_rollouts_and_sees_everything(inside: Populated) -> None:
    client = inside.client(headers={"authorization": f"Bearer {inside.token('releaser', tags=['promoted', 'x'])[1]}"})
    assert client.get("/api/v1/me").json() == {
        "name": "releaser",
        "roles": ["releaser", "viewer"],
        "tags": ["promoted", "x"],
    }
    assert client.post("/api/v1/rollouts/lmp-42/start", json={}).status_code == 200
    assert client.get("/api/v1/devices").status_code == 200
    assert client.get("/rollouts/lmp-42/order/halt").status_code == 200
    file = {"rollout": "other", "target": 42, "tag": "promoted", "policy": "accelerated", "waves": WAVES}
    assert client.post("/api/v1/rollouts", json={"rollout": file}).status_code == 200
    assert client.post("/api/v1/freeze", json={"reason": "a fire"}).status_code == 403
    assert client.post("/api/v1/rollouts/lmp-42/approve", json={}).status_code == 403, "and no more than its role"


@pytest.mark.parametrize("role", list(Role), ids=str)
def test_a_role_may_the_same_at_every_door(inside: Populated, role: Role) -> None:
    """The console gives no order that the API would refuse, and the other way round."""
    from orchestrator.web.console.verbs import VERBS

    client = inside.client(headers={"authorization": f"Bearer {inside.token(role.value)[1]}"})
    needed = {
        each.path.rpartition("/")[2]: each.role for each in OPERATIONS if each.path.startswith("/rollouts/{name}/")
    }
    assert set(VERBS) <= set(needed)
    for verb in VERBS:
        seen = client.get(f"/rollouts/lmp-42/order/{verb}").status_code
        assert (seen == 403) is not may([role], needed[verb]), verb


def test_every_answer_says_what_a_browser_must_not_make_of_it(inside: Populated) -> None:
    client = inside.client(headers={"authorization": f"Bearer {inside.token('viewer')[1]}"})
    paths = [path for method, path in doors(inside.side()) if method == "GET"]
    for path in [*paths, "/api/v1/nothing", "/nothing", "/api/v1/rollouts/<script>"]:
        if path in ("/live", "/api/v1/journal/feed"):
            continue
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"] or path == "/studies/x.svg", path
        assert headers["referrer-policy"] == "same-origin", path


def test_filled_blanks_are_of_something_that_is_there(inside: Populated) -> None:
    """Else every door would be shut for another reason."""
    client = inside.client(headers={"authorization": f"Bearer {inside.token('admin')[1]}"})
    for path in ("/api/v1/rollouts/lmp-42", "/api/v1/devices/lab-00", "/api/v1/targets/42", "/rollouts/lmp-42"):
        assert client.get(path).status_code == 200, path
    assert set(FILLED) == {"name", "verb", "wave", "which", "device_id", "old_id"}
