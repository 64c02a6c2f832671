"""The repository vanishes, a delta breaks, a build hangs, ``ostree`` is missing or old: a sentence, and it heals.

=======================================================  ==========================================================
what happens                                              where it is shown
=======================================================  ==========================================================
each failure of ``ostree`` by itself                      tests/adapters/test_ostree_provider.py, test_ostree_command.py
a repository on a full or read-only disk                  tests/adapters/test_ostree_provider.py
a build that fails once, twice, for ever                  tests/services/test_builder.py; tests/stories/test_deltas.py
a recorded delta that is not whole any more               tests/services/test_deltas.py; test_a_delta_that_breaks_...
an index or a fallback object that is lost                tests/adapters/test_ostree_provider.py
``ostree`` is missing, or too old                         test_without_a_proper_ostree
a build hangs                                             test_a_build_that_hangs
the repository vanishes in the middle and comes back      test_a_repository_that_vanishes_and_comes_back
the commit of the Target is missing                       test_a_target_whose_commit_is_lost
=======================================================  ==========================================================
"""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.faults import (
    LAB,
    POLICY,
    ROLLOUT,
    House,
    events_logged,
    no_wave_opened_before_its_deltas,
    published_name,
)
from tests.e2e.faulty_fleet import Fleet, ask
from tests.loopback import listens
from tests.waiting import gone, until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.slow]


def tools_without_ostree(house: House) -> dict[str, str]:
    """A PATH on which everything is but ``ostree``."""
    folder = house.root / "poor"
    folder.mkdir()
    for name in ("nice", "setpriv", "sh", "env"):
        if (found := shutil.which(name)) is not None:
            (folder / name).symlink_to(found)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "The command `ostree` is not there. Install it (Debian: `apt-get install ostree`)"),
        ("old", "ostree is version 2019.1, too old to index deltas. Install 2020.8 or later."),
    ],
)
def test_without_a_proper_ostree(house: House, how: str, said: str) -> None:
    """``wave serve`` and what needs ostree say so and end with 6; what does not need it still works."""
    env = tools_without_ostree(house) if how == "missing" else {}
    if how == "old":
        (house.tools / "old").touch()
    server = house.serve(listens=False, env=env)
    assert server.process.wait(60) == 6
    assert server.said().startswith("wave: ") and said in server.said(), server.said()
    assert server.said().count("\n") == 1
    assert not listens(house.port)
    assert said in house.fails(6, "delta", "build", "1", "3", "--here", env=env)
    assert house.rows("SELECT status FROM build") == [("queued",)]
    assert house.wave("target", "list", env=env).code == 0
    house.counts_up()


def test_a_build_that_hangs(house: House) -> None:
    """It is ended after ``build_timeout`` with all it started; the wave stays shut, and status says why."""
    (house.tools / "hang").touch()
    house.settings(more="build_timeout: 1s")
    house.begin()
    server = house.serve()
    until("a try has failed", lambda: "was ended after 1 seconds" in server.said(), alive=server)
    pids = [int(pid) for pid in (house.tools / "hanging").read_text().split()]
    gone(pids[:1])
    assert house.rows("SELECT 1 FROM journal WHERE event = 'opened'") == []
    shown = house.ok("delta", "show", "1", "3", "--log").out
    assert "was ended after 1 seconds. Give builds more time" in " ".join(shown.split())
    status = house.status()
    assert status["waves"][0]["status"] == "preparing"
    assert "100 % must be covered" in status["waves"][0]["waiting"][0]["sentence"]
    server.stop()
    house.counts_up()


