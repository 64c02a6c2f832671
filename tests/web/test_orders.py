"""Every order of the console: its form says first what will happen, does nothing without a reason, and then does it;
the journal has the reason and who gave it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient

from orchestrator.core.fleet import Device
from orchestrator.web.app import operators_side
from orchestrator.web.csrf import csrf_token
from tests.web.asking import ByRole
from tests.web.installation import TOLERANT, Installation, believable

WAVES = [
    {"wave": "first", "devices": {"count": 10}},
    {"wave": "rest", "devices": "all", "policy": {"promote": "manual"}},
]
GIVEN: tuple[tuple[str, str, dict[str, str], str, str], ...] = (
    ("carts-42", "start", {}, "runs, for ", "running"),
    ("carts-42", "pause", {}, "is paused: it gives no new offers.", "paused"),
    ("carts-42", "resume", {}, "runs again.", "running"),
    ("carts-42", "promote", {"wave": "rest"}, "opens when all else allows it.", "running"),
    ("lmp-42", "exclude", {"segment": "hardware_id=imx8"}, "will be offered nothing more", "running"),
    ("carts-42", "complete", {}, "every eligible device may be offered now.", "completed"),
    ("lmp-42", "halt", {}, "is halted: nothing more is offered.", "halted"),
    ("beta-43", "cancel", {}, "is cancelled: nothing more is offered, updated devices stay.", "cancelled"),
)
"""In an order in which each can be given: what is chosen, what the form says, and the rollout's status afterwards."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with pytest.MonkeyPatch.context() as patch:
        made = Installation(Path(tmp_path_factory.mktemp("home"))).open(patch)
        believable(made)
        made.enroll([Device(f"cart-{n:02}", "rpi4", "carts") for n in range(30)], 41)
        made.apply("carts-42", 42, "carts", WAVES, TOLERANT)
        yield made
        made.close()


def test_each_order_shows_what_it_does_asks_why_and_is_written_down(home: Installation) -> None:
    client = TestClient(operators_side(home.app, doorkeeper=ByRole()), follow_redirects=False)
    client.cookies.set("wave_session", "releaser")
    for rollout, verb, chosen, says, status in GIVEN:
        path, before = f"/rollouts/{rollout}/order/{verb}", home.app.queries.rollout(rollout).summary.status
        page = client.get(f"{path}?{urlencode(chosen)}").text
        (would,) = re.findall(r'<div class="note \w+" id="would"><strong>(.*?)</strong>', page)
        assert says in unescape(would), verb
        hidden = dict(re.findall(r'name="(files|seen)" value="([^"]*)"', page))
        form = {"csrf": csrf_token("releaser"), "step": "do", **hidden, **chosen}
        without = client.post(path, data=form)
        assert without.status_code == 400 and "Say why" in without.text, verb
        assert home.app.queries.rollout(rollout).summary.status == before, "nothing was done"
        done = client.post(path, data={**form, "reason": f"Because of <{verb}>."})
        assert (done.status_code, done.headers.get("location")) == (303, f"/rollouts/{rollout}"), verb
        assert home.app.queries.rollout(rollout).summary.status == status
        last = home.app.queries.journal(rollout)[-1]
        assert last.by == "a releaser" and f"Because of <{verb}>." in last.sentence
        assert f"Because of &lt;{verb}&gt;." in client.get(f"/rollouts/{rollout}/journal").text
