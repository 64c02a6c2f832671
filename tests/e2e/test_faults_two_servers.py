"""Several ``wave`` processes at one installation: nothing is decided twice, and somebody always goes on.

=======================================================  ==========================================================
what happens                                              where it is shown
=======================================================  ==========================================================
two writers, two offers, two starts at once               tests/contract/test_transactions.py (SQLite and PostgreSQL)
a lease has one owner                                     tests/contract/test_house.py
a second ``wave serve`` on one SQLite file                test_the_second_stands_by_and_takes_over
the same, its settings under another root                 test_it_is_the_database_that_is_served_once
``wave tick --once`` by cron beside the server            test_ticks_by_cron_beside_a_server
two ``wave serve`` on PostgreSQL, the ticker is killed    test_two_on_postgresql_serve_and_one_ticks
a device that goes to one and then to the other           test_a_device_may_ask_one_and_then_the_other
PostgreSQL goes away in the middle and comes back         test_postgresql_goes_away_and_comes_back
=======================================================  ==========================================================
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from orchestrator.adapters.sql.codec import STATUS_NUMBER
from orchestrator.core.update import UpdateStatus
from tests.e2e.faults import FIELD, LAB, POLICY, House, copied, events_logged, no_wave_opened_before_its_deltas
from tests.e2e.faulty_fleet import Fleet, ask
from tests.loopback import free_port, listens
from tests.postgres import Cluster, cluster
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.slow]


def test_the_second_stands_by_and_takes_over(house: House) -> None:
    """The first is killed in the middle of a rollout; the second listens about two seconds later and goes on."""
    house.begin()
    first = house.serve()
    second = house.serve(listens=False)
    second.says(f"another `wave serve` (process {first.pid}) holds this database: standing by until it ends")
    assert second.workers() == []
    with Fleet(house) as fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB, alive=first)
        assert "serving devices" not in second.said()
        began = time.monotonic()
        first.kill()
        second.says("serving devices")
        took = time.monotonic() - began
        until("it is completed", lambda: house.rollout_status() == "completed", alive=second)
    assert took < 10  # a second to notice, the rest to start: about two on a quiet machine
    fleet.assert_told_once(events_logged(house))
    house.assert_nothing_was_built_twice()
    house.counts_up()
    second.stop()
    assert not listens(house.port)


def test_a_server_that_stands_by_stops_too(house: House) -> None:
    first = house.serve()
    second = house.serve(listens=False)
    second.says("standing by")
    second.stop()
    first.stop()


def test_it_is_the_database_that_is_served_once(house: House, tmp_path: Path) -> None:
    """Two settings files, two roots, one database: it is the database that counts."""
    other = tmp_path / "other"
    other.mkdir()
    house.settings(root=other, more=f"database: sqlite:///{house.database}\nrepository: {house.repo}")
    page = (other / "wave.yaml").read_text()
    (other / "wave.yaml").write_text(page.replace(str(house.port), str(free_port())))
    house.serve()
    second = house.serve(listens=False, root=other)
    until("it says what it does", lambda: "INFO" in second.said() or "WARNING" in second.said(), alive=second)
    assert "standing by" in second.said()


def test_ticks_by_cron_beside_a_server(house: House) -> None:
    """Somebody's old crontab goes on ticking while the server does: each wave opens and passes once."""
    house.begin()
    server = house.serve()
    ticks = 0
    with Fleet(house) as fleet:
        while house.rollout_status() != "completed":
            ticked = house.wave("tick", "--once", "--json")
            assert ticked.code == 0, ticked.said
            ticks += 1
            assert ticks < 100, server.said()
    journal = Counter(house.rows("SELECT event, wave FROM journal WHERE event IN ('opened', 'passed', 'completed')"))
    assert journal == Counter(
        [(event, wave) for event in ("opened", "passed") for wave in ("lab", "some", "rest")] + [("completed", None)]
    )
    assert house.value("SELECT count(*) FROM effect") == 0
    assert "failed" not in server.said()
    fleet.assert_told_once(events_logged(house))
    house.assert_nothing_was_built_twice()
    house.counts_up()


# ------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="module")
def postgres() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


class Twin(House):
    """An installation on PostgreSQL, with a second root and port for the other replica."""

    url: str
    second_root: Path
    second_port: int

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()


@pytest.fixture
def twin(template: House, tmp_path: Path, postgres: Cluster) -> Iterator[Twin]:
    with copied(template, tmp_path / "one") as house:
        (house.root / "wave.db").unlink()
        house.__class__ = Twin
        assert isinstance(house, Twin)
        house.url = postgres.url(postgres.database())
        more = f"database: {house.url}\nrepository: {house.repo}"
        house.settings(lease="5s", more=more)
        house.second_root, house.second_port = tmp_path / "two", free_port()
        house.second_root.mkdir()
        page = (house.root / "wave.yaml").read_text().replace(f"port: {house.port}", f"port: {house.second_port}")
        (house.second_root / "wave.yaml").write_text(page)
        house.ok("db", "upgrade")
        for version in (1, 2, 3):
            house.ok("target", "add", str(version), f"os/{version}", "--hardware-id", "board", "--tag", "main")
        (house.root / "tokens").unlink()
        house.ok("device", "enroll", "--from", "fleet.yaml", "--tokens-to", "tokens")
        yield house


