"""The console without a browser: headers, answers of few bytes, roles."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from orchestrator.services.notice_store import Post, Wanted
from orchestrator.web.app import operators_side
from orchestrator.web.console.rendering import _ticked
from orchestrator.web.console.routes import _again
from orchestrator.web.console.static import address
from orchestrator.web.csrf import csrf_token
from tests.adapters.notify.test_sender import NOTICE
from tests.web.asking import ByRole
from tests.web.installation import EVERYBODY, TOLERANT, Installation, believable


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with pytest.MonkeyPatch.context() as patch:
        made = Installation(Path(tmp_path_factory.mktemp("home"))).open(patch)
        believable(made)
        yield made
        made.close()


@pytest.fixture
def client(home: Installation) -> TestClient:
    made = TestClient(operators_side(home.app, doorkeeper=ByRole()), follow_redirects=False)
    made.cookies.set("wave_session", "admin")
    return made


def test_a_page_that_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/rollouts/beta-43")
    again = client.get("/rollouts/beta-43", headers={"if-none-match": first.headers["etag"]})
    assert first.status_code == 200 and first.headers["cache-control"] == "private, no-cache"
    assert again.status_code == 304 and not again.content


def test_a_page_is_sent_packed_to_who_can_unpack_it(client: TestClient) -> None:
    plain = client.get("/rollouts", headers={"accept-encoding": "identity"})
    with client.stream("GET", "/rollouts", headers={"accept-encoding": "gzip"}) as packed:
        body = b"".join(packed.iter_raw())
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(body) == plain.content


def test_what_changes_is_sent_without_the_frame(client: TestClient) -> None:
    part = client.get("/rollouts", headers={"x-wave-part": "main"}).text
    assert 'id="rollouts"' in part and "<head>" not in part and "Sign out" not in part


def test_a_file_is_kept_for_ever_under_the_hash_of_its_content(client: TestClient) -> None:
    answer = client.get(address("console.css"))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get("/static/console.0000000000000000.css").status_code == 404
    assert client.get("/static/..%2Frendering.py").status_code == 404


def test_every_page_has_its_headers_and_an_error_too(client: TestClient) -> None:
    for path in ("/rollouts", "/rollouts/nobody", "/rollouts?status=odd", address("console.js")):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_what_is_not_there_is_a_page_that_says_so(client: TestClient) -> None:
    answer = client.get("/rollouts/%3Cb%3Enobody")
    assert answer.status_code == 404
    assert "There is no rollout &lt;b&gt;nobody." in answer.text


def test_messages_that_do_not_arrive_are_told_on_the_first_page(home: Installation, client: TestClient) -> None:
    def seen(time: int) -> str:
        """A page that was not kept."""
        return " ".join(client.get(f"/rollouts?time={time}").text.split())

    assert "do not arrive" not in seen(1)
    with home.app.store.writing() as w:
        row = w.rollout("lmp-42")
        assert row is not None
        for occasion, destinations in (("one", ["oncall", "desk"]), ("two", ["oncall"])):
            w.add_notices(Wanted(row.key, occasion, NOTICE, home.now, home.now + timedelta(days=1)), destinations)
        dead, failing = w.lease_notices(now=home.now, until=home.now + timedelta(minutes=1), limit=2)
        w.end_notice(dead.key, 1, Post.DEAD, "it is down", at=home.now)
        w.end_notice(failing.key, 1, Post.WAITING, "it is down", at=home.now + timedelta(minutes=1))
    said = seen(2)
    assert "1 message failed and is tried again" in said and "1 message was given up" in said
    home.app.notices.retry()
    said = seen(3)
    assert "given up" not in said and "2 messages failed and are tried again" in said


def test_a_policy_is_found_by_a_name_that_is_listed_and_by_no_path(client: TestClient) -> None:
    assert client.get("/policies/standard").status_code == 200
    for name in ("..%2F..%2Fpyproject", "%2Fetc%2Fpasswd", "policies%2Fstandard.yaml"):
        assert client.get(f"/policies/{name}").status_code == 404


def test_a_journal_is_paged_and_a_page_beyond_its_end_is_empty(client: TestClient) -> None:
    whole = client.get("/rollouts/beta-43/journal").text
    assert "e-halted" in whole and "Applied by mika" in whole
    first = client.get("/rollouts/beta-43/journal?before=2").text
    assert first.count('class="at"') == 1 and "Applied by mika" in first and "Newer" in first
    assert "Nothing yet." in client.get("/rollouts/beta-43/journal?before=-7").text
    assert client.get("/rollouts/beta-43/journal?before=9999999999999999999999").text.count('class="at"') > 1
    assert client.get("/rollouts/nobody/journal").status_code == 404


def test_a_second_person_approves_on_the_page_and_who_wrote_it_cannot(home: Installation) -> None:
    home.apply("lmp-45", 42, "beta", EVERYBODY, {**TOLERANT, "approve": {"start": 1}})
    for role, status in (("releaser", 403), ("approver", 303)):
        asking = TestClient(operators_side(home.app, doorkeeper=ByRole()), follow_redirects=False)
        asking.cookies.set("wave_session", role)
        shown = asking.get("/rollouts/lmp-45/order/approve")
        hidden = dict(re.findall(r'name="(files|seen)" value="([^"]*)"', shown.text))
        form = {"csrf": csrf_token(role), "reason": "I have looked.", "step": "do", **hidden}
        assert asking.post("/rollouts/lmp-45/order/approve", data=form).status_code == status
    assert "approved by a approver" in asking.get("/rollouts/lmp-45").text


def test_what_comes_after_a_bar_is_not_hidden_in_it_and_shares_are_spelt_as_in_sentences(client: TestClient) -> None:
    page = client.get("/rollouts").text
    assert re.search(r"<progress [^>]*></progress> <small>[1-9][\d.]*\N{NO-BREAK SPACE}%</small>", page)
    assert "/>" not in "".join(re.findall(r"<progress[^>]*>", page))
    assert "tolerance 2\N{NO-BREAK SPACE}%" in client.get("/rollouts/beta-43").text


def test_what_is_not_started_waits_for_the_start_and_not_for_a_wave_before_the_first(home: Installation) -> None:
    home.apply("later-42", 42, "beta", [{"wave": "one", "devices": {"count": 2}}, *EVERYBODY], TOLERANT)
    client = TestClient(operators_side(home.app, doorkeeper=ByRole()))
    client.cookies.set("wave_session", "viewer")
    page = client.get("/rollouts/later-42").text
    assert "It waits for the start." in page and "It waits for the start, then for one." in page


def test_each_word_is_explained_on_a_page_that_others_lead_to(client: TestClient) -> None:
    page = client.get("/words").text
    anchors = set(re.findall(r'<div id="([^"]+)"', page))
    assert {"place", "hardware-id", "halted"} <= anchors and "the safety stop" in page
    for path in ("/rollouts/lmp-42", "/rollouts/beta-43", "/devices/gw-0007"):
        asked = re.findall(r'href="/words#([^"]+)"', client.get(path).text)
        assert asked and set(asked) <= anchors
    assert 'href="/words"' in client.get("/fleet").text


def test_a_button_names_what_it_does_and_no_form_has_a_button_that_only_says_cancel(client: TestClient) -> None:
    form = client.get("/rollouts/lmp-42/order/cancel?wave=emea").text
    assert "Cancel wave emea</button>" in form and "Change nothing" in form
    assert "Cancel lmp-42</button>" in client.get("/rollouts/lmp-42/order/cancel").text
    skip = client.get("/rollouts/lmp-42/order/skip?wave=rest").text
    assert "Skip wave rest</button>" in skip and "devices are served when the rollout completes." in skip
    refused = client.get("/rollouts/lmp-44/order/start").text
    assert "As it stands this is refused." in refused and "<textarea" not in refused, "nothing to give a reason for"


def test_waves_of_a_cancelled_rollout_do_not_look_as_if_they_went_on(home: Installation, client: TestClient) -> None:
    home.apply("over-42", 42, "beta", EVERYBODY, TOLERANT)
    home.app.rollouts.cancel("over-42", by="mika", reason="It was a mistake.")
    page = client.get("/rollouts/over-42").text
    assert "- cancelled" in page and "pending" not in page
    assert "Nothing more is offered: the rollout was cancelled." in page and "Advances when" not in page


def test_what_stands_still_promises_no_offers_wave_by_wave(client: TestClient) -> None:
    page = client.get("/rollouts/beta-43").text
    assert "No new offer, and nothing opens, until somebody resumes the rollout." in page
    assert "Its deltas are being made" not in page, "what is true of a wave while its rollout runs"
    assert "a tolerance of 2\N{NO-BREAK SPACE}% explains" in page


def test_a_draft_says_beforehand_that_it_needs_a_second_person(home: Installation, client: TestClient) -> None:
    home.apply("strict-42", 42, "beta", EVERYBODY, {**TOLERANT, "approve": {"start": 1}})
    said = "Its policy asks for 1 person besides who wrote or started it to approve, before anything opens."
    assert said in client.get("/rollouts/strict-42").text and said not in client.get("/rollouts/lmp-44").text


def test_a_delta_that_could_not_be_built_says_how_to_try_again(home: Installation, client: TestClient) -> None:
    home.target(44, "beta")
    page = client.get("/deltas?state=failed").text
    assert "ostree: the disk is full" in page and "<code>wave delta build 42 44</code>" in page
    assert "Try again" not in client.get("/deltas?state=ready").text


def test_a_wave_that_was_cancelled_is_not_promised_service_when_it_is_skipped(
    home: Installation, client: TestClient
) -> None:
    look = "/rollouts/lmp-42/order/skip?wave="
    page = client.get("/rollouts/lmp-42/order/skip").text
    assert "served when the rollout completes" in page
    wave = re.findall(r'<option value="([^"]+)"', page)[-1]
    home.app.rollouts.cancel("lmp-42", wave=wave, by="mika", reason="It was a mistake.")
    page = client.get(f"{look}{wave}").text
    assert "not served, as it was cancelled" in page and "when the rollout completes" not in page


def test_code_in_a_sentence_is_what_would_be_typed() -> None:
    assert _ticked("At 2 % ask `a % b`.") == "At 2\N{NO-BREAK SPACE}% ask <code>a % b</code>."
    assert _ticked("2 % of `it") == "2\N{NO-BREAK SPACE}% of `it"


@pytest.mark.parametrize(
    ("method", "path", "query", "again"),
    [
        ("GET", "/deltas", "", "/deltas"),
        ("GET", "/deltas", "state=failed&offset=9", "/deltas?state=failed&offset=9"),
        ("GET", "//elsewhere.example/x", "", ""),
        ("POST", "/rollouts/lmp-42/order/halt", "", ""),
    ],
)
def test_what_did_not_work_is_tried_again_as_it_was_asked_and_only_here(
    method: str, path: str, query: str, again: str
) -> None:
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    assert _again(Request({**scope, "scheme": "http", "server": ("wave", 80)})) == again
