"""What a halt tells devices that have started."""

from __future__ import annotations

import pytest

from orchestrator.core.course import Course, UpdateStatus
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import bind
from orchestrator.core.states import RolloutStatus
from orchestrator.core.stopping import told_to_stop


def told(rollout: RolloutStatus, update: UpdateStatus, *, cancels: bool = True) -> bool:
    return told_to_stop(rollout, Course(update, None), cancels=cancels)


@pytest.mark.parametrize("status", RolloutStatus)
def test_only_what_is_halted_or_cancelled_stops_devices(status: RolloutStatus) -> None:
    stopped = status in (RolloutStatus.HALTED, RolloutStatus.CANCELLED)
    assert told(status, UpdateStatus.INSTALLING) is stopped
    assert not told(status, UpdateStatus.INSTALLING, cancels=False), "not without the policy's word"


@pytest.mark.parametrize("status", UpdateStatus)
def test_only_who_has_started_and_not_written_it_is_told(status: UpdateStatus) -> None:
    assert told(RolloutStatus.HALTED, status) is (status in (UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING))


@pytest.mark.parametrize(("answers", "cancels"), [(["withdraw"], False), (["withdraw", "cancel"], True), (None, False)])
def test_the_policy_says_it(answers: list[str] | None, cancels: bool) -> None:
    file = RolloutFile.parse(
        {"rollout": "r", "target": 2, "tag": "t", "policy": "x", "waves": [{"wave": "all", "devices": "all"}]}
    )
    policy = Policy.parse({"policy": "x", **({} if answers is None else {"on_halt": answers})})
    assert bind(file, policy).cancels is cancels
