"""``wave user`` and ``wave token``: people are let in and shut out, passwords are read and never shown."""

from __future__ import annotations

import pytest

from orchestrator.errors import Unauthorized
from tests.cli.house import House

WORDS = "correct horse battery"


def let_in(house: House, name: str, *words: str) -> None:
    ended = house.run("user", "add", name, *words, input=f"{WORDS}\n")
    assert ended.exit_code == 0, ended.output


def test_the_first_admin_is_made_on_the_host_and_signs_in(house: House) -> None:
    let_in(house, "ann", "--role", "admin")
    with house.application() as app:
        session = app.door.sign_in("ann", WORDS, address="")
        assert app.door.by_session(session, address="").name == "ann"
    (found,) = house.json("user", "list")
    assert (found["name"], found["roles"], found["created_by"], found["password"]) == ("ann", ["admin"], "mika", True)
    assert "argon2" not in house.ok("user", "list", "--json")


def test_a_password_is_read_as_one_line_and_must_be_one(house: House) -> None:
    for typed in ("", "\n", "short\n"):
        ended = house.run("user", "add", "ann", "--role", "admin", input=typed)
        assert ended.exit_code == 2, ended.output
    assert house.json("user", "list") == []
    let_in(house, "ann", "--role", "admin")
    ended = house.run("user", "password", "ann", input="another long password")
    assert ended.exit_code == 0, ended.output
    with house.application() as app:
        with pytest.raises(Unauthorized):
            app.door.sign_in("ann", WORDS, address="")
        app.door.sign_in("ann", "another long password", address="")


def test_roles_and_names_are_looked_at_first(house: House) -> None:
    for words, said in (
        (("ann",), "Without a role"),
        (("ann", "--role", "boss"), "no role"),
        (("a\tb", "--role", "admin"), "printable"),
    ):
        ended = house.run("user", "add", *words, input=f"{WORDS}\n")
        assert ended.exit_code == 2
        assert said in ended.output
    let_in(house, "ann", "--role", "releaser,approver")
    assert house.run("user", "add", "ANN", "--role", "viewer", input=f"{WORDS}\n").exit_code == 5
    assert house.ok("user", "roles", "ann", "--role", "viewer") == "ann is viewer.\n"
    assert house.json("user", "show", "ann")["roles"] == ["viewer"]


def test_a_person_is_disabled_and_enabled_and_all_of_it_is_told(house: House) -> None:
    let_in(house, "ben", "--role", "viewer", "--no-password")
    assert house.ok("user", "disable", "ben", "--yes") == "ben is disabled.\n"
    assert "disabled" in house.ok("user", "list")
    assert house.ok("user", "enable", "ben") == "ben is enabled.\n"
    assert [each["event"] for each in house.json("user", "log")] == ["enabled", "disabled", "added"]
    assert "mika added ben as viewer." in house.ok("user", "log")
    assert house.run("user", "show", "cem").exit_code == 3


def test_a_token_is_shown_once_and_ends(house: House) -> None:
    let_in(house, "ci", "--role", "releaser", "--no-password")
    ended = house.run("token", "add", "ci", "--role", "releaser", "--until", "30d")
    assert ended.exit_code == 0, ended.output
    name, token = ended.stdout.split()
    assert "A token of ci as releaser, good until 2026-06-03 09:00 UTC." in ended.stderr
    with house.application() as app:
        assert app.door.by_token(token, address="").name == "ci"
    listed = house.ok("token", "list")
    assert name in listed and token not in listed and "2026-05-04 09:00" in listed
    assert house.json("user", "show", "ci")["tokens"][0]["name"] == name
    assert house.ok("token", "revoke", name, "--yes") == f"{name} is revoked.\n"
    assert house.json("token", "revoke", name) == {"name": name, "changed": False}
    assert house.ok("token", "list") == "No token.\n"
    assert "revoked" in house.ok("token", "list", "--all")


def test_a_token_that_cannot_be_is_refused(house: House) -> None:
    let_in(house, "ci", "--role", "viewer", "--no-password")
    for words, code in (
        (("ci", "--until", "never"), 2),
        (("ci", "--until", "900d"), 2),
        (("ci", "--role", "admin"), 4),
        (("nobody",), 3),
    ):
        assert house.run("token", "add", *words).exit_code == code
    assert house.json("token", "add", "ci")["roles"] == ["viewer"]


def test_a_token_for_a_tag_says_so(house: House) -> None:
    house.ok("user", "add", "ann", "--role", "releaser", "--no-password")
    made = house.json("token", "add", "ann", "--role", "releaser", "--tag", "promoted,beta", "--until", "30d")
    assert made["tags"] == ["beta", "promoted"]
    assert "releaser for beta, promoted" in " ".join(house.ok("token", "list").split())
    assert "for rollouts of beta, promoted alone" in " ".join(house.ok("user", "log").split())
    assert house.run("token", "add", "ann", "--tag", "<b>").exit_code == 2
