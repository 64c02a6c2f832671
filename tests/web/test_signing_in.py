"""Signing in and out at the console's door, and requests that somebody forged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

import pytest
from argon2 import PasswordHasher
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient

from orchestrator.adapters.sql.store import open_store
from orchestrator.core.roles import Role
from orchestrator.services.application import Application
from orchestrator.services.passwords import Passwords
from orchestrator.services.people import Person
from orchestrator.services.people_door import Door
from orchestrator.services.people_orders import People
from orchestrator.web.app import operators_side
from orchestrator.web.asking import asks
from orchestrator.web.csrf import csrf_token
from orchestrator.web.signing_in import local

WORDS = "correct horse battery"
NAME = '<script>alert("x")</script>'
HTTPS = "https://wave.example"
COOKIE = "__Host-wave_session"

orders = APIRouter()


@orders.post("/order")
def order(person: Annotated[Person, Depends(asks(Role.RELEASER))]) -> str:
    return person.name


class Site:
    """The operators' side with two people, as a browser sees it."""

    def __init__(self, base: str = HTTPS, *, secure: bool = False) -> None:
        self.now = datetime(2026, 5, 4, 9, tzinfo=UTC)
        self.store = open_store("sqlite://")
        passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        self.people = People(self.store, lambda: self.now, passwords)
        self.door = Door(
            self.store, lambda: self.now, idle=timedelta(hours=12), at_most=timedelta(days=7), passwords=passwords
        )
        self.app: FastAPI = operators_side(cast(Application, None), doorkeeper=self.door, secure=secure)
        self.app.include_router(orders)
        self.base = base
        self.client = self.browser()

    def browser(self) -> TestClient:
        return TestClient(self.app, base_url=self.base, raise_server_exceptions=False, follow_redirects=False)

    def sign_in(self, name: str = NAME, password: str = WORDS, **more: str):
        page = self.client.get("/sign-in").text
        (csrf,) = re.findall(r'name="csrf" value="(\w+)"', page)
        return self.client.post("/sign-in", data={"name": name, "password": password, "csrf": csrf, **more})

    @property
    def session(self) -> str:
        return self.client.cookies[COOKIE if self.base == HTTPS else "wave_session"]


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    made.people.add(NAME, [Role.RELEASER], by="root", password=WORDS)
    made.people.add("vi", [Role.VIEWER], by="root", password=WORDS)
    yield made
    made.store.close()


def test_who_signs_in_gets_a_cookie_that_no_script_and_no_other_site_can_use(site: Site) -> None:
    answer = site.sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    (kept,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(f"{COOKIE}=")]
    assert {"HttpOnly", "Path=/", "SameSite=strict", "Secure", "Max-Age=604800"} <= set(kept.split("; "))
    assert site.client.get("/api/v1/me").json() == {"name": NAME, "roles": ["releaser"]}
    assert site.client.get("/sign-in", params={"next": "/rollouts"}).headers["location"] == "/rollouts"


def test_without_tls_the_cookie_is_sent_without_it() -> None:
    site = Site("http://127.0.0.1:8701")
    site.people.add("ann", [Role.VIEWER], by="root", password=WORDS)
    answer = site.sign_in("ann")
    assert answer.status_code == 303
    assert "Secure" not in str(answer.headers.get_list("set-cookie"))
    site.store.close()


