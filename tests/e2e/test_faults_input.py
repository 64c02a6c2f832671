"""What people and devices hand in that cannot be: one sentence, an exit code or a status, and nothing is changed by it.

=======================================================  ==========================================================
what happens                                              where it is shown
=======================================================  ==========================================================
broken YAML, unknown keys, wrong units, cycles, shares    tests/adapters/test_files.py; tests/core/test_rollout_file.py,
                                                          test_policy.py; tests/cli/test_errors.py; test_a_bad_file
unknown policy, Target, commit; another commit            tests/cli/test_errors.py; tests/services/test_targets.py
unknown tag or group                                      test_a_tag_or_a_group_that_is_not_there
a version lower than what devices run                     test_a_version_lower_than_what_devices_run
two live rollouts for the same devices                    tests/cli/test_errors.py; tests/contract/test_starts.py;
                                                          test_two_rollouts_for_the_same_devices
every answer of the gateway                               tests/gateway/test_protocol.py
reports of strangers, of other Targets, from the          tests/services/test_reports.py;
future, twice, out of order, 10 MB, not JSON              test_reports_that_cannot_be
=======================================================  ==========================================================
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.adapters.sql.codec import STATUS_NUMBER
from orchestrator.core.update import UpdateStatus
from tests.e2e.faults import LAB, POLICY, ROLLOUT, House, copied
from tests.e2e.faulty_fleet import Fleet, ask
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.slow]


@pytest.fixture(scope="module")
def shared(template: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One installation for all that is refused: it stays as it was."""
    with copied(template, tmp_path_factory.mktemp("shared") / "house") as house:
        house.file("quick.yaml", POLICY)
        yield house
        assert house.value("SELECT count(*) FROM rollout") == 0
        assert house.value("SELECT count(*) FROM journal") == 0


CYCLE = ROLLOUT.replace("- wave: lab\n", "- wave: lab\n    after: [rest]\n")

BAD_FILES = [  # name, the rollout file, the policy file, exit code, what the sentence says
    ("broken", "rollout: [\n", POLICY, 2, "rollout.yaml:"),
    ("binary", "\x00\x01\x02", POLICY, 2, "rollout.yaml"),
    (
        "unknown key",
        ROLLOUT + "retries: 3\n",
        POLICY,
        2,
        "rollout.yaml:12: retries: is not a key here; allowed are rollout, target,",
    ),
    ("wrong unit", ROLLOUT, POLICY.replace("10m", "10x", 1), 2, "quick.yaml:5: silent_after: must be a duration"),
    ("no unit", ROLLOUT, POLICY.replace("at_least: 1s", "at_least: 1"), 2, "has no unit: write 1s, 1m, 1h or 1d."),
    ("over 100 %", ROLLOUT.replace("{count: 5}", "{share: 125%}"), POLICY, 2, "waves[1].devices.share:"),
    ("cycle", CYCLE, POLICY, 2, "rollout.yaml:7: waves[0].after: goes round in a circle, so"),
    ("unknown policy", ROLLOUT.replace("./quick.yaml", "standart"), POLICY, 2, "Did you mean 'standard'?"),
    ("unknown Target", ROLLOUT.replace("target: 3", "target: 9"), POLICY, 3, "There is no Target of version 9."),
]


@pytest.mark.parametrize(
    ("rollout", "policy", "code", "said"), [each[1:] for each in BAD_FILES], ids=[each[0] for each in BAD_FILES]
)
def test_a_bad_file(shared: House, rollout: str, policy: str, code: int, said: str) -> None:
    shared.file("quick.yaml", policy)
    sentence = shared.fails(code, "apply", shared.file("rollout.yaml", rollout), "--start")
    assert said in sentence
    assert sentence.count("\n") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("tag: main", "tag: nobody"), "No device follows the tag nobody. Tags that devices follow: main."),
        (
            ("group: lab", "group: nowhere"),
            "Wave lab names the device group nowhere, which does not exist. Groups: field, lab.",
        ),
    ],
    ids=["tag", "group"],
)
def test_a_tag_or_a_group_that_is_not_there(shared: House, change: tuple[str, str], said: str) -> None:
    shared.file("quick.yaml", POLICY)
    assert shared.fails(3, "apply", shared.file("rollout.yaml", ROLLOUT.replace(*change)), "--start") == said


