"""A hostile client, with a viewer's token and with none: what it sends costs little, reaches nothing, and keeps nobody
from stopping a rollout."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from orchestrator.core.roles import Role
from orchestrator.services.application import Application
from orchestrator.services.operations import Operation
from orchestrator.services.people import Person
from orchestrator.web import bounds
from orchestrator.web.app import AT_ONCE, LOOKS
from orchestrator.web.bounds import MOST_OF_A_FORM
from tests.cli.elsewhere import MIKA, Known, served
from tests.cli.house import House
from tests.web.asking import Asking
from tests.web.test_every_route import is_problem

FORM = "application/x-www-form-urlencoded"
SESSION = {"cookie": "wave_session=stolen"}
"""Of nobody: whose it is is looked at after the body was read."""


@dataclass(frozen=True)
class Plans:
    """Whoever asks for one waits until it may ``go_on``."""

    go_on: threading.Event = field(default_factory=threading.Event)
    under_way: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def begin(self, many: int) -> None:
        """Wait until so many have begun."""
        for _ in range(many):
            assert self.under_way.acquire(timeout=20)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    found, carry_out = Plans(), Operation.carry_out

    def slow(self: Operation, app: Application, given: Mapping[str, Any], *, by: str) -> Any:
        if self.key == "plan":
            found.under_way.release()
            assert found.go_on.wait(30)
        return carry_out(self, app, given, by=by)

    monkeypatch.setattr(Operation, "carry_out", slow)
    return found


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/api/v1/rollouts/lmp-42/halt", "/nothing"])
@pytest.mark.parametrize("media", [FORM, "multipart/form-data; boundary=x", "text/plain", ""])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not-announced"])
def test_a_strangers_body_is_read_no_further_than_any_form_is_long(
    api: Asking, path: str, media: str, announced: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"a=" + b"x" * 65_533 + b"&"

    content = b"".join(pieces()) if announced else pieces()
    headers = {**SESSION, "content-type": media}
    answer = api.client.post(path, content=content, headers=headers, follow_redirects=False)
    if announced or (media.startswith((FORM, "multipart")) and path != "/nothing"):
        is_problem(answer, 413)
    else:
        # Nobody reads it.
        assert answer.status_code in (303, 403, 404, 503), answer.text


def test_no_form_has_a_thousand_large_fields(house: House, api: Asking) -> None:
    """A form is no longer than ``MOST_OF_A_FORM``, however many fields that is."""
    just = b"&".join(b"x%d=%s" % (n, b"y" * 240) for n in range(1_000))
    assert len(just) < MOST_OF_A_FORM
    assert api.client.post("/sign-in", content=just, headers={"content-type": FORM}).status_code != 413
    is_problem(api.client.post("/sign-in", content=just + b"&" + just, headers={"content-type": FORM}), 413)


def test_a_body_that_drips_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WITHIN", 0.2)
    with served(house) as url:
        for head in (
            f"POST /sign-in HTTP/1.1\r\ncontent-type: {FORM}",
            f"POST /sign-out HTTP/1.1\r\ncontent-type: {FORM}\r\ncookie: wave_session=x",
            f"POST /api/v1/freeze HTTP/1.1\r\ncontent-type: application/json\r\nauthorization: Bearer {MIKA}",
        ):
            there = urlsplit(url)
            with socket.create_connection((there.hostname, there.port or 0), timeout=20) as line:
                line.sendall(f"{head}\r\nhost: x\r\ncontent-length: 100\r\n\r\na=".encode())
                assert line.recv(4096).startswith(b"HTTP/1.1 408 "), head


def test_a_viewer_who_asks_for_everything_at_once_keeps_nobody_from_halting(house: House, plans: Plans) -> None:
    """As many as there are threads, and more, each of which takes for ever."""
    known = Known({MIKA: Person("mika", frozenset({Role.ADMIN}))})
    for n in range(6):
        known.people[f"viewer-{n}"] = Person(f"viewer {n}", frozenset({Role.VIEWER}))
    house.ok("start", "lmp-42")

    def ask(url: str, n: int) -> int:
        headers = {"authorization": f"Bearer viewer-{n % 6}"}
        answer = httpx.post(f"{url}/api/v1/plans", json={"rollout": "x"}, headers=headers, timeout=60)
        return int(answer.status_code)

    with served(house, known) as url, ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(ask, url, n) for n in range(60)]
        refused = [each.result() for each in islice(as_completed(asked, timeout=40), 60 - LOOKS)]
        assert set(refused) == {429}
        plans.begin(LOOKS)
        halted = httpx.post(
            f"{url}/api/v1/rollouts/lmp-42/halt",
            json={"reason": "black screens"},
            headers={"authorization": f"Bearer {MIKA}"},
            timeout=20,
        )
        assert halted.json()["status"] == "halted"
        plans.go_on.set()
        statuses = [each.result(60) for each in asked]
    assert statuses.count(400) == LOOKS


def test_one_viewer_has_their_share_and_no_more(house: House, plans: Plans) -> None:
    known = Known({name: Person(name, frozenset({Role.VIEWER})) for name in ("ann", "ben")})
    with served(house, known) as url, ThreadPoolExecutor(9) as pool:
        ann, ben = ({"authorization": f"Bearer {name}"} for name in ("ann", "ben"))
        there = f"{url}/api/v1/plans"
        asked = [pool.submit(httpx.post, there, json={"rollout": "x"}, headers=ann, timeout=60) for _ in range(8)]
        plans.begin(8)
        refused = httpx.get(f"{url}/api/v1/rollouts", headers=ann)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert httpx.get(f"{url}/api/v1/rollouts", headers=ben).status_code == 200
        plans.go_on.set()
        assert {each.result(60).status_code for each in asked} == {400}
        assert httpx.get(f"{url}/api/v1/rollouts", headers=ann).status_code == 200


def test_bodies_that_drip_keep_nobody_from_asking(house: House) -> None:
    """More than one person may send at once, and all of them wait."""
    known = Known({MIKA: Person("mika", frozenset({Role.ADMIN})), "eve": Person("eve", frozenset({Role.VIEWER}))})
    house.ok("start", "lmp-42")
    with served(house, known) as url, ExitStack() as lines:
        there = urlsplit(url)
        opened = []
        for _ in range(AT_ONCE + 1):
            line = lines.enter_context(socket.create_connection((there.hostname, there.port or 0), timeout=20))
            head = "POST /api/v1/plans HTTP/1.1\r\nhost: x\r\nauthorization: Bearer eve\r\n"
            line.sendall(f"{head}content-type: application/json\r\ncontent-length: 9\r\n\r\n{{".encode())
            opened.append(line)
        # One of them is told so, and that is enough to know that all the others are being read.
        ready, _, _ = select.select(opened, [], [], 20)
        assert [each.recv(4096)[:13] for each in ready] == [b"HTTP/1.1 429 "]
        eve, mika = ({"authorization": f"Bearer {name}"} for name in ("eve", MIKA))
        assert httpx.get(f"{url}/api/v1/rollouts", headers=eve).status_code == 200
        assert httpx.post(f"{url}/api/v1/rollouts/lmp-42/halt", json={"reason": "x"}, headers=mika).status_code == 200


NO_NAMES = ("", "..", "../../etc/passwd", "\x00", "a\nb", "\u202egnp", "x" * 100_000, "' OR 1=1 --", "{{7*7}}", "-")


def test_no_name_reaches_anything(api: Asking) -> None:
    for name in NO_NAMES:
        for path, body in (
            ("/people/roles", {"name": name, "roles": ["admin"]}),
            ("/people/disable", {"name": name}),
            ("/people/password", {"name": name, "password": "correct horse battery"}),
            ("/tokens", {"person": name, "roles": ["viewer"], "until": "2026-06-01T00:00:00Z"}),
            ("/notices/test", {"destination": name}),
            ("/certificates", {"device_id": name, "request": "x"}),
            ("/devices/group", {"device_ids": [name], "group": name}),
            ("/targets/of-artifact", {"version": 1, "artifact": name}),
        ):
            answer = api("POST", path, "admin", json=body)
            assert 400 <= answer.status_code < 500, (path, name[:40], answer.text[:300])
            is_problem(answer, answer.status_code)
            assert len(answer.content) < 2_000


def test_numbers_that_no_database_keeps_are_refused(api: Asking) -> None:
    for number in (2**63, 10**30, -(2**63) - 1):
        is_problem(api("GET", f"/devices?version={number}", "viewer"), 400)
        is_problem(api("GET", f"/rollouts/lmp-42/failing?limit={number}", "viewer"), 400)
        is_problem(api("POST", "/notices/retry", json={"keys": [number]}), 400)
        is_problem(api("POST", "/certificates", "admin", json={"device_id": "a", "request": "", "days": number}), 400)
        target = {"version": number, "commit": "a" * 64, "hardware_ids": ["rpi4"]}
        is_problem(api("POST", "/targets", json=target), 400)


def test_a_token_in_an_address_is_nobodys(api: Asking) -> None:
    """Addresses end in logs."""
    for query in ("access_token=admin", "token=admin", "authorization=Bearer%20admin"):
        is_problem(api.client.get(f"/api/v1/rollouts?{query}"), 401)


def test_a_viewer_becomes_nothing_more(api: Asking) -> None:
    for path, body in (
        ("/people", {"name": "eve", "roles": ["admin"], "password": "correct horse battery"}),
        ("/people/roles", {"name": "a viewer", "roles": ["admin"]}),
        ("/tokens", {"person": "a viewer", "roles": ["admin"], "until": "2026-06-01T00:00:00Z"}),
        ("/enrolments", {"kind": "gateway", "tag": "promoted"}),
        ("/certificates", {"device_id": "lab-00", "request": "x"}),
        ("/devices/lab-00/token", {}),
    ):
        for role in ("viewer", "releaser", "approver"):
            is_problem(api("POST", path, role, json=body), 403)
    assert api.ok("GET", "/people", "admin")["items"] == []


def test_a_document_that_nobody_could_follow_is_refused(api: Asking) -> None:
    for levels in (50, 100, 300, 900, 5_000):
        deep = '{"a":' * levels + "1" + "}" * levels
        listed = "[" * levels + "]" * levels
        for body in (f'{{"rollout": {deep}}}', f'{{"rollout": "x", "policy": {{"policy": {listed}}}}}'):
            for path in ("/plans", "/rollouts"):
                answer = api("POST", path, content=body.encode(), headers={"content-type": "application/json"})
                is_problem(answer, 400)


def test_a_time_without_a_zone_or_beyond_all_times_is_refused(api: Asking) -> None:
    for until in ("2026-06-01T00:00:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "x", "2026"):
        token = {"person": "ann", "roles": ["viewer"], "until": until}
        answer = api("POST", "/tokens", "admin", json=token)
        assert answer.status_code in (400, 404), answer.text
        grant = {"kind": "enrolment", "tag": "promoted", "until": until}
        answer = api("POST", "/enrolments", "admin", json=grant)
        is_problem(answer, 400)
    for within in ("P999999999D", "-P999999999D", "P1Y", "1"):
        answer = api("GET", "/mender/waiting", "viewer", params={"asked_within": within})
        assert answer.status_code in (200, 400), answer.text
        answer = api("POST", "/mender/waiting/reject", "admin", json={"asked_within": within, "dry_run": True})
        assert answer.status_code in (200, 400), answer.text
    assert api("GET", "/enrolments", "viewer").status_code == 200


def test_what_nothing_is_called_is_accepted_by_nobody(api: Asking) -> None:
    """Whatever the rollout's status; a word of no monitor and a wave that is none."""
    asked: list[dict[str, Any]] = [{"accept": ["\u0019\u00d0", "c\x1eG"], "wave": "P"}, {"accept": ["x"]}]
    asked += [{"wave": "P"}, {"accept": [""], "wave": ""}]
    for order in ("", "start", "pause", "resume", "halt", "resume", "complete", "cancel"):
        if order:
            api("POST", f"/rollouts/lmp-42/{order}", json={"reason": "x"})
        for body in asked:
            for given in (body, {**body, "reason": "x"}, {**body, "reason": "x", "dry_run": True}):
                answer = api("POST", "/rollouts/lmp-42/resume", json=given)
                assert answer.status_code < 500, (order, given, answer.text)
