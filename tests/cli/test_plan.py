"""``wave plan`` of what is not as it should be: what is refused, and what is warned of without contradiction."""

from __future__ import annotations

import pytest

from orchestrator.services.messages import CheckIn
from tests.cli.house import House
from tests.services.fake_provider import commit


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("group: lab", "group: labb", "Wave lab names the device group labb, which does not exist. Groups: lab."),
        ("tag: promoted", "tag: promotd", "No device follows the tag promotd. Tags that devices follow: promoted."),
        ("target: 42", "target: 44", "There is no Target of version 44. `wave target list` shows those there are."),
    ],
)
def test_an_unknown_name_is_refused(fleet: House, command: str, old: str, new: str, said: str) -> None:
    """As ``apply`` would: a plan of it would say that nobody is in it, and not why."""
    file = fleet.rollout()
    file.write_text(file.read_text().replace(old, new))
    ended = fleet.run(command, str(file))
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, "", f"wave: {said}\n")


def test_a_group_without_devices_is_no_error(fleet: House) -> None:
    fleet.ok("device", "group", "spare")
    file = fleet.rollout()
    file.write_text(file.read_text().replace("group: lab", "group: spare"))
    assert "Wave lab has no eligible device now: it would wait as empty." in flat(fleet.ok("plan", str(file)))


def test_without_the_targets_commit_nobody_is_said_to_be_served(fleet: House) -> None:
    fleet.provider.known.remove(commit(42))
    shown = flat(fleet.ok("plan", str(fleet.rollout())))
    assert "is not in the repository: no wave can open." in shown
    assert "served whole" not in shown and "0.00 MB" not in shown
    assert "41 -> 42 rpi4 43 - - - no target lab" in shown


@pytest.mark.parametrize(("policy", "fate"), [("full", "it is served whole"), ("skip", "it is not offered it")])
def test_a_commit_that_nobody_knows_is_counted_apart(fleet: House, policy: str, fate: str) -> None:
    fleet.check_in("gw-0000", CheckIn(commit=commit(7), version=None))
    (fleet.root / "own.yaml").write_text(f"policy: own\ndeltas: {{from_unknown: {policy}}}\n")
    shown = flat(fleet.ok("plan", str(fleet.rollout("./own.yaml"))))
    assert f"1 device runs a commit that the repository does not have: {fate}." in shown


def test_who_has_it_or_something_newer_is_left_alone(fleet: House) -> None:
    fleet.provider.known.add(commit(43))
    fleet.ok("target", "add", "43", commit(43), "--hardware-id", "rpi4", "--tag", "main")
    for device, version in (("lab-00", 42), ("lab-01", 43)):
        fleet.check_in(device, CheckIn(commit=commit(version), version=version))
    shown = flat(fleet.ok("plan", str(fleet.rollout())))
    assert "2 devices of it run it, or a newer version, already." in shown
    assert "1 device of the tag runs a newer version than 42: it is left alone." in shown


def test_a_wave_too_small_to_halt_is_not_said_to_halt(house: House) -> None:
    """One device that nobody has seen, in a lab of its own."""
    house.content()
    house.ok("device", "enroll", "a", "--hardware-id", "rpi4", "--tag", "promoted", "--group", "lab")
    shown = flat(house.ok("plan", str(house.rollout())))
    assert "lab: one device cannot halt by evidence" in shown
    assert "lab 1-1 none" in shown, "nothing halts in it"
    assert "Deltas None: no device that has been seen lately needs one." in shown


def test_a_cancelled_rollout_looks_for_nothing(fleet: House) -> None:
    """Silence of those under way is still counted; it decides nothing."""
    fleet.build()
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    assert fleet.devices_do("downloading") == 4
    assert "Looks again" in fleet.ok("explain", "lmp-42")
    fleet.ok("cancel", "lmp-42", "--yes")
    shown = fleet.ok("explain", "lmp-42")
    assert "It has ended." in shown and "Looks again" not in shown
    assert "  canary: was preparing when the rollout was cancelled.\n" in shown


def test_each_waves_gates_are_listed_with_their_source_and_what_happens_without_a_yes(fleet: House) -> None:
    sources = fleet.root / "gates.yaml"
    sources.write_text(
        "prometheus: {promql: 'http://127.0.0.1:9'}\ndesk: {webhook: 'http://127.0.0.1:9', token: SECRET}\n"
    )
    sources.chmod(0o600)
    gates = "[{gate: errors, asks: prometheus, query: up, above: 0.5, otherwise: open}, {gate: desk, asks: desk}]"
    (fleet.root / "own.yaml").write_text(f"policy: own\ngates: {gates}\n")
    file = fleet.rollout("./own.yaml")
    file.write_text(file.read_text().replace("group: lab}", "group: lab}\n    policy: {gates: []}"))
    shown = flat(fleet.ok("plan", str(file)))
    asks = (
        "Gate errors asks prometheus (promql) for values above 0.5, 10s for an answer; after 2h without a yes the wave "
        "opens without it."
    )
    assert shown.count(asks) == 2, "of the two waves that have it"
    assert shown.count("Gate desk asks desk (webhook), 10s for an answer; after 2h without a yes the wave holds.") == 2
    assert "127.0.0.1" not in shown and "SECRET" not in shown
    waves = fleet.json("plan", str(file))["waves"]
    assert [len(wave["gates"]) for wave in waves] == [0, 2, 2]
    assert waves[1]["gates"][0] == {
        "gate": "errors",
        "asks": "prometheus",
        "kind": "promql",
        "query": "up",
        "bounds": "above 0.5",
        "timeout": "10s",
        "at_most": "2h",
        "otherwise": "open",
    }
    sources.unlink()
    ended = fleet.run("plan", str(file))
    assert ended.exit_code == 3 and "Gate errors asks prometheus, and no source is called so." in ended.stderr
