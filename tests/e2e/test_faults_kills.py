"""``wave serve`` is killed, or told to stop, at any moment: it goes on where it was, and nothing of it lingers.

=====================================================  ============================================================
what happens                                            where it is shown
=====================================================  ============================================================
the process dies after every single write               tests/stories/test_crashes.py (services, SQLite)
the store's process is killed in the middle of a batch  tests/stories/test_kills.py; tests/contract/test_transactions.py
a builder is killed                                     tests/services/test_builder.py, adapters/test_ostree_provider.py
``wave serve`` is killed, devices go on retrying        test_ten_kills_in_the_middle_of_a_rollout
it is killed while a delta is built                     test_a_build_of_a_killed_server_is_taken_up_again
it is told to stop, idle, at work, and while it starts  test_it_stops_at_once_with_0
=====================================================  ============================================================
"""

from __future__ import annotations

import random
import socket
import time

import pytest

from tests.e2e.faults import FIELD, LAB, POLICY, House, events_logged, no_traceback, no_wave_opened_before_its_deltas
from tests.e2e.faulty_fleet import Fleet
from tests.waiting import gone, until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.slow]

KILLS = 10


def test_ten_kills_in_the_middle_of_a_rollout(house: House) -> None:
    """Three waves of eighteen devices on two versions. The server dies ten times between a third of a second and three
    after it was started: while it starts, builds, opens waves and takes reports. It is started again at once."""
    moments = random.Random("moments of death")
    house.begin(policy=POLICY.replace("at_least: 1s", "at_least: 2s"))
    workers: list[int] = []
    with Fleet(house) as fleet:
        for _ in range(KILLS):
            server = house.serve(listens=False)
            time.sleep(moments.uniform(0.3, 3.0))  # the moment of death
            workers += server.workers()
            server.kill()
            no_traceback(server.said())
            house.rows("SELECT count(*) FROM journal")  # what is on the disk can be read at any time
        server = house.serve()
        until("everybody runs 3", lambda: fleet.running(3) == LAB + FIELD, alive=server)
        until("it is completed", lambda: house.rollout_status() == "completed", alive=server)
        until("all is told", lambda: not any(device.waiting for device in fleet.devices))
    gone(workers)
    assert fleet.unanswered > 0, "no kill was noticed"
    assert not any(device.refused for device in fleet.devices)
    assert len(events_logged(house)) == 3 * (LAB + FIELD)
    fleet.assert_told_once(events_logged(house))
    no_wave_opened_before_its_deltas(house)
    house.assert_nothing_was_built_twice()
    status = house.status()
    assert {wave["wave"]: (wave["status"], wave["confirmed"]) for wave in status["waves"]} == {
        "lab": ("passed", LAB),
        "some": ("passed", 5),
        "rest": ("passed", FIELD - 5),
    }
    house.counts_up()
    assert server.stop() < 10


def test_a_build_of_a_killed_server_is_taken_up_again(house: House) -> None:
    """The server dies while ostree is at a delta. Its builders notice, end what they run and give the job back: the
    next server builds at once and not after the lease (30 s) is over."""
    (house.tools / "hang").touch()
    house.begin()
    server = house.serve()
    hanging = house.tools / "hanging"
    until("ostree is at it", hanging.exists, alive=server)
    workers = server.workers()
    assert int(hanging.read_text().split()[0]) in workers
    server.kill()
    took = gone(workers, within=30)
    assert took < 15
    job = house.rows("SELECT status, owner, lease_until FROM build")
    assert job == [("queued", None, None)], job
    (house.tools / "hang").unlink()
    began = time.monotonic()
    with Fleet(house) as fleet:
        server = house.serve()
        until("the lab is open", lambda: house.rows("SELECT 1 FROM journal WHERE event = 'opened'") != [], alive=server)
        assert time.monotonic() - began < 25
        until("it is completed", lambda: house.rollout_status() == "completed", alive=server)
    fleet.assert_told_once(events_logged(house))
    house.assert_nothing_was_built_twice()
    house.counts_up()
    assert not list((house.repo / ".wave" / "builds").iterdir())


@pytest.mark.parametrize("at", ["idle", "work", "start"])
def test_it_stops_at_once_with_0(house: House, at: str) -> None:
    """SIGTERM while nothing happens (with connections open that say nothing), while a delta is built, and before it
    listens."""
    if at == "start":
        server = house.serve(listens=False)
        until("it has begun", lambda: bool(server.workers()) or server.said() != "", alive=server)
        server.stop()
        return
    if at == "work":
        (house.tools / "hang").touch()
        house.begin()
    server = house.serve()
    idle = [socket.create_connection(("127.0.0.1", house.port)) for _ in range(3)]
    idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle[0].recv(100).startswith(b"HTTP/1.1 200")
    if at == "work":
        until("ostree is at it", (house.tools / "hanging").exists, alive=server)
    workers = server.workers()
    took = server.stop()
    assert gone(workers) < 1
    for each in idle:
        each.close()
    assert house.rows("SELECT * FROM lease WHERE name = 'ticker'") == []
    if at == "work":
        assert house.rows("SELECT status, owner FROM build") == [("queued", None)]
    assert took < 5
