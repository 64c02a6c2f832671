"""hawkBit's protocol at the gateway: what a device is told, and what its words do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.artifact import FILES
from orchestrator.core.ddi import MOST_TRIES
from orchestrator.core.fleet import Target
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import Refused
from orchestrator.services.ddi import MOST_ENDS, MOST_ENTRIES
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.deltas import Deltas
from orchestrator.services.planning import Planner
from orchestrator.services.running import unknown_commit
from tests.gateway.ddi_world import BASE, LENIENT, DdiWorld, artifact_of, content_of
from tests.services.fake_provider import FakeProvider
from tests.services.fleet_world import HARDWARE, TAG

MINUTE = timedelta(minutes=1)


# ------------------------------------------------------------------------------------------------- polls


def test_a_device_with_nothing_to_do_is_told_when_to_come_again_and_asked_what_it_runs(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    found = ddi.poll(device)
    assert len(found["config"]["polling"]["sleep"]) == 8
    assert found["_links"] == {"configData": {"href": f"{BASE}/{device}/configData"}}
    ddi.configure(device, "1.0.0")
    assert ddi.poll(device)["_links"] == {}


def test_a_device_that_cannot_say_its_version_is_asked_once(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    assert "configData" in ddi.links(device)
    ddi.configure(device, None, serial="x")
    assert ddi.links(device) == {}


def test_an_idle_poll_writes_nothing(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "1.0.0")
    ddi.poll(device)
    before = ddi.world.devices.writer.items
    for _ in range(5):
        ddi.later(MINUTE)
        assert ddi.links(device) == {}
        assert ddi.configure(device, "1.0.0").status_code == 200
    assert ddi.world.devices.writer.items == before


def test_a_device_waits_for_no_delta_and_its_offer_is_noted_as_whole_though_one_is_there(
    ddi: DdiWorld, tmp_path: Path
) -> None:
    before, after = artifact_of(41).sha256, artifact_of(42).sha256
    strict = {"policy": {"deltas": {"otherwise": "hold"}}}
    waits, gets = ddi.fleet(2, **strict)
    store = ddi.world.store
    assert "deploymentBase" in ddi.links(waits)
    assert ddi.world.update(waits).by_delta is False
    with store.writing() as w:
        w.record_delta(DeltaRecord(DeltaPair(before, after), "deltas/ab/cdef", 1, 10, 0, 0), now=ddi.world.now)
    ddi.world.devices.refresh()
    assert "deploymentBase" in ddi.links(gets)
    assert ddi.world.update(gets).by_delta is False
    with store.reading() as r:
        assert r.jobs() == []
        spec = RolloutFile.parse(
            {"rollout": "b", "target": 42, "tag": TAG, "policy": "p", "waves": [{"wave": "all", "devices": "all"}]}
        )
    provider = FakeProvider(tmp_path, [before, after])
    deltas = Deltas(store, provider, ddi.world.clock)
    plan = Planner(store, provider, deltas, ddi.world.clock).plan(spec, Policy.parse({"policy": "p"}))
    assert plan.notes[0] == (
        "2 devices speak hawkBit's protocol, which has no deltas: they are served whole, and no delta is made or waited"
        " for."
    )
    assert plan.waves[0].deltas == ()
    assert plan.bytes_with == plan.bytes_without == 2 * artifact_of(42).size


def test_an_update_from_the_offer_to_the_confirmation(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    links = ddi.links(device)
    assert set(links) == {"deploymentBase"}
    action, artifact = ddi.action(device), artifact_of(42)
    assert 0 < action < 2**31
    deployment = ddi.get(device, links["deploymentBase"]).json()
    assert deployment["id"] == str(action)
    href = f"{BASE}/{device}/softwaremodules/{action}/artifacts/image.swu"
    assert deployment["deployment"] == {
        "download": "forced",
        "update": "forced",
        "chunks": [
            {
                "part": "bApp",
                "version": "1.42.0",
                "name": "demo",
                "artifacts": [
                    {
                        "filename": "image.swu",
                        "hashes": {
                            "sha1": artifact.digests.sha1,
                            "md5": artifact.digests.md5,
                            "sha256": artifact.digests.sha256,
                        },
                        "size": artifact.size,
                        "_links": {
                            "download": {"href": href},
                            "download-http": {"href": href},
                            "md5sum-http": {"href": f"{href}.MD5SUM"},
                        },
                    }
                ],
            }
        ],
    }
    assert ddi.world.status(device) is UpdateStatus.OFFERED, "a look is no start"
    begun = ddi.say(device, action, "proceeding", "none", "Installing Update Chunk Artifacts.")
    assert (begun.status_code, begun.content) == (200, b"")
    assert ddi.world.status(device) is UpdateStatus.DOWNLOADING
    assert ddi.get(device, href).content == content_of(42)
    ddi.say(device, action, "proceeding", "none", "All Chunks Installed.")
    assert ddi.world.status(device) is UpdateStatus.INSTALLING
    assert "deploymentBase" in ddi.links(device), "its client must find it after the reboot"
    ddi.say(device, action, "closed", "success", "Update Installed.")
    assert ddi.world.status(device) is UpdateStatus.APPLIED
    assert set(ddi.links(device)) == {"configData"}, "linked still, its client would install it again"
    ddi.configure(device, "1.42.0")
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED
    assert ddi.links(device) == {}


def test_a_success_before_the_reboot_confirms_nothing_and_what_it_ran_before_is_no_rollback(ddi: DdiWorld) -> None:
    """The RAUC updater closes before the reboot, and is asked what it runs until that is the Target."""
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    ddi.say(device, action, "closed", "success", "Software bundle installed successfully.")
    for _ in range(3):
        assert set(ddi.links(device)) == {"configData"}
        ddi.configure(device, "1.41.0")
        assert ddi.world.status(device) is UpdateStatus.APPLIED
    ddi.configure(device, "1.42.0")
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED


def test_polls_confirm_nothing_however_many(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    ddi.say(device, ddi.action(device), "closed", "success")
    for _ in range(20):
        ddi.later(timedelta(hours=1))
        ddi.poll(device)
    assert ddi.world.status(device) is UpdateStatus.APPLIED
    ddi.later(timedelta(hours=5))
    assert ddi.world.status(device) is UpdateStatus.SILENT, "it says nothing that counts"


def test_a_device_that_goes_back_after_it_was_confirmed_has_rolled_back(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    ddi.say(device, ddi.action(device), "closed", "success")
    ddi.configure(device, "1.42.0")
    ddi.configure(device, "1.41.0")
    assert ddi.world.status(device) is UpdateStatus.ROLLED_BACK


def test_going_back_to_software_that_nothing_here_is_called_by_is_a_rollback_too(ddi: DdiWorld) -> None:
    ddi.artifact(42)
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "factory-7")
    ddi.world.apply()
    action = ddi.action(device)
    assert ddi.world.update(device).update.from_commit == unknown_commit(HARDWARE, "factory-7")
    ddi.say(device, action, "closed", "success")
    ddi.configure(device, "1.42.0")
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED
    ddi.configure(device, "factory-7")
    assert ddi.world.status(device) is UpdateStatus.ROLLED_BACK


def test_software_that_gets_a_name_during_a_rollout_is_what_it_was_when_it_was_offered(ddi: DdiWorld) -> None:
    ddi.artifact(42)
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "1.41.0")
    ddi.world.apply()
    ddi.say(device, ddi.action(device), "proceeding")
    ddi.artifact(41)
    ddi.later(MINUTE)
    ddi.configure(device, "1.41.0", serial="new")
    assert ddi.world.status(device) is UpdateStatus.DOWNLOADING, "and not on something third"


def test_software_that_got_a_name_since_confirms_the_rollout_that_brings_it(ddi: DdiWorld) -> None:
    """A fleet's old software, added later under a higher version as the way back."""
    ddi.artifact(42)
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "1.41.0")
    ddi.world.apply()
    ddi.say(device, ddi.action(device), "closed", "success")
    ddi.configure(device, "1.42.0")
    ddi.world.rollouts.cancel("lmp-42", by="anna")
    old = artifact_of(41)
    with ddi.world.store.writing() as w:
        w.add_artifact(old)
        w.add_target(Target("back", 43, old.sha256, (HARDWARE,), (TAG,), provider=FILES), now=ddi.world.now)
    ddi.world.apply(name="lmp-43", target=43)
    ddi.say(device, ddi.action(device), "closed", "success")
    ddi.later(MINUTE)
    ddi.configure(device, "1.41.0")
    assert ddi.world.status(device, "lmp-43") is UpdateStatus.CONFIRMED


