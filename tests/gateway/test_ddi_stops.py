"""What a halt and a cancellation are to devices of hawkBit's protocol."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.update import UpdateStatus
from orchestrator.services.credentials import TargetToken
from tests.gateway.ddi_world import BASE, CANCEL, LENIENT, DdiWorld, artifact_of, body_of, content_of


def halt(ddi: DdiWorld) -> None:
    ddi.world.rollouts.halt("lmp-42", by="anna", reason="bad")
    ddi.world.tick()


def test_a_halt_leaves_nothing_to_a_device_that_has_not_started(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    halt(ddi)
    assert ddi.links(device) == {}
    href = f"softwaremodules/{action}/artifacts/image.swu"
    assert [ddi.get(device, path).status_code for path in (f"deploymentBase/{action}", href)] == [404, 404]
    assert ddi.say(device, action, "proceeding").status_code == 410, "so its client does not begin"
    assert ddi.say(device, action, "closed", "failure", "404").status_code == 410, "no failure of the release"
    assert ddi.world.status(device) is UpdateStatus.WITHDRAWN


def test_the_halt_that_a_report_proves_stands_for_the_next_device_before_any_tick(ddi: DdiWorld) -> None:
    devices = ddi.fleet(12, policy={"budget": {"failed": 3}, **LENIENT})
    waiting = devices[-1]
    assert "deploymentBase" in ddi.links(waiting)
    for device in devices[:3]:
        ddi.say(device, ddi.action(device), "closed", "failure")
    assert ddi.world.row().state.status == "halted"
    assert ddi.links(waiting) == {}
    assert "deploymentBase" not in ddi.links(devices[6])


def test_a_halt_lets_a_device_that_has_started_finish(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    halt(ddi)
    assert ddi.action(device) == action
    assert ddi.get(device, f"deploymentBase/{action}").status_code == 200
    assert ddi.get(device, f"cancelAction/{action}").status_code == 404
    assert ddi.post(device, f"cancelAction/{action}/feedback", body_of("closed", "success")).status_code == 410
    ddi.say(device, action, "closed", "success")
    ddi.configure(device, "1.42.0")
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED


@pytest.mark.parametrize("how", ["halt", "cancel"])
def test_where_the_policy_says_so_a_device_that_has_started_is_told_to_stop(ddi: DdiWorld, how: str) -> None:
    (device,) = ddi.fleet(1, policy=CANCEL)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    if how == "halt":
        halt(ddi)
    else:
        ddi.world.rollouts.cancel("lmp-42", by="anna", reason="enough")
        ddi.world.tick()
    links = ddi.links(device)
    assert links == {"cancelAction": f"{BASE}/{device}/cancelAction/{action}"}, "and its address has no query"
    assert ddi.get(device, links["cancelAction"]).json() == {
        "id": str(action),
        "cancelAction": {"stopId": str(action)},
    }
    assert ddi.get(device, f"deploymentBase/{action}").status_code == 404
    done = body_of("closed", "success", "cancellation acknowledged.")
    assert ddi.post(device, f"cancelAction/{action}/feedback", done).status_code == 200
    update = ddi.world.update(device).update
    assert (update.status, update.bad, update.started) == (UpdateStatus.WITHDRAWN, frozenset(), True)
    assert ddi.post(device, f"cancelAction/{action}/feedback", done).status_code == 200, "told twice"
    assert ddi.links(device) == {}
    assert ddi.say(device, action, "closed", "failure", "aborted").status_code == 410


def test_a_device_that_will_not_stop_goes_on(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy=CANCEL)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding", "none", "installing")
    halt(ddi)
    assert "cancelAction" in ddi.links(device)
    answer = ddi.post(device, f"cancelAction/{action}/feedback", body_of("rejected", "none", "too late"))
    assert answer.status_code == 200
    assert "deploymentBase" in ddi.links(device)
    assert ddi.get(device, f"deploymentBase/{action}").status_code == 200
    ddi.say(device, action, "closed", "success")
    assert ddi.world.status(device) is UpdateStatus.APPLIED


def test_who_could_not_stop_without_harm_has_failed(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy=CANCEL)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    halt(ddi)
    ddi.post(device, f"cancelAction/{action}/feedback", body_of("closed", "failure", "half written"))
    assert ddi.world.status(device) is UpdateStatus.FAILED


def test_who_stopped_is_offered_it_again_when_a_person_resumes(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy=CANCEL)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    halt(ddi)
    ddi.post(device, f"cancelAction/{action}/feedback", body_of("closed", "success"))
    ddi.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    ddi.world.tick()
    assert ddi.action(device) == action
    ddi.say(device, action, "closed", "success", "this time")
    ddi.configure(device, "1.42.0")
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED


@pytest.mark.parametrize("polled", [False, True])
def test_who_was_told_to_stop_and_says_so_long_after_a_person_resumed_has_come_to_no_outcome(
    ddi: DdiWorld, polled: bool
) -> None:
    """09:00 it installs, 09:01 a halt tells it to stop, 09:02 a person resumes, 15:02 it says that it has."""
    (device,) = ddi.fleet(1, policy=CANCEL)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding", "none", "installing")
    ddi.later(timedelta(minutes=1))
    halt(ddi)
    assert "cancelAction" in ddi.links(device)
    ddi.later(timedelta(minutes=1))
    ddi.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    ddi.later(timedelta(hours=6))
    if polled:
        assert "deploymentBase" in ddi.links(device)
    stopped = body_of("closed", "success", "cancellation acknowledged.")
    assert ddi.post(device, f"cancelAction/{action}/feedback", stopped).status_code == 200
    update = ddi.world.update(device).update
    assert (update.status, update.bad) == (UpdateStatus.WITHDRAWN, frozenset())
    assert ddi.post(device, f"cancelAction/{action}/feedback", stopped).status_code == 200, "told twice"
    assert ddi.action(device) == action, "it is offered it again"
    assert ddi.post(device, f"cancelAction/{action}/feedback", stopped).status_code == 410, "of this nobody said stop"
    ddi.say(device, action, "proceeding", "none", "installing", time="20261102T150300")
    assert ddi.post(device, f"cancelAction/{action}/feedback", stopped).status_code == 410
    ddi.say(device, action, "closed", "success")
    ddi.configure(device, "1.42.0")
    assert ddi.world.status(device) is UpdateStatus.CONFIRMED


def test_who_could_not_stop_without_harm_and_says_so_after_a_person_resumed_has_failed(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy={**CANCEL, **LENIENT})
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    halt(ddi)
    ddi.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    ddi.later(timedelta(minutes=1))
    ddi.post(device, f"cancelAction/{action}/feedback", body_of("closed", "failure", "half written"))
    assert ddi.world.status(device) is UpdateStatus.FAILED


def test_who_cancels_by_itself_what_it_has_closed_changes_nothing(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    ddi.say(device, action, "closed", "success")
    assert ddi.say(device, action, "canceled").status_code == 410
    assert (ddi.world.status(device), ddi.world.update(device).update.bad) == (UpdateStatus.APPLIED, frozenset())
    ddi.configure(device, "1.42.0")
    assert ddi.say(device, action, "canceled", "none", "once more").status_code == 410
    assert (ddi.world.status(device), ddi.world.update(device).update.bad) == (UpdateStatus.CONFIRMED, frozenset())


def test_who_says_that_it_stopped_after_it_came_to_an_end_changes_nothing(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1, policy={**CANCEL, **LENIENT})
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    halt(ddi)
    ddi.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    ddi.later(timedelta(days=2))
    assert ddi.world.status(device) is UpdateStatus.SILENT
    stopped = body_of("closed", "success")
    assert ddi.post(device, f"cancelAction/{action}/feedback", stopped).status_code == 410
    assert ddi.world.status(device) is UpdateStatus.SILENT


def test_after_a_halt_and_a_resume_nothing_is_shown_before_it_is_offered_anew(ddi: DdiWorld) -> None:
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    halt(ddi)
    ddi.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    ddi.world.tick()
    assert ddi.world.status(device) is UpdateStatus.WITHDRAWN
    href = f"softwaremodules/{action}/artifacts/image.swu"
    assert [ddi.get(device, path).status_code for path in (f"deploymentBase/{action}", href)] == [404, 404]
    assert ddi.say(device, action, "proceeding").status_code == 410
    assert ddi.world.status(device) is UpdateStatus.WITHDRAWN
    assert ddi.action(device) == action
    assert [ddi.get(device, path).status_code for path in (f"deploymentBase/{action}", href)] == [200, 200]


def test_the_store_is_asked_about_an_offer_only_after_a_word_that_takes_offers_back(ddi: DdiWorld) -> None:
    """A rollout changes with every slice and every wave; what was offered stays offered."""
    (device,) = ddi.fleet(1)
    action = ddi.action(device)
    offered_at = ddi.world.row().version

    def looks() -> bool:
        ddi.world.devices.board.refresh()
        kept = ddi.world.devices.remembered(device, TargetToken(ddi.world.tokens[device]))
        assert kept is not None
        looking = ddi.service.ready(kept, action)
        assert looking is None or looking.exception(10) is None
        return looking is not None

    ddi.later(timedelta(minutes=1))
    ddi.world.tick()
    assert ddi.world.row().version > offered_at
    assert not looks()
    ddi.world.rollouts.pause("lmp-42", by="anna", reason="lunch")
    assert looks()


def test_the_same_words_about_the_same_action_are_a_start_again_when_it_is_offered_again(ddi: DdiWorld) -> None:
    """Zephyr's client says no time."""
    (device,) = ddi.fleet(1, policy=CANCEL)
    action = ddi.action(device)
    ddi.say(device, action, "proceeding")
    halt(ddi)
    ddi.post(device, f"cancelAction/{action}/feedback", body_of("closed", "success"))
    ddi.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    ddi.later(timedelta(minutes=1))
    assert ddi.action(device) == action
    ddi.say(device, action, "proceeding")
    assert ddi.world.status(device) is UpdateStatus.DOWNLOADING


def test_fetching_the_file_is_a_start(ddi: DdiWorld) -> None:
    """The RAUC updater says nothing before it has it all."""
    (device,) = ddi.fleet(1)
    href = f"softwaremodules/{ddi.action(device)}/artifacts/image.swu"
    assert ddi.ask("HEAD", f"{BASE}/{device}/{href}", device).status_code == 200
    assert ddi.world.status(device) is UpdateStatus.OFFERED
    part = ddi.get(device, href, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content_of(42)[10:20])
    assert ddi.world.status(device) is UpdateStatus.DOWNLOADING
    sums = ddi.get(device, f"{href}.MD5SUM")
    assert sums.text == f"{artifact_of(42).digests.md5}  image.swu\n"
    assert [each["filename"] for each in ddi.get(device, href.rpartition("/")[0]).json()] == ["image.swu"]
