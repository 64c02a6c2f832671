"""Two who approve at once, at two servers of one database: each counts once, nobody twice, whatever they show."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import httpx2 as httpx
import pytest

from orchestrator.core.roles import Role
from tests.cli.house import House
from tests.postgres import Cluster
from tests.web.house_of_people import WORDS, Open, opened

POLICY = "policy: mine\napprove: {start: 2, resume: 1}\ndeltas: {otherwise: full, within: 1m}\n"


@dataclass
class Two:
    """Two servers of one installation, and a rollout of mika's that waits for two others."""

    house: House
    one: Open
    other: Open

    def browser(self, at: Open, name: str) -> httpx.Client:
        return at.browser(name)

    def program(self, at: Open, name: str) -> httpx.Client:
        _, text = at.populated.token(name, Role.APPROVER)
        return httpx.Client(base_url=at.url, headers={"authorization": f"Bearer {text}"}, timeout=60)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def two(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    database = None
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")[0]
        database = cluster.url(cluster.database())
    house = House(tmp_path / "wave", database=database)
    house.install(monkeypatch)
    if database is not None:
        monkeypatch.setenv("WAVE_DATABASE", database)
    house.content()
    house.fleet(field_=8)
    (house.root / "mine.yaml").write_text(POLICY)
    house.ok("apply", str(house.rollout(policy="./mine.yaml")), "--start")
    house.tick()
    with ExitStack() as stack:
        one, other = stack.enter_context(opened(house)), stack.enter_context(opened(house))
        for name in ("cem", "dai"):
            one.populated.people.add(name, [Role.APPROVER], by="root", password=WORDS)
        one.populated.people.add("mika", [Role.ADMIN], by="root", password=WORDS)
        yield Two(house, one, other)


def approve(client: httpx.Client, at_once: Barrier) -> tuple[int, str]:
    at_once.wait(30)
    answer = client.post("/api/v1/rollouts/lmp-42/approve", json={"reason": "I have looked."})
    return answer.status_code, answer.json().get("detail", "")


def test_of_two_who_approve_at_once_each_counts_once(two: Two) -> None:
    asking = [
        two.browser(two.one, "cem"),
        two.browser(two.other, "cem"),
        two.program(two.one, "cem"),
        two.program(two.other, "cem"),
        two.browser(two.other, "dai"),
        two.program(two.one, "dai"),
        two.browser(two.one, "mika"),
    ]
    at_once = Barrier(len(asking))
    with ThreadPoolExecutor(len(asking)) as pool:
        said = list(pool.map(lambda client: approve(client, at_once), asking))
    for client in asking:
        client.close()
    assert sorted(status for status, _ in said) == [200, 200, 403, 409, 409, 409, 409], said
    assert all("everybody counts once" in detail for status, detail in said if status == 409), said
    assert [detail for status, detail in said if status == 403] == [
        "mika wrote or started lmp-42: somebody else approves it."
    ]
    with two.one.populated.app.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None
        assert sorted(each.by for each in row.state.approvals) == ["cem", "dai"]
        told = [each for each in r.journal(row.key) if each.event == "approved"]
    assert sorted(each.by for each in told) == ["cem", "dai"], "and nothing is lost"
    two.house.tick(timedelta(minutes=5))
    two.house.tick()
    waves = two.house.json("status", "lmp-42")["waves"]
    assert waves[0]["status"] == "open"
    assert two.house.ok("journal", "verify").startswith("+ lmp-42")
    assert "nothing differs" in " ".join(two.house.ok("replay", "lmp-42").split())


def test_who_loses_the_role_while_they_approve_does_not(two: Two) -> None:
    """Whoever is first: the word counts while it could be given, and no longer; dai's is taken back by the order that
    shuts them out."""
    people = two.one.populated.people
    with closing(two.browser(two.one, "cem")) as cem, closing(two.browser(two.other, "dai")) as dai:
        assert dai.post("/api/v1/rollouts/lmp-42/approve", json={}).status_code == 200
        people.set_roles("cem", [Role.VIEWER], by="root")
        people.disable("dai", by="root")
        assert cem.post("/api/v1/rollouts/lmp-42/approve", json={}).status_code == 403
        assert dai.post("/api/v1/rollouts/lmp-42/approve", json={}).status_code == 401
    with two.one.populated.app.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None and row.state.approvals == ()
        assert [each.event for each in r.journal(row.key)][-1] == "approval_withdrawn"
