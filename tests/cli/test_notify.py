"""``wave notify …``: from the halt to the message, on the real installation and a real receiver."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from tests.adapters.notify.receiver import Receiver, receiving
from tests.cli.house import House

POLICY = """
policy: told
tolerate: {failed: 2%, rolled_back: 1%}
deltas: {cover: 95%, within: 2h, otherwise: full}
bake: {at_least: 2h, reports: 90%, at_most: 12h, early: confident}
on_halt: [withdraw, notify]
notify:
  - {to: tickets, on: [paused]}
"""
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD7w8Wu0JuYkY="


def told(house: House, receiver: Receiver) -> Path:
    """An installation that knows the receiver; its rollout file."""
    policy = house.root / "told.yaml"
    policy.write_text(POLICY)
    file = house.root / "destinations.yaml"
    file.write_text(f"tickets:\n  webhook: {receiver.url}/hook\n  secret: {SECRET}\n")
    file.chmod(0o600)
    return house.rollout(policy="./told.yaml")


def test_a_halt_reaches_the_receiver_once_with_what_to_type(fleet: House) -> None:
    with receiving() as receiver:
        fleet.ok("apply", str(told(fleet, receiver)), "--start")
        fleet.tick()
        fleet.build()
        fleet.tick()
        assert fleet.devices_do("confirmed") == 4
        fleet.tick(timedelta(minutes=5))
        fleet.tick(timedelta(hours=3))
        fleet.devices_do("failed", most=6)
        fleet.tick()
        assert fleet.json("status", "lmp-42")["status"] == "halted"
        assert fleet.json("notify", "send")["sent"] == 1
        assert fleet.ok("notify", "send") == "0 messages sent, 0 failed.\n"
    ((headers, body),) = receiver.came
    message = json.loads(body)
    (entry,) = [each for each in fleet.json("journal", "lmp-42") if each["event"] == "halted"]
    assert (message["event"], message["by"], message["seq"]) == ("halted", "policy", entry["seq"])
    assert message["sentence"] == entry["sentence"]
    assert message["link"] == "http://127.0.0.1:8701/rollouts/lmp-42"
    assert headers["webhook-id"] == message["id"] and entry["hash"].startswith(message["id"])
    # What it says to type is what goes on.
    assert message["commands"][1].startswith("wave resume lmp-42 --accept ")
    fleet.ok(*message["commands"][1].split()[1:])
    (listed,) = fleet.json("notify", "list")["list"]
    assert listed["status"] == "sent" and listed["to"] == "tickets" and listed["tries"] == 1
    assert SECRET not in fleet.ok("journal", "lmp-42", "--json") + fleet.ok("notify", "list")


def test_what_is_not_taken_is_seen_and_can_be_tried_again(fleet: House) -> None:
    with receiving() as receiver:
        fleet.ok("apply", str(told(fleet, receiver)))
        fleet.ok("start", "lmp-42")
        fleet.ok("pause", "lmp-42")
        receiver.status = 503
        ended = fleet.run("notify", "send")
        assert ended.exit_code == 1 and "0 messages sent, 1 failed." in ended.output
        page = fleet.ok("notify", "list", "--waiting")
        assert "waiting" in page and "The receiver answered 503. Next try 09:00:" in page
        assert max(map(len, page.splitlines())) <= 80
        receiver.status = 200
        assert fleet.ok("notify", "retry") == "1 message will be tried again.\n"
        assert fleet.json("notify", "send")["sent"] == 1
    assert fleet.ok("notify", "list", "--dead") == "No messages.\n"


def test_a_test_says_at_once_whether_it_was_taken(house: House) -> None:
    with receiving() as receiver:
        told(house, receiver)
        assert house.ok("notify", "destinations") == "tickets\n"
        assert house.ok("notify", "test", "tickets") == "tickets took it.\n"
        receiver.status = 500
        refused = house.run("notify", "test", "tickets")
        assert refused.exit_code == 6 and "The receiver answered 500." in refused.output
    missing = house.run("notify", "test", "nobody")
    assert missing.exit_code == 3 and "There is no destination nobody." in missing.output


def test_a_policy_that_tells_somebody_unknown_is_refused_with_those_there_are(fleet: House) -> None:
    with receiving() as receiver:
        file = told(fleet, receiver)
    (fleet.root / "destinations.yaml").write_text("audit: json://localhost\n")
    refused = fleet.run("apply", str(file))
    assert refused.exit_code == 3
    assert "notifies tickets, and no destination is called so. The installation's are audit." in refused.output