def test_a_session_after_sign_out_is_worth_nothing_to_whoever_has_it(site: Site) -> None:
    site.sign_in()
    stolen = site.session
    thief = site.browser()
    thief.cookies.set(COOKIE, stolen)
    assert thief.get("/api/v1/me").status_code == 200
    answer = site.client.post("/sign-out", data={"csrf": csrf_token(stolen)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert COOKIE not in site.client.cookies
    answer = thief.get("/api/v1/me")
    assert (answer.status_code, answer.json()["detail"]) == (401, "The session is over: sign in again.")


def test_a_cookie_that_somebody_planted_is_not_the_session(site: Site) -> None:
    site.client.cookies.set(COOKIE, "planted", domain="wave.example", path="/")
    assert site.sign_in().status_code == 303
    cookies = [each.value for each in site.client.cookies.jar if each.name == COOKIE]
    assert "planted" not in cookies
    thief = site.browser()
    thief.cookies.set(COOKIE, "planted")
    assert thief.get("/api/v1/me").status_code == 401


def test_signing_in_again_ends_the_session_before_and_its_csrf_token(site: Site) -> None:
    site.sign_in()
    first = site.session
    answer = site.client.post(
        "/sign-in", data={"name": "vi", "password": WORDS, "csrf": csrf_token(first), "next": "/"}
    )
    assert answer.status_code == 303
    assert site.session != first
    assert site.client.get("/api/v1/me").json()["name"] == "vi"
    assert site.client.post("/order", headers={"x-csrf-token": csrf_token(first)}).status_code == 403


def test_behind_a_proxy_that_is_not_believed_the_cookie_is_for_https_all_the_same() -> None:
    site = Site("http://127.0.0.1:8701", secure=True)
    site.people.add("ann", [Role.VIEWER], by="root", password=WORDS)
    answer = site.client.get("/sign-in")
    assert "Secure" in answer.headers["set-cookie"] and "__Host-wave_sign_in=" in answer.headers["set-cookie"]
    site.store.close()


def test_what_a_neighbour_or_somebody_on_the_way_has_planted_is_not_looked_at(site: Site) -> None:
    """Mallory's own session, under a name that other hosts of the domain may set: nobody works as Mallory."""
    site.people.add("mallory", [Role.RELEASER], by="root", password=WORDS)
    theirs = site.door.sign_in("mallory", WORDS, address="192.0.2.66")
    site.client.cookies.set("wave_session", theirs, domain="wave.example", path="/")
    assert site.client.get("/api/v1/me").status_code == 401
    site.sign_in()
    assert site.client.get("/api/v1/me").json()["name"] == NAME


@pytest.mark.parametrize("name", ["nobody", NAME])
def test_a_wrong_password_and_an_unknown_name_look_the_same(site: Site, name: str) -> None:
    answer = site.sign_in(name, "wrong")
    assert answer.status_code == 401
    assert "The name or the password is wrong." in answer.text
    assert COOKIE not in site.client.cookies
    assert answer.headers["cache-control"] == "no-store"


def test_a_name_that_is_html_is_shown_as_it_is_and_runs_nothing(site: Site) -> None:
    answer = site.sign_in(NAME, "wrong")
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_guessing_ends_in_a_wait_that_the_page_tells(site: Site) -> None:
    for _ in range(5):
        assert site.sign_in(NAME, "wrong").status_code == 401
    answer = site.sign_in()
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert "Try again in a second." in answer.text


# ------------------------------------------------------------------------------------------------- forgeries


def test_an_order_from_a_page_of_this_session_is_taken(site: Site) -> None:
    site.sign_in()
    token = csrf_token(site.session)
    assert site.client.post("/order", headers={"x-csrf-token": token}).json() == NAME
    assert site.client.post("/order", data={"csrf": token}).json() == NAME
    same = {"x-csrf-token": token, "sec-fetch-site": "same-origin", "origin": HTTPS}
    assert site.client.post("/order", headers=same).json() == NAME


@pytest.mark.parametrize("shown", ["nothing", "another", "in the address", "in JSON", "not ASCII", "a file"])
def test_an_order_without_the_csrf_token_is_refused(site: Site, shown: str) -> None:
    site.sign_in()
    token = csrf_token(site.session)
    match shown:
        case "nothing":
            answer = site.client.post("/order")
        case "another":
            answer = site.client.post("/order", data={"csrf": csrf_token("another")})
        case "in the address":
            answer = site.client.post("/order", params={"csrf": token})
        case "in JSON":
            answer = site.client.post("/order", json={"csrf": token})
        case "not ASCII":
            answer = site.client.post("/order", data={"csrf": "ünïcode"})
        case _:
            answer = site.client.post("/order", files={"csrf": token.encode()})
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:wave:problem:forbidden"
    assert "does not come from a page of this session" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://wave.example.evil.example"},
        {"origin": "https://wave.example:8443"},
    ],
    ids=str,
)
def test_a_page_of_another_site_is_refused_whatever_it_knows(site: Site, headers: dict[str, str]) -> None:
    site.sign_in()
    answer = site.client.post("/order", headers={"x-csrf-token": csrf_token(site.session), **headers})
    assert answer.status_code == 403
    assert "another site" in answer.json()["detail"]
    assert site.client.post("/sign-out", data={"csrf": csrf_token(site.session)}, headers=headers).status_code == 403
    assert site.client.get("/api/v1/me").status_code == 200


