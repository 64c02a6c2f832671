"""A second person's word: who gives it, who cannot, what waits for it, and what nobody can do without it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.errors import Conflict, Refused, WaveError
from tests.cli.house import House

ASKS = "{start: 1, open: 0, resume: 1}"


def policy(fleet: House, approve: str, more: str = "") -> Path:
    file = fleet.root / "mine.yaml"
    file.write_text(f"policy: mine\napprove: {approve}\ndeltas: {{otherwise: full, within: 1m}}\n{more}")
    return fleet.rollout(policy="./mine.yaml")


def begin(fleet: House, approve: str = ASKS) -> House:
    """mika applies, ben starts; every delta is there."""
    fleet.ok("apply", str(policy(fleet, approve)))
    fleet.ok("start", "lmp-42", "--by", "ben")
    fleet.tick()
    fleet.tick(timedelta(minutes=5))
    return fleet


def status(fleet: House, wave: str) -> str:
    (found,) = [each for each in fleet.json("status", "lmp-42")["waves"] if each["wave"] == wave]
    return str(found["status"])


def refused(fleet: House, *words: str) -> str:
    ended = fleet.run(*words)
    assert ended.exit_code == 4, ended.output
    return " ".join(ended.stderr.split())


def test_nothing_opens_before_somebody_else_has_approved_it(fleet: House) -> None:
    begin(fleet)
    assert status(fleet, "lab") == "preparing"
    assert "It waits for approval by another person" in " ".join(fleet.ok("status", "lmp-42").split())
    for by in ("mika", "MIKA", "ben"):
        assert "wrote or started lmp-42: somebody else approves it." in refused(fleet, "approve", "lmp-42", "--by", by)
    said = fleet.ok("approve", "lmp-42", "--by", "cem", "--reason", "read it")
    assert " ".join(said.split()) == "The rollout is approved by cem. Nothing more is asked for."
    assert "everybody counts once" in refused(fleet, "approve", "lmp-42", "--by", "Cem")
    fleet.tick()
    assert status(fleet, "lab") == "open"
    journal = " ".join(fleet.ok("journal", "lmp-42").split())
    assert "The rollout approved by cem: read it" in journal
    assert "nothing differs" in " ".join(fleet.ok("replay", "lmp-42").split())
    assert fleet.ok("journal", "verify").startswith("+ lmp-42")


def test_who_starts_what_they_approved_as_a_draft_approved_nothing(fleet: House) -> None:
    fleet.ok("apply", str(policy(fleet, ASKS)))
    fleet.ok("approve", "lmp-42", "--by", "ben")
    fleet.ok("start", "lmp-42", "--by", "ben")
    fleet.tick()
    fleet.tick(timedelta(minutes=5))
    assert status(fleet, "lab") == "preparing"
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.tick()
    assert status(fleet, "lab") == "open"


def test_an_edit_voids_what_was_approved_and_makes_its_writer_an_author(fleet: House) -> None:
    begin(fleet)
    fleet.ok("approve", "lmp-42", "--by", "cem")
    policy(fleet, ASKS, "bake: {at_least: 13h}\n")
    fleet.ok("apply", str(fleet.root / "rollout.yaml"), "--yes", "--by", "dai")
    fleet.tick()
    assert status(fleet, "lab") == "preparing"
    assert "wrote or started" in refused(fleet, "approve", "lmp-42", "--by", "dai")
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.tick()
    assert status(fleet, "lab") == "open"
    assert "nothing differs" in " ".join(fleet.ok("replay", "lmp-42").split())


def test_an_edit_cannot_ask_for_less(fleet: House) -> None:
    begin(fleet, "{start: 1, open: 1, resume: 1}")
    for less in ("{start: 0, open: 1, resume: 1}", "{start: 1, open: 0, resume: 1}", "{start: 1, open: 1}"):
        policy(fleet, less)
        said = refused(fleet, "apply", str(fleet.root / "rollout.yaml"), "--yes", "--by", "dai")
        assert "`approve." in said and "is 1 and would be 0" in said


def test_a_wave_that_nobody_approved_is_not_opened_by_another_word_either(fleet: House) -> None:
    begin(fleet, "{open: 1}")
    for words in (("complete", "lmp-42", "--yes"), ("complete", "lmp-42", "rest", "--yes"), ("skip", "lmp-42", "rest")):
        assert "waits for approval of this wave" in refused(fleet, *words)
    fleet.ok("promote", "lmp-42", "rest")
    assert "asks nobody to approve rollout lmp-42 as a whole" in refused(fleet, "approve", "lmp-42", "--by", "cem")
    fleet.ok("approve", "lmp-42", "--wave", "lab", "--by", "cem")
    fleet.tick()
    assert (status(fleet, "lab"), status(fleet, "canary")) == ("open", "preparing")
    assert "is open: only one that has not opened" in refused(
        fleet, "approve", "lmp-42", "--wave", "lab", "--by", "dai"
    )
    fleet.ok("cancel", "lmp-42", "rest", "--yes")
    fleet.ok("approve", "lmp-42", "--wave", "canary", "--by", "cem")
    fleet.ok("complete", "lmp-42", "--yes")


def test_going_on_after_a_halt_takes_two(fleet: House) -> None:
    begin(fleet)
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.tick()
    fleet.ok("halt", "lmp-42", "--yes")
    for words in (("resume", "lmp-42"), ("complete", "lmp-42", "--yes")):
        assert "waits for approval of going on" in refused(fleet, *words, "--by", "dai")
    fleet.ok("approve", "lmp-42", "--by", "cem")
    assert "waits for approval of going on" in refused(fleet, "resume", "lmp-42", "--by", "cem")
    fleet.ok("resume", "lmp-42", "--by", "dai")
    fleet.ok("halt", "lmp-42", "--yes")
    assert "waits for approval of going on" in refused(fleet, "resume", "lmp-42", "--by", "dai")
    assert "nothing differs" in " ".join(fleet.ok("replay", "lmp-42").split())


def test_of_approvers_who_race_each_counts_once(fleet: House) -> None:
    begin(fleet, "{start: 3}")

    def approve(by: str) -> str:
        with fleet.application() as app:
            try:
                return app.rollouts.approve("lmp-42", by=by).sentence
            except WaveError as error:
                return error.message

    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(approve, ["cem", "dai", "CEM", "cem", "Dai", "mika"]))
    assert sum("is approved by" in each for each in said) == 2
    assert sum("everybody counts once" in each for each in said) == 3
    with fleet.application() as app, app.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None
        assert sorted(each.by.casefold() for each in row.state.approvals) == ["cem", "dai"]
    assert "1 more must approve" in " ".join(said) or "It waits" in fleet.ok("status", "lmp-42")


def test_who_looked_at_other_files_approves_nothing(fleet: House) -> None:
    from orchestrator.core.approving import files_of

    begin(fleet)
    with fleet.application() as app:
        with app.store.reading() as r:
            row = r.rollout("lmp-42")
            assert row is not None
        seen = files_of(row.spec_digest, row.policy_digest)
        policy(fleet, ASKS, "bake: {at_least: 13h}\n")
        fleet.ok("apply", str(fleet.root / "rollout.yaml"), "--yes", "--by", "dai")
        with pytest.raises(Conflict, match="look at it again"):
            app.rollouts.approve("lmp-42", by="cem", files=seen)


def test_a_dry_run_approves_nothing_and_what_has_ended_is_not_approved(fleet: House) -> None:
    begin(fleet)
    assert "Dry run" in fleet.ok("approve", "lmp-42", "--by", "cem", "--dry-run")
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.ok("cancel", "lmp-42", "--yes")
    assert "there is nothing to approve" in refused(fleet, "approve", "lmp-42", "--by", "dai")
    with fleet.application() as app, pytest.raises(Refused):
        app.rollouts.approve("lmp-42", by="dai")


def test_the_plan_says_that_somebody_else_must_approve(fleet: House) -> None:
    assert "Another person than who wrote or starts it must approve it" in " ".join(
        fleet.ok("plan", str(policy(fleet, ASKS))).split()
    )


def test_a_simulation_needs_nobody(fleet: House) -> None:
    assert fleet.ok("simulate", str(policy(fleet, "{start: 2, open: 2}").with_name("mine.yaml")), "--fleet", "200")


def people(fleet: House, *names: str) -> None:
    for name in names:
        fleet.ok("user", "add", name, "--role", "approver", "--no-password")


@pytest.mark.parametrize(
    ("loses", "why"),
    [
        (("user", "disable", "cem", "--yes"), "ann disabled cem"),
        (("user", "roles", "cem", "--role", "viewer"), "ann took the role from cem"),
    ],
)
def test_who_may_approve_no_more_has_approved_nothing_that_is_still_to_come(
    fleet: House, loses: tuple[str, ...], why: str
) -> None:
    begin(fleet, "{start: 2, open: 1}")
    people(fleet, "cem", "dai")
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.ok("approve", "lmp-42", "--wave", "lab", "--by", "Cem")
    fleet.ok(*loses, "--by", "ann")
    fleet.ok("approve", "lmp-42", "--by", "dai")
    fleet.ok("approve", "lmp-42", "--wave", "lab", "--by", "dai")
    fleet.tick()
    assert status(fleet, "lab") == "preparing", "one of two is not enough"
    entry = next(each for each in fleet.json("journal", "lmp-42") if each["event"] == "approval_withdrawn")
    assert entry["by"] == "ann"
    assert entry["sentence"] == (f"The word of cem counts no more, as {why}: the rollout, the opening of wave lab.")
    assert "cem may approve nothing" in refused(fleet, "approve", "lmp-42", "--by", "cem")
    fleet.ok("user", "enable", "cem")
    fleet.ok("user", "roles", "cem", "--role", "approver")
    fleet.tick()
    assert status(fleet, "lab") == "preparing", "it does not come back by itself"
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.tick()
    assert status(fleet, "lab") == "open"
    assert "nothing differs" in " ".join(fleet.ok("replay", "lmp-42").split())
    assert fleet.ok("journal", "verify").startswith("+ lmp-42")


def test_what_their_word_has_opened_stays_open_and_what_it_has_not_waits(fleet: House) -> None:
    begin(fleet, "{start: 1, open: 1}")
    people(fleet, "cem")
    for more in ((), ("--wave", "lab"), ("--wave", "canary")):
        fleet.ok("approve", "lmp-42", *more, "--by", "cem")
    fleet.tick()
    assert status(fleet, "lab") == "open"
    fleet.ok("user", "disable", "cem", "--yes", "--by", "ann")
    told = [each["sentence"] for each in fleet.json("journal", "lmp-42") if each["event"] == "approval_withdrawn"]
    assert told == ["The word of cem counts no more, as ann disabled cem: the opening of wave canary."]
    fleet.tick()
    assert status(fleet, "lab") == "open"


def test_who_keeps_the_role_or_never_had_it_takes_nothing_back(fleet: House) -> None:
    begin(fleet, "{start: 2}")
    people(fleet, "cem")
    fleet.ok("user", "add", "eve", "--role", "viewer", "--no-password")
    fleet.ok("approve", "lmp-42", "--by", "cem")
    fleet.ok("user", "roles", "cem", "--role", "admin")
    fleet.ok("user", "disable", "eve", "--yes")
    assert "approval_withdrawn" not in [each["event"] for each in fleet.json("journal", "lmp-42")]
