"""A release manager's day at the keyboard: what each command says, at 80 columns, on the real application."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.house import House

HOUR = timedelta(hours=1)


def until_lab_baked(house: House) -> None:
    """day 0, 9:00: applied and started; the lab takes the offer and bakes; 12:05: the canary is open."""
    house.ok("apply", str(house.rollout()), "--start")
    house.tick()
    house.build()
    house.tick()
    assert house.devices_do("confirmed") == 4
    house.tick(timedelta(minutes=5))
    house.tick(3 * HOUR)


def halted(house: House) -> None:
    """… and six of the canary fail."""
    until_lab_baked(house)
    house.devices_do("failed", most=6)
    house.tick()


def narrow(text: str) -> None:
    wide = [line for line in text.splitlines() if len(line) > 80]
    assert not wide
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_plan_shows_waves_deltas_evidence_budgets_and_calendar(fleet: House) -> None:
    shown = fleet.ok("plan", str(fleet.rollout()))
    narrow(shown)
    assert shown.splitlines()[0] == "Plan of lmp-42: version 42 to 64 devices of tag promoted"
    rows = [line.split() for line in shown.splitlines()]
    assert ["lab", "4", "6.2%", "6.2%", "4", "4", "the", "start"] in rows
    assert ["rest", "40", "62%", "100%", "40", "20,", "20", "canary"] in rows
    assert "    A person lets it open: `wave promote`." in shown
    assert ["41", "->", "42", "rpi4", "43", "<0.01", "<0.01", "<1", "missing", "lab"] in rows
    for part in ("less than a minute of building", "What each wave can tell", "Budgets", "Calendar (UTC)"):
        assert part in shown
    assert "advancing rests on you" in " ".join(shown.split())
    assert ["WAVE", "PLACES", "FAILED", "OR", "ROLLED", "BACK"] in rows and ["canary", "5-24", "5"] in rows
    assert ["lab", "4", "84%", "84%"] in rows, "what four devices find nine times in ten"
    assert any(line.strip().startswith("2 in 2, 3 in 8, 4 in 18, 5 in 29") for line in shown.splitlines())
    assert ["WAVE", "OPENS", "ENDS", "AT", "ONCE", "LIKELY", "AT", "THE", "LATEST"] in rows
    assert ["lab", "05-04", "09:00", "05-04", "11:00", "05-04", "11:54", "05-05", "23:00"] in rows
    said = " ".join(shown.split())
    assert "75 % of the devices come within 45 min (assumed: how often they come is not known)" in said
    assert "At the latest a wave has passed, or it holds for a person." in said


def test_plan_as_json_has_halts_limits_and_three_times(fleet: House) -> None:
    plan = fleet.json("plan", str(fleet.rollout()))
    lab, canary, rest = plan["waves"]
    assert lab["ends"] == {
        "earliest": "2026-05-04T11:00:00Z",
        "likely": "2026-05-04T11:54:10Z",  # ten seconds for the deltas
        "latest": "2026-05-05T23:00:00Z",
    }
    assert plan["earliest_end"] == rest["ends"]["earliest"] and plan["likely_end"] == rest["ends"]["likely"]
    assert canary["halts"] == [{"outcomes": ["failed", "rolled_back"], "own": False, "first": 5, "last": 5}]
    pooled = next(each for each in plan["monitors"] if each["monitor"] == "rollout/bad")
    assert pooled["scope"] == "rollout" and pooled["limits"][:2] == [[2, 2], [3, 8]]


def test_plan_changes_nothing(fleet: House) -> None:
    fleet.ok("plan", str(fleet.rollout()))
    assert fleet.json("list") == []
    assert fleet.json("delta", "list") == []


def test_apply_says_what_is_new_changed_or_the_same(fleet: House) -> None:
    file = str(fleet.rollout())
    assert fleet.ok("apply", file, "--dry-run") == "Dry run: rollout lmp-42 is new.\n"
    assert fleet.json("list") == []
    assert fleet.ok("apply", file) == "Rollout lmp-42 is new. `wave start lmp-42` starts it.\n"
    assert "is as it was applied before" in fleet.ok("apply", file)
    changed = fleet.ok("apply", str(fleet.rollout("standard")), "--dry-run")
    assert "Dry run: rollout lmp-42 has changed." in changed
    assert any(line.strip().startswith("+") and "standard" in line for line in changed.splitlines())
    fleet.ok("start", "lmp-42")
    assert fleet.ok("apply", str(fleet.rollout())) == "Rollout lmp-42 is as it was applied before. It is running.\n"


def test_list_has_one_line_for_each(fleet: House) -> None:
    assert fleet.ok("list") == "No rollout yet. `wave apply FILE` makes one.\n"
    until_lab_baked(fleet)
    shown = fleet.ok("list").splitlines()
    assert shown[0].split() == "NAME VERSION TAG STATUS DEVICES CONFIRMED BAD SINCE".split()
    assert shown[1].split() == ["lmp-42", "42", "promoted", "running", "64", "4", "0", "3", "h", "5", "min"]
    assert fleet.ok("list", "--status", "halted,held").startswith("No rollout")


def test_status_of_a_running_rollout(fleet: House) -> None:
    until_lab_baked(fleet)
    shown = fleet.ok("status")
    narrow(shown)
    lines = shown.splitlines()
    assert lines[0] == "lmp-42  RUNNING  for 3 h 5 min, since 09:00:00 UTC, by mika"
    assert "  Target 42 to tag promoted under policy accelerated, 64 devices" in lines
    assert "+  lab     passed     ##########        4        4          4    0     2/2" in lines
    assert ">  canary  open       ..........       20        0          0    0     2/2" in lines
    assert "Looks again with the next report, or in" in lines[-1]


def test_status_of_a_halted_rollout_says_why_and_ends_with_11(fleet: House) -> None:
    halted(fleet)
    ended = fleet.run("status", "lmp-42", "--exit-code")
    assert ended.exit_code == 11
    narrow(ended.stdout)
    assert "HALTED" in ended.stdout.splitlines()[0]
    assert "bad" in ended.stdout and "failed" in ended.stdout
    assert "x  canary  failed" in ended.stdout


@pytest.mark.parametrize(
    ("order", "code"), [(["pause"], 13), (["halt"], 11), (["cancel"], 12), (["complete"], 0), ([], 0)]
)
def test_exit_codes_of_status(order: list[str], code: int, fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    for word in order:
        fleet.ok(word, "lmp-42")
    assert fleet.run("status", "lmp-42", "--exit-code").exit_code == code
    assert fleet.run("status", "lmp-42").exit_code == 0


def test_explain_says_what_would_move_it_either_way(fleet: House) -> None:
    until_lab_baked(fleet)
    shown = fleet.ok("explain", "lmp-42")
    narrow(shown)
    for head in ("Waves", "Evidence", "Advances when", "Halts when", "Holds when"):
        assert head in shown.splitlines()
    said = " ".join(shown.split())
    assert "A person says so: `wave halt lmp-42`." in said
    assert "within the first" in said and "Looks again with the next report" in said


def test_explain_of_a_halt_names_what_to_accept(fleet: House) -> None:
    halted(fleet)
    said = " ".join(fleet.ok("explain", "lmp-42").split())
    ended = fleet.run("resume", "lmp-42")
    assert ended.exit_code == 4 and "--reason TEXT" in ended.stderr
    words = said.split("`wave ")[1].split("`")[0].replace("TEXT", "known").split()
    assert words[0] == "resume"
    assert fleet.ok(*words) == "Rollout lmp-42 runs again.\n"
    assert fleet.json("status", "lmp-42")["attempt"] == 2


def test_explain_a_device(fleet: House) -> None:
    until_lab_baked(fleet)
    shown = fleet.ok("explain", "lab-00")
    narrow(shown)
    assert "Runs version 42" in shown and "confirmed" in shown
    assert "Wave lab: its offer said so, whatever has changed since." in shown
    waits = fleet.ok("explain", "gw-0001")
    narrow(waits)
    assert "Wave canary: a part of all; its position" in waits
    assert "Rollout lmp-42  running" in waits and "wave " in waits


def test_the_journal_says_who_and_why(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start", "--by", "ana")
    fleet.ok("pause", "lmp-42", "--reason", "lunch")
    shown = fleet.ok("journal", "lmp-42")
    narrow(shown)
    assert "applied  by ana" in shown and "paused  by mika" in shown and "Paused by mika: lunch" in shown
    entries = fleet.json("journal", "lmp-42")
    assert [each["event"] for each in entries] == ["applied", "started", "paused"]
    assert len(fleet.json("journal", "lmp-42", "--after", "2")) == 1
    assert '"spec_digest"' in fleet.ok("journal", "lmp-42", "--facts").replace("\n", "")


def test_a_dry_run_changes_nothing(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    for word in ("pause", "halt", "cancel", "complete"):
        assert fleet.ok(word, "lmp-42", "--dry-run").startswith(
            "Dry run, nothing was changed. It would say: Rollout lmp-42 is"
        )
        assert fleet.json("status", "lmp-42")["status"] == "running"


def test_waves_are_steered_by_name(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    assert fleet.ok("promote", "lmp-42", "rest") == "Wave rest opens when all else allows it.\n"
    assert fleet.ok("complete", "lmp-42", "lab") == "Wave lab of rollout lmp-42 is passed.\n"
    assert fleet.ok("skip", "lmp-42", "canary") == "Wave canary of rollout lmp-42 is skipped.\n"
    assert fleet.ok("cancel", "lmp-42", "rest", "--reason", "x") == "Wave rest of rollout lmp-42 is cancelled.\n"
    shown = fleet.ok("status")
    assert "-  rest    cancelled" in shown and "Wave rest cancelled by mika: x" in shown


def test_retry_counts_the_devices(fleet: House) -> None:
    halted(fleet)
    assert fleet.ok("retry", "lmp-42", "--dry-run").startswith("Dry run, nothing was changed. ")
    assert "devices of rollout lmp-42 may try again." in fleet.ok("retry", "lmp-42")


def test_a_freeze_is_seen_and_ended(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    assert "frozen by mika: fire" in fleet.ok("freeze", "--reason", "fire")
    assert "! All offers are frozen: fire (mika)" in fleet.ok("status")
    assert "fire" in fleet.ok("explain", "gw-0001")
    assert fleet.ok("unfreeze") == "Offers go on, by mika.\n"
    assert "frozen" not in fleet.ok("status")


def test_watch_in_a_pipe_is_a_line_per_change_and_ends_at_rest(fleet: House) -> None:
    until_lab_baked(fleet)
    threading.Timer(0.5, lambda: fleet.devices_do("failed", most=6)).start()
    ended = fleet.run("status", "lmp-42", "--watch", "--every", "0.1", "--exit-code")
    assert ended.exit_code == 11
    lines = ended.stdout.splitlines()
    assert "running offered=4 confirmed=4 bad=0 lab=passed canary=open" in lines[0]
    assert " halted " in lines[-1] and len(set(lines)) == len(lines)


def test_watch_ends_with_ctrl_c(fleet: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    fleet.ok("apply", str(fleet.rollout()))
    monkeypatch.setattr("orchestrator.cli.watch.time.sleep", interrupted)
    assert " draft " in fleet.ok("status", "--watch")


def test_asking_happens_in_a_terminal_only(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    assert fleet.run("halt", "lmp-42", input="n\n").exit_code == 0


def test_the_name_of_the_user(fleet: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAVE_USER")
    monkeypatch.setenv("LOGNAME", "kim")
    fleet.ok("apply", str(fleet.rollout()))
    assert fleet.json("journal", "lmp-42")[0]["by"] == "kim"


def test_policies_need_no_installation(house: House, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    shown = house.ok("policy", "list", "--root", nowhere)
    narrow(shown)
    assert "standard" in shown
    assert "tolerate:" in house.ok("policy", "show", "standard", "--root", nowhere)
    assert "is a policy: standard." in house.ok("policy", "check", "policies/standard.yaml", "--root", nowhere)
    assert '"$schema"' in house.ok("policy", "schema", "rollout", "--root", nowhere)