def test_nobody_is_signed_in_by_another_sites_page(site: Site) -> None:
    """Under whose name would they work then?"""
    form = {"name": "vi", "password": WORDS}
    assert site.client.post("/sign-in", data=form).status_code == 403
    site.client.get("/sign-in")
    answer = site.client.post("/sign-in", data={**form, "csrf": csrf_token("a guess")})
    assert answer.status_code == 403
    (csrf,) = re.findall(r'name="csrf" value="(\w+)"', answer.text)
    answer = site.client.post("/sign-in", data={**form, "csrf": csrf}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert COOKIE not in site.client.cookies
    assert site.client.post("/sign-in", data={**form, "csrf": csrf}).status_code == 303


@pytest.mark.parametrize("planted", ["", " "], ids=["empty", "blank"])
def test_an_empty_session_does_not_get_round_the_token_of_the_form(site: Site, planted: str) -> None:
    headers = {"cookie": f"{COOKIE}={planted}"}
    answer = site.browser().post("/sign-in", data={"name": "vi", "password": WORDS}, headers=headers)
    assert answer.status_code == 403
    assert not any(each.startswith(f"{COOKIE}=") for each in answer.headers.get_list("set-cookie"))


def test_a_program_with_a_token_needs_no_csrf_token(site: Site) -> None:
    _, token = site.people.add_token(NAME, [Role.RELEASER], until=site.now + timedelta(hours=1), by="root")
    headers = {"authorization": f"Bearer {token}", "origin": "https://elsewhere.example"}
    assert site.client.post("/order", headers=headers).json() == NAME
    site.sign_in("vi")
    assert site.client.post("/order", headers=headers).json() == NAME
    site.now += timedelta(hours=1)
    answer = site.client.post("/order", headers=headers)
    assert answer.status_code == 401
    assert "good until 2026-05-04 10:00 UTC" in answer.json()["detail"]


def test_an_empty_token_does_not_get_round_the_csrf_token(site: Site) -> None:
    site.sign_in()
    for value in ("Bearer", "Bearer ", "Bearer  ", "Basic eDp5"):
        assert site.client.post("/order", headers={"authorization": value}).status_code == 403


def test_a_viewer_who_orders_is_told_who_could(site: Site) -> None:
    site.sign_in("vi")
    answer = site.client.post("/order", headers={"x-csrf-token": csrf_token(site.session)})
    assert answer.status_code == 403
    assert answer.json()["detail"] == "vi is no releaser: this needs somebody who is."


def test_an_unguarded_route_knows_nobody(site: Site) -> None:
    """Those that there are are guarded: ``test_every_door``."""
    site.sign_in()
    bare = FastAPI()
    bare.state.doorkeeper = site.door
    bare.include_router(orders)
    client = TestClient(bare, base_url=HTTPS, cookies={COOKIE: site.session})
    with pytest.raises(Exception, match="Nobody has looked"):
        client.post("/order", headers={"x-csrf-token": csrf_token(site.session)})


# ------------------------------------------------------------------------------------------------- ways on


def test_who_follows_a_link_from_elsewhere_is_led_on_once(site: Site) -> None:
    """The browser sends no strict cookie with a link from another site; from our own page it does."""
    site.sign_in()
    session = site.session
    stranger = site.browser()
    answer = stranger.get("/sign-in", params={"next": "/rollouts/lmp-42?a=1"}, headers={"sec-fetch-site": "cross-site"})
    (onward,) = re.findall(r'content="0;url=([^"]*)"', answer.text)
    assert onward == "/sign-in?next=/rollouts/lmp-42%3Fa%3D1"
    stranger.cookies.set(COOKIE, session)
    answer = stranger.get(onward, headers={"sec-fetch-site": "same-origin"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/rollouts/lmp-42?a=1")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("/rollouts/lmp-42?a=1", "/rollouts/lmp-42?a=1"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\nb", "/"),
        ("/\t/evil.example", "/"),
        ("/sign-in?next=/", "/"),
        ("/sign-out", "/"),
    ],
)
def test_nobody_is_led_to_another_site(site: Site, asked: str, found: str) -> None:
    assert local(asked) == found
    assert site.sign_in(next=asked).headers["location"] == found


def test_before_there_is_anybody_the_page_says_how_to_begin() -> None:
    site = Site()
    assert "wave user add NAME --role admin" in site.client.get("/sign-in").text
    site.people.add("ann", [Role.ADMIN], by="root", password=WORDS)
    assert "wave user add" not in site.client.get("/sign-in").text
    site.store.close()


def test_where_nobody_keeps_a_door_nobody_signs_in() -> None:
    client = TestClient(operators_side(cast(Application, None)), raise_server_exceptions=False)
    assert client.get("/sign-in").status_code == 503


def test_the_door_has_the_style_of_the_console_and_no_script(site: Site) -> None:
    page = site.client.get("/sign-in")
    (style,) = re.findall(r'rel="stylesheet" href="([^"]+)"', page.text)
    assert site.client.get(style).headers["content-type"] == "text/css; charset=utf-8"
    assert "<script" not in page.text and "script-src" not in page.headers["content-security-policy"]