def test_a_version_lower_than_what_devices_run(house: House) -> None:
    """``plan`` says that nobody would be offered it; once started it offers nothing to anybody, whoever asks."""
    text = ROLLOUT.replace("target: 3", "target: 1")
    house.file("quick.yaml", POLICY)
    planned = " ".join(house.ok("plan", house.file("rollout.yaml", text)).out.split())
    assert "No device would be offered the Target: all run it or a newer version, or none is eligible." in planned
    assert "7 devices of the tag run a newer version than 1: they are left alone." in planned
    house.begin(text)
    server = house.serve()
    held = "No eligible device is in it: `wave resume` looks again when some have come"
    fleet = Fleet(house)
    until(
        "it waits for a person",
        lambda: house.rows("SELECT 1 FROM journal WHERE event = 'wave_held'") != [],
        alive=server,
    )
    fleet.round()
    assert not any(device.offers for device in fleet.devices)
    rest = house.status()["waves"][2]
    assert rest["hold"]["reason"]["kind"] == "empty" and rest["hold"]["reason"]["sentence"].startswith(held)
    assert house.value("SELECT count(*) FROM device_update") == 0
    house.counts_up()


def test_two_rollouts_for_the_same_devices(house: House) -> None:
    house.begin()
    other = house.file("other.yaml", ROLLOUT.replace("rollout: r3", "rollout: r2").replace("target: 3", "target: 2"))
    sentence = house.fails(4, "apply", other, "--start")
    assert "r3" in sentence and "supersedes: r3" in sentence
    assert house.rows("SELECT name, status FROM rollout WHERE status <> 'draft'") == [("r3", "running")]
    house.counts_up()


def test_reports_that_cannot_be(house: House) -> None:
    """One device of the lab that was offered 3, and one that was not. After all of it the log has exactly what was
    good, once, and the rollout has not moved by anything else."""
    house.begin(policy=POLICY.replace("at_least: 1s", "at_least: 10m"))
    server = house.serve()
    fleet = Fleet(house)
    lab, field = fleet.devices[-1], fleet.devices[0]
    assert (lab.id, field.id) == (f"lab-{LAB - 1}", "dev-00")
    until("the lab is open", lambda: lab.check_in(house.port)["offer"] is not None, alive=server, every=0.3)
    mine, theirs = f"/v1/devices/{lab.id}/reports", f"/v1/devices/{field.id}/reports"

    def event(number: int, kind: str = "downloading", **more: Any) -> dict[str, Any]:
        return {"id": f"e{number}", "rollout": "r3", "target": 3, "event": kind, **more}

    def tell(path: str, body: Any, token: str | None = lab.token) -> tuple[int, Any]:
        return ask(house.port, path, body, token)

    one = {"events": [event(1)]}
    for path, token in (
        ("/v1/devices/nobody/reports", lab.token),
        (mine, field.token),
        (mine, "wrong"),
        (mine, None),
        ("/v1/devices/..%2Flab-0/reports", lab.token),
    ):
        status, answer = tell(path, one, token)
        assert (status, answer["error"]["kind"]) == (401, "unauthorized"), answer
    for body, status, kind in (
        (b"{", 400, "not_json"),
        (b"\xff\xfe", 400, "not_json"),
        (b"", 400, "not_json"),
        (b"[" * 100_000, 400, "invalid_report"),
        (b'{"events": 3}', 400, "invalid_report"),
        (b'{"events": [{"id": "x"}]}', 400, "invalid_report"),
        (b'{"events": [' + b" " * (10 << 20) + b"]}", 413, "too_large"),
    ):
        found, answer = tell(mine, body)
        assert (found, answer["error"]["kind"]) == (status, kind), answer
        assert len(answer["error"]["message"]) < 300
    assert house.value("SELECT count(*) FROM event") == 0
    status, answer = tell(
        mine,
        {
            "events": [
                event(1, at="2099-01-01T00:00:00Z"),
                event(1),
                event(2, target=2),
                event(3, rollout="gone"),
                event(4, "exploded"),
                {**event(5), "id": ""},
                {**event(6), "id": "x" * 129},
                event(7, "applied"),
                event(8, "installing"),
            ]
        },
    )
    assert status == 200
    assert (answer["accepted"], answer["duplicates"]) == (3, 1), answer
    assert [(each["index"], each["kind"]) for each in answer["refused"]] == [
        (2, "other_target"),
        (3, "unknown_rollout"),
        (4, "unknown_event"),
        (5, "bad_id"),
        (6, "bad_id"),
    ]
    assert tell(mine, {"events": [event(1), event(7, "applied")]})[1]["duplicates"] == 2
    status, answer = tell(theirs, one, field.token)
    assert answer["refused"][0]["kind"] == "not_offered"
    stored = house.value("SELECT status FROM device_update WHERE started_at IS NOT NULL")
    assert stored == STATUS_NUMBER[UpdateStatus.APPLIED]
    assert house.value("SELECT count(*) FROM event") == 3
    latest = house.value("SELECT max(received_at) FROM event")
    assert latest < (time.time() + 60) * 1e6  # the server's time, not 2099
    server.stop()
    house.counts_up()