def test_of_a_version_without_end_no_more_is_remembered_than_of_others(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    for number in range(3):
        assert ddi.configure(device, f"{number}" * 60_000).status_code == 200
    assert {len(words.version or "") for words in ddi.service.dictionary.remembered()} == {64}


def test_the_number_of_a_target_is_a_version(ddi: DdiWorld) -> None:
    artifact = ddi.artifact(42)
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "42")
    with ddi.world.store.reading() as r:
        found = r.device(device)
    assert found is not None and (found.device.commit, found.device.version) == (artifact.sha256, 42)


# ------------------------------------------------------------------------------------------------- configData


def labels(ddi: DdiWorld, device: str) -> dict[str, str]:
    with ddi.world.store.reading() as r:
        found = r.device(device)
    assert found is not None
    return dict(found.device.labels)


def test_attributes_but_for_the_version_are_labels_merged_replaced_and_removed(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "1", serial="7", region="emea")
    ddi.configure(device, "1", region="amer")
    assert labels(ddi, device) == {"serial": "7", "region": "amer"}
    ddi.configure(device, None, "remove", region="")
    assert labels(ddi, device) == {"serial": "7"}
    ddi.configure(device, "2", "replace", region="emea")
    assert labels(ddi, device) == {"region": "emea"}


def test_what_cannot_be_a_label_is_left_out(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    ddi.configure(device, "1", **{"two words": "x", "long": "y" * 300, "line": "a\nb", "empty": "", "good": "z"})
    assert labels(ddi, device) == {"good": "z"}


def test_hardware_that_no_target_is_for_does_not_cut_a_device_off(ddi: DdiWorld) -> None:
    ddi.world.target(7, hardware=("imx8",))
    (device,) = ddi.world.enroll(1)
    for board, expected in (("sim", HARDWARE), ("imx8", "imx8"), ("no name!", "imx8")):
        ddi.configure(device, "1", board=board)
        with ddi.world.store.reading() as r:
            found = r.device(device)
        assert found is not None and found.device.hardware_id == expected


def test_too_many_attributes_are_refused(ddi: DdiWorld) -> None:
    (device,) = ddi.world.enroll(1)
    assert ddi.configure(device, "1", **{f"k{number}": "v" for number in range(100)}).status_code == 429
    assert ddi.configure(device, "1", **{f"k{number}": "v" for number in range(99)}).status_code == 200
    assert len(labels(ddi, device)) == 64


# ------------------------------------------------------------------------------------------------- feedback

ENDS = [
    ("failure", ["Some error"], UpdateStatus.FAILED, OutcomeClass.FAILED),
    ("failure", ["[ERROR] Checksum does not match"], UpdateStatus.FAILED, OutcomeClass.FAILED),
    ("failure", ["Download failed: HTTP 500"], UpdateStatus.DOWNLOADING, OutcomeClass.DOWNLOAD_FAILED),
    ("success", ["Update Installed."], UpdateStatus.APPLIED, None),
    ("none", [], UpdateStatus.APPLIED, None),
    ("success", ["Skipped Update."], UpdateStatus.OFFERED, None),
]


@pytest.mark.parametrize(("finished", "details", "status", "outcome"), ENDS)
def test_how_an_action_ends(
    ddi: DdiWorld, finished: str, details: list[str], status: UpdateStatus, outcome: OutcomeClass | None
) -> None:
    (device,) = ddi.fleet(1)
    assert ddi.say(device, ddi.action(device), "closed", finished, *details).status_code == 200
    update = ddi.world.update(device).update
    assert (update.status, set(update.bad)) == (status, set() if outcome is None else {outcome})


@pytest.mark.parametrize("execution", ["download", "downloaded", "scheduled", "resumed", "proceeding"])
def test_whatever_says_that_it_is_under_way_is_a_start(ddi: DdiWorld, execution: str) -> None:
    (device,) = ddi.fleet(1)
    assert ddi.say(device, ddi.action(device), execution).status_code == 200
    assert ddi.world.status(device) is UpdateStatus.DOWNLOADING


def test_a_rejection_is_a_warning_and_the_action_stays(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    assert ddi.say(device, action, "rejected", "none", "battery low").status_code == 200
    assert ddi.world.status(device) is UpdateStatus.OFFERED and ddi.action(device) == action


def test_a_device_that_cancels_by_itself_refuses_the_target(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    ddi.say(device, ddi.action(device), "canceled", "none", "by the user")
    assert ddi.world.status(device) is UpdateStatus.IGNORED
    assert ddi.links(device) == {}


def test_the_same_feedback_twice_counts_once_and_is_acknowledged_twice(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    for execution, finished in (("proceeding", "none"), ("closed", "failure")):
        assert [ddi.say(device, action, execution, finished, "x").status_code for _ in range(3)] == [200, 200, 200]
    assert (ddi.world.devices.reports.accepted, ddi.world.devices.reports.duplicates) == (2, 4)
    assert ddi.world.facts().waves[0].slices[0].bad == {OutcomeClass.FAILED: 1}


def test_late_feedback_is_gone_and_changes_nothing(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    ddi.say(device, action, "closed", "failure", "first")
    assert ddi.say(device, action, "closed", "success", "after all").status_code == 410
    assert ddi.say(device, action, "proceeding", "none", "late").status_code == 410
    assert ddi.world.status(device) is UpdateStatus.FAILED


def test_what_fails_after_it_was_closed_counts(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    ddi.say(device, action, "closed", "success")
    assert ddi.say(device, action, "closed", "failure", "did not boot").status_code == 200
    assert ddi.world.status(device) is UpdateStatus.FAILED


def test_another_try_is_another_action_and_the_old_one_is_gone(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy=LENIENT)
    first = ddi.action(device)
    ddi.say(device, first, "closed", "failure")
    ddi.world.rollouts.retry("lmp-42", [device], by="anna")
    ddi.world.tick()
    second = ddi.action(device)
    assert second != first
    assert ddi.say(device, first, "closed", "failure", "again").status_code == 410
    assert ddi.get(device, f"deploymentBase/{first}").status_code == 404
    assert ddi.say(device, second, "closed", "success").status_code == 200
    assert ddi.world.status(device) is UpdateStatus.APPLIED


def test_tries_end_where_numbers_do(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy=LENIENT)
    for turn in range(MOST_TRIES):
        assert ddi.say(device, ddi.action(device), "closed", "failure", str(turn)).status_code == 200
        if turn < MOST_TRIES - 1:
            ddi.world.rollouts.retry("lmp-42", [device], by="anna")
            ddi.world.tick()
    with pytest.raises(Refused, match=r"63 tries at a rollout at most"):
        ddi.world.rollouts.retry("lmp-42", [device], by="anna")


def test_the_error_code_is_what_the_policy_tells_failures_apart_by(ddi: DdiWorld) -> None:
    tolerate = {"codes": {"modem": {"match": ["17"], "at_most": "10%", "then": "hold"}}}
    (device,) = ddi.fleet(1, policy={"tolerate": tolerate})
    ddi.say(device, ddi.action(device), "closed", "failure", "no carrier", status={"code": 17})
    assert set(ddi.world.update(device).update.bad) == {"modem"}


def test_after_a_thousand_entries_only_an_end_is_taken(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    for number in range(MOST_ENTRIES):
        assert ddi.say(device, action, "proceeding", "none", str(number)).status_code == 200
    more = ddi.say(device, action, "proceeding", "none", "one more")
    assert more.status_code == 429 and "retry-after" in more.headers
    for number in range(MOST_ENDS - 1):
        assert ddi.say(device, action, "closed", "failure", "Download failed", str(number)).status_code == 200
    assert ddi.say(device, action, "closed", "success").status_code == 200
    assert ddi.world.status(device) is UpdateStatus.APPLIED
    assert ddi.say(device, action, "closed", "success", "again and again").status_code == 429


BAD_BODIES = [
    b"",
    b"[]",
    b"{",
    b'{"status":{}}',
    b'{"status":{"execution":"closed"}}',
    b'{"status":{"execution":"closed","result":{"finished":"perhaps"}}}',
    b'{"status":{"execution":"dancing","result":{"finished":"none"}}}',
    b'{"status":{"execution":"closed","result":{"finished":"success"},"details":[{}]}}',
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_what_is_no_feedback_is_refused(ddi: DdiWorld, body: bytes) -> None:
    (device,) = ddi.fleet(1)
    answer = ddi.post(device, f"deploymentBase/{ddi.action(device)}/feedback", body)
    assert answer.status_code == 400 and set(answer.json()) == {"errorCode", "message"}
    assert ddi.world.status(device) is UpdateStatus.OFFERED


def test_log_lines_that_are_no_utf_8_are_taken(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    body = b'{"id":1,"status":{"execution":"closed","result":{"finished":"failure"},"details":["caf\xe9 \xff"]}}'
    assert ddi.post(device, f"deploymentBase/{ddi.action(device)}/feedback", body).status_code == 200
    assert ddi.world.status(device) is UpdateStatus.FAILED


# ------------------------------------------------------------------------------------------------- ignoring


def test_a_client_that_looks_several_times_before_it_begins_ignores_nothing(ddi: DdiWorld) -> None:
    """SWUpdate looks three times or four before it installs, all within one interval."""
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    for _ in range(8):
        ddi.later(timedelta(seconds=20))
        ddi.get(device, f"deploymentBase/{action}")
        assert "deploymentBase" in ddi.links(device)
    assert ddi.world.update(device).update.check_ins <= 1
    assert ddi.say(device, action, "proceeding").status_code == 200


def test_a_device_that_comes_back_for_three_intervals_without_a_start_ignores_the_offer(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    ddi.poll(device)
    for _ in range(3):
        assert ddi.world.status(device) is UpdateStatus.OFFERED
        ddi.later(5 * MINUTE)
        ddi.poll(device)
    assert ddi.world.status(device) is UpdateStatus.IGNORED
    assert ddi.links(device) == {}