def test_a_repository_that_vanishes_and_comes_back(house: House) -> None:
    """It is unmounted after the lab has passed. Devices go on being answered, downloads are told to wait, no wave opens
    on what cannot be looked at, and ``wave`` says what is missing. When it is back the rollout goes on by itself."""
    text = ROLLOUT.replace("{count: 5}", "{count: 5}\n    policy: {promote: manual}")
    house.begin(text)
    server = house.serve()
    away = house.root / "away"
    with Fleet(house) as fleet:
        until("the lab passed", lambda: house.rows("SELECT 1 FROM journal WHERE event = 'passed'") != [], alive=server)
        house.repo.rename(away)
        house.ok("promote", "r3", "some", "--reason", "go on")
        lab = fleet.devices[-1]
        assert ask(house.port, f"/v1/devices/{lab.id}/check-in", {"commit": lab.commit}, lab.token)[0] == 200
        status, _ = ask(house.port, "/ostree/config", None, None, method="GET")
        assert status == 503
        sentence = f"There is no OSTree repository at {house.repo}. Mount or restore it"
        assert house.fails(6, "delta", "build", "1", "3", "--here").startswith(sentence)
        until("it is said", lambda: "There is no OSTree repository" in server.said(), alive=server)
        assert house.rows("SELECT 1 FROM journal WHERE event = 'opened' AND wave = 'some'") == []
        away.rename(house.repo)
        until("`some` has it", lambda: fleet.running(3) >= LAB + 5, alive=server)
    fleet.assert_told_once(events_logged(house))
    no_wave_opened_before_its_deltas(house)
    house.counts_up()
    server.stop()


def test_a_repository_that_vanishes_in_the_middle_of_a_build(house: House) -> None:
    """Nothing can be built while it is away; when it is back the build is taken up again without anybody's help."""
    (house.tools / "slow").write_text("1")
    house.begin()
    server = house.serve()
    away = house.root / "away"
    until("ostree is at it", lambda: house.generated() != [], alive=server)
    house.repo.rename(away)
    until("it is given back", lambda: house.rows("SELECT status, owner FROM build") == [("queued", None)], alive=server)
    assert "There is no OSTree repository" in house.value("SELECT error FROM build")
    away.rename(house.repo)
    with Fleet(house) as fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB, alive=server)
    house.counts_up()


def test_a_delta_that_breaks_before_its_wave_opens(house: House) -> None:
    """The lab passes by a recorded delta; while ``some`` waits for a promotion one byte of it changes on the disk. With
    the promotion given the wave does not open before the delta is built anew, and verified."""
    # of 15 devices 8 run one version and 7 the other: among 9 there are some of both, however they are drawn
    text = ROLLOUT.replace("{count: 5}", "{count: 9}\n    policy: {promote: manual}")
    house.begin(text)
    server = house.serve()
    commits = house.versions.commits
    with Fleet(house) as fleet:
        until("the lab passed", lambda: house.rows("SELECT 1 FROM journal WHERE event = 'passed'") != [], alive=server)
        until("all is built", lambda: house.value("SELECT count(*) FROM delta") == 2, alive=server)
        part = house.repo / "deltas" / published_name(commits[1], commits[3]) / "0"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        before = len(house.generated())
        house.ok("promote", "r3", "some", "--reason", "go on")
        until("`some` has it", lambda: fleet.running(3) >= LAB + 9, alive=server)
    opened = house.value("SELECT at FROM journal WHERE event = 'opened' AND wave = 'some'")
    assert opened >= house.value(f"SELECT recorded_at FROM delta WHERE from_commit = '{commits[1]}'")
    assert "does not hold any more, it is built anew" in server.said()
    assert len(house.generated()) > before
    assert bytes(part.read_bytes()) != bytes(content)
    house.counts_up()


def test_a_target_whose_commit_is_lost(house: House) -> None:
    """It is pruned after the Target was added: ``plan`` warns, a started rollout opens nothing and says why; pushing
    the commit again is enough."""
    commit = house.versions.commits[3]
    lost = house.repo / "objects" / commit[:2] / f"{commit[2:]}.commit"
    kept = lost.read_bytes()
    lost.unlink()
    sentence = house.fails(6, "target", "add", "4", commit, "--hardware-id", "board", "--tag", "main")
    assert sentence.startswith(f"The commit '{commit}' is not in the repository. Push it first")
    house.file("quick.yaml", POLICY)
    planned = house.wave("plan", house.file("rollout.yaml", ROLLOUT))
    assert planned.code == 0 and "not in the repository" in planned.said
    house.begin()
    server = house.serve()
    until("it is said", lambda: "is not in the repository: no delta" in server.said(), alive=server)
    status = house.status()
    assert status["status"] == "running"
    assert {wave["status"] for wave in status["waves"]} <= {"pending", "preparing"}
    assert any(commit in problem for problem in status["problems"])
    lost.write_bytes(kept)
    with Fleet(house) as fleet:
        until("the lab has it", lambda: fleet.running(3) >= LAB, alive=server)
    house.counts_up()
