"""``wave journal`` and ``wave replay``: what was written, whether it still is, and whether it is decided so again."""

from __future__ import annotations

from datetime import timedelta

from tests.cli.house import House


def _begun(fleet: House) -> House:
    """A rollout whose first wave is open, with a few outcomes."""
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    fleet.build()
    fleet.tick(timedelta(minutes=1))
    fleet.devices_do("confirmed", most=3)
    fleet.tick(timedelta(hours=1))
    return fleet


def _tamper(fleet: House, *statements: str) -> None:
    with fleet.application() as app, app.store.writing() as w:
        link = getattr(w, "link")  # noqa: B009 - past the port, as one who has the file
        for trigger in ("journal_keeps", "journal_stays"):
            link.script(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            link.script(statement)


def test_the_journal_is_shown_with_and_without_the_word(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()))
    shown = fleet.ok("journal", "lmp-42")
    assert shown == fleet.ok("journal", "show", "lmp-42")
    assert fleet.ok("journal", "--json", "lmp-42") == fleet.ok("journal", "show", "lmp-42", "--json")
    assert "verify" in fleet.ok("journal", "--help")


def test_a_rollout_that_is_called_like_a_command_has_its_journal_too(fleet: House) -> None:
    text = fleet.rollout().read_text().replace("rollout: lmp-42", "rollout: verify")
    file = fleet.root / "verify.yaml"
    file.write_text(text)
    fleet.ok("apply", str(file))
    assert "Applied by mika" in fleet.ok("journal", "show", "verify")
    assert "verify: 1 entry" in fleet.ok("journal", "verify", "verify")


def test_what_nobody_touched_is_said_to_hold(fleet: House) -> None:
    assert fleet.ok("journal", "verify") == "There is no rollout yet.\n"
    _begun(fleet)
    assert fleet.ok("journal", "verify").startswith("+ lmp-42: ")
    found = fleet.json("journal", "verify", "lmp-42")
    assert found["holds"] is True
    assert found["rollouts"][0].keys() == {"rollout", "entries", "evidence", "findings"}


def test_each_finding_is_a_line_and_an_exit_code(fleet: House) -> None:
    _begun(fleet)
    _tamper(fleet, "UPDATE journal SET by = 'mallory' WHERE seq = 2", "DELETE FROM journal WHERE seq = 3")
    ended = fleet.run("journal", "verify")
    assert ended.exit_code == 1
    assert "x lmp-42: Entry 2 was changed after it was written." in ended.stdout.splitlines()
    assert any(line.startswith("x lmp-42: Entry 3 is missing") for line in ended.stdout.splitlines())
    ended = fleet.run("journal", "verify", "--json")
    assert ended.exit_code == 1 and '"fault": "missing"' in ended.stdout
    assert fleet.run("journal", "verify", "gone").exit_code == 3


def test_a_replay_says_that_nothing_differs(fleet: House) -> None:
    _begun(fleet)
    shown = " ".join(fleet.ok("replay", "lmp-42").split())
    assert "and 3 outcomes, looked at again: nothing differs." in shown
    found = fleet.json("replay", "lmp-42")
    assert (found["differs"], found["policy"], found["outcomes"]) == (0, None, 3)
    assert fleet.run("replay", "gone").exit_code == 3


def test_a_replay_that_differs_ends_with_one(fleet: House) -> None:
    _begun(fleet)
    _tamper(fleet, "UPDATE evidence SET outcome = 'failed'")
    ended = fleet.run("replay", "lmp-42")
    assert ended.exit_code == 1 and "differs." not in ended.stdout
    assert "replayed:" in ended.stdout


def test_another_policy_is_laid_beside_the_record(fleet: House) -> None:
    """A wave that took an hour to pass would have waited under a policy that bakes for twelve."""
    _begun(fleet)
    fleet.devices_do("confirmed")
    fleet.tick(timedelta(hours=6))
    assert "passed lab" in fleet.ok("journal", "lmp-42")
    shown = " ".join(fleet.ok("replay", "lmp-42", "--policy", "standard").split())
    assert "under policy standard:" in shown and "From here on the fleet would have gone another way" in shown
    assert shown.count("From here on") == 1
    assert "Recorded: not stopped." in shown
    found = fleet.json("replay", "lmp-42", "--policy", "standard", "--limit", "1")
    assert found["policy"] == "standard" and len(found["divergences"]) == 1 and found["differs"] >= 1
    assert found["divergences"][0].keys() == {"what", "at", "entry", "evidence", "recorded", "replayed", "why"}
    ended = fleet.run("replay", "lmp-42", "--policy", "nosuch")
    assert ended.exit_code == 3 and "There is no policy" in ended.stderr