@pytest.mark.postgres
def test_two_on_postgresql_serve_and_one_ticks(twin: Twin) -> None:
    """Devices go to either. The lease (5 s) names one ticker; it is killed, and the other takes over before long."""
    servers = [twin.serve(listens=False), twin.serve(listens=False, root=twin.second_root)]
    servers[1].port = twin.second_port
    for server in servers:
        server.wait_until_it_listens()
    by_pid = {server.pid: server for server in servers}

    def ticker() -> int:
        held = twin.rows("SELECT owner FROM lease WHERE name = 'ticker'")
        return next((pid for pid in by_pid if held and str(pid) in str(held[0][0]).split(":")), 0)

    until("one ticks", lambda: ticker() in by_pid)
    fleet = Fleet(twin, ports=[twin.port, twin.second_port])
    fleet.round()
    twin.begin(policy=POLICY.replace("at_least: 1s", "at_least: 2s"))
    with fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB)
        dead = by_pid.pop(ticker())
        alive = next(iter(by_pid.values()))
        assert listens(alive.port)
        began = time.monotonic()
        dead.kill()
        until("the other ticks", lambda: ticker() == alive.pid, alive=alive)
        took = time.monotonic() - began
        assert took < 5 + 10
        fleet.ports.remove(dead.port)
        until("everybody runs 3", lambda: fleet.running(3) == LAB + FIELD, alive=alive)
        until("it is completed", lambda: twin.rollout_status() == "completed", alive=alive)
        until("all is told", lambda: not any(device.waiting for device in fleet.devices))
    journal = Counter(twin.rows("SELECT event, wave FROM journal WHERE event IN ('opened', 'passed', 'completed')"))
    assert set(journal.values()) == {1} and len(journal) == 7
    events = events_logged(twin)
    assert len(events) == 3 * (LAB + FIELD)
    fleet.assert_told_once(events)
    no_wave_opened_before_its_deltas(twin)
    twin.assert_nothing_was_built_twice()
    twin.counts_up()
    alive.stop()


@pytest.mark.postgres
def test_a_device_may_ask_one_and_then_the_other(twin: Twin) -> None:
    """It updates by way of the first and goes back by way of the second, which knew it as it was before, while no
    rollout offers anything: the way back is counted all the same."""
    servers = [twin.serve(listens=False), twin.serve(listens=False, root=twin.second_root)]
    servers[1].port = twin.second_port
    for server in servers:
        server.wait_until_it_listens()
    fleet = Fleet(twin)
    for port in (twin.second_port, twin.port):
        fleet.ports = [port]
        fleet.round()
    twin.begin(policy=POLICY.replace("at_least: 1s", "at_least: 10m"))
    lab = next(device for device in fleet.devices if device.id == "lab-0")
    before = lab.commit, lab.version
    until("it has it", lambda: fleet.once(lab) and lab.version == 3, every=0.2)
    twin.ok("pause", "r3", "--reason", "to look at it")
    time.sleep(1.5)  # a board is believed for a second
    lab.commit, lab.version = before
    for _ in range(2):
        lab.check_in(twin.second_port)
    assert twin.rows("SELECT status FROM device_update") == [(STATUS_NUMBER[UpdateStatus.ROLLED_BACK],)]


@pytest.mark.postgres
def test_postgresql_goes_away_and_comes_back(twin: Twin, postgres: Cluster) -> None:
    """It lets nobody in for a while and throws out who is there. Devices are told to come later, orders are refused in
    a sentence, and with the database back the server goes on without a restart."""
    server = twin.serve()
    fleet = Fleet(twin)
    fleet.round()
    twin.begin()
    name = twin.url.partition("@/")[2].partition("?")[0]
    with fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB, alive=server)
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    lab = fleet.devices[-1]
    status, answer = ask(twin.port, f"/v1/devices/{lab.id}/check-in", {"commit": lab.commit}, lab.token)
    assert (status, answer["error"]["kind"]) == (503, "store_unavailable"), answer
    sentence = twin.fails(6, "pause", "r3", "--reason", "x")
    assert sentence.startswith("The database postgresql+psycopg://wave@/") and "does not answer" in sentence, sentence
    assert sentence.endswith("Start PostgreSQL, and check address, user and password.")
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    with fleet:
        until("it is completed", lambda: twin.rollout_status() == "completed", alive=server)
        until("all is told", lambda: not any(device.waiting for device in fleet.devices))
    fleet.assert_told_once(events_logged(twin))
    twin.assert_nothing_was_built_twice()
    twin.counts_up()
    server.stop()
