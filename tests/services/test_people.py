"""The door for people: sessions, tokens, passwords and the throttle, and the orders about people."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.roles import Role, folded, shared
from orchestrator.errors import Conflict, InvalidInput, NotFound, Refused, TooMany, Unauthorized
from orchestrator.gateway.limits import site_of
from orchestrator.services.passwords import MOST, Passwords
from orchestrator.services.people_door import SEEN_EVERY, WRONG, Door
from orchestrator.services.people_orders import TOKEN_AT_MOST, People
from orchestrator.services.throttle import Homes, Throttle

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
WORDS = "correct horse battery"
HOUR = timedelta(hours=1)


class Counted(Passwords):
    """Counts what is hashed."""

    def __init__(self) -> None:
        super().__init__(CHEAP)
        self.asked: list[bool] = []

    def good(self, kept: str | None, password: str) -> bool:
        self.asked.append(kept is not None)
        return super().good(kept, password)


class World:
    """A store in memory, a clock that the test sets, one admin."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 4, 9, tzinfo=UTC)
        self.store: SqlStore = open_store("sqlite://")
        self.passwords = Counted()
        self.people = People(self.store, lambda: self.now, self.passwords)
        self.door = self.another_door()
        self.people.add("ann", [Role.ADMIN], by="root", password=WORDS)

    def another_door(self) -> Door:
        """As after a restart."""
        return Door(
            self.store,
            lambda: self.now,
            idle=12 * HOUR,
            at_most=48 * HOUR,
            passwords=self.passwords,
            spared=lambda address: address == "127.0.0.1",
            site=site_of,
        )

    def sign_in(self, name: str = "ann", password: str = WORDS, address: str = "192.0.2.1") -> str:
        return self.door.sign_in(name, password, address=address)

    def who(self, session: str) -> str:
        return self.door.by_session(session, address="192.0.2.1").name


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.store.close()


def test_a_session_names_its_person_until_sign_out_and_over_a_restart(world: World) -> None:
    session = world.sign_in("ANN ")
    assert world.who(session) == "ann"
    world.door = world.another_door()
    assert world.who(session) == "ann"
    assert world.door.sign_out(session)
    assert not world.door.sign_out(session)
    with pytest.raises(Unauthorized, match="sign in again"):
        world.who(session)


def test_a_session_ends_when_nobody_looks_and_after_its_time_in_any_case(world: World) -> None:
    session, watched = world.sign_in(), world.sign_in()
    for _ in range(4):
        world.now += 11 * HOUR
        assert world.who(watched) == "ann"
    with pytest.raises(Unauthorized):
        world.who(session)
    world.now += 4 * HOUR
    with pytest.raises(Unauthorized):
        world.who(watched)


def test_when_a_session_was_seen_is_not_written_with_every_look(world: World) -> None:
    session = world.sign_in()

    def seen() -> datetime:
        with world.store.reading() as r:
            (row,) = r.link.rows("SELECT seen_at FROM person_session")
        return datetime.fromtimestamp(row[0] / 1_000_000, UTC)

    first = seen()
    world.now += SEEN_EVERY / 2
    world.who(session)
    assert seen() == first
    world.now += SEEN_EVERY
    world.who(session)
    assert seen() == world.now


def test_signing_in_gives_a_fresh_session_and_ends_the_one_before(world: World) -> None:
    """Fixation: whatever cookie somebody planted, nobody is let in by it."""
    planted = "planted"
    session = world.door.sign_in("ann", WORDS, address="", before=planted)
    assert session != planted
    with pytest.raises(Unauthorized):
        world.who(planted)
    again = world.door.sign_in("ann", WORDS, address="", before=session)
    assert world.who(again) == "ann"
    with pytest.raises(Unauthorized):
        world.who(session)


def test_neither_sessions_nor_tokens_nor_passwords_are_kept_as_they_are(world: World) -> None:
    session = world.sign_in()
    _, token = world.people.add_token("ann", [Role.VIEWER], until=world.now + HOUR, by="ann")
    with world.store.reading() as r:
        kept = repr([r.link.rows(f"SELECT * FROM {table}") for table in ("person", "person_session", "person_token")])
    assert session not in kept and token not in kept and WORDS not in kept
    assert "$argon2id$" in kept
    with world.store.reading() as r:
        assert "$argon2id$" not in repr(r.people()) and "digest" not in repr(r.person_tokens())


@pytest.mark.parametrize("name", ["nobody", "", "x" * 5000, "tokens only", "gone"])
def test_who_is_unknown_costs_one_hash_and_is_answered_as_a_wrong_password(world: World, name: str) -> None:
    world.people.add("tokens only", [Role.VIEWER], by="ann")
    world.people.add("gone", [Role.VIEWER], by="ann", password=WORDS)
    world.people.disable("gone", by="ann")
    with pytest.raises(Unauthorized) as wrong:
        world.sign_in("ann", "wrong horse battery")
    for password in (WORDS, "", "x" * (MOST + 1)):
        world.passwords.asked.clear()
        with pytest.raises(Unauthorized) as stranger:
            world.sign_in(name, password)
        assert (stranger.value.message, stranger.value.remedy) == (wrong.value.message, wrong.value.remedy)
        assert stranger.value.message == WRONG
        assert len(world.passwords.asked) == 1


def test_a_longer_password_is_not_the_one_that_it_begins_with(world: World) -> None:
    world.people.set_password("ann", "x" * MOST, by="ann")
    with pytest.raises(Unauthorized):
        world.sign_in("ann", "x" * (MOST + 1))
    assert world.who(world.sign_in("ann", "x" * MOST)) == "ann"


def test_a_password_is_hashed_anew_when_the_price_has_changed(world: World) -> None:
    world.passwords = Counted()
    world.passwords._given = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
    world.door = world.another_door()
    assert world.who(world.sign_in()) == "ann"
    assert "t=2" in (world.people.get("ann").password or "")


@pytest.mark.parametrize("password", ["", "short", " " * 20, "x" * (MOST + 1)])
def test_a_password_that_is_none_is_refused(world: World, password: str) -> None:
    with pytest.raises(InvalidInput):
        world.people.set_password("ann", password, by="ann")


# ------------------------------------------------------------------------------------------------- brute force


def test_guessing_one_name_is_slowed_down_from_wherever_it_is_done(world: World) -> None:
    for number in range(5):
        with pytest.raises(Unauthorized):
            world.sign_in("ann", "wrong", address=f"192.0.2.{number}")
    world.passwords.asked.clear()
    with pytest.raises(TooMany) as refused:
        world.sign_in("Ann", WORDS, address="192.0.2.99")
    assert refused.value.after == 1
    assert world.passwords.asked == [], "a refused attempt costs nothing"
    world.now += timedelta(seconds=1)
    assert world.who(world.sign_in()) == "ann"


def test_an_unknown_name_is_slowed_down_like_a_known_one(world: World) -> None:
    def waits(name: str) -> list[float]:
        found = []
        for _ in range(12):
            try:
                world.sign_in(name, "wrong", address="127.0.0.1")
            except TooMany as error:
                found.append(error.after)
            except Unauthorized:
                found.append(0.0)
        return found

    assert waits("ann") == waits("nobody")


def test_the_owner_of_a_name_is_never_shut_out_for_more_than_a_minute(world: World) -> None:
    for _ in range(200):
        world.now += timedelta(minutes=1)
        with pytest.raises(Unauthorized):
            world.sign_in("ann", "wrong", address="127.0.0.1")
    world.now += timedelta(minutes=1)
    assert world.who(world.sign_in()) == "ann"


def test_guessing_many_names_from_one_address_is_slowed_down(world: World) -> None:
    for number in range(20):
        with pytest.raises(Unauthorized):
            world.sign_in(f"name {number}", "wrong", address="192.0.2.1")
    with pytest.raises(TooMany):
        world.sign_in("name 99", "wrong", address="192.0.2.1")
    assert world.who(world.sign_in(address="192.0.2.2")) == "ann"


def test_a_proxy_on_this_machine_is_not_an_address(world: World) -> None:
    for number in range(50):
        with pytest.raises(Unauthorized):
            world.sign_in(f"name {number}", "wrong", address="127.0.0.1")
    assert world.who(world.sign_in(address="127.0.0.1")) == "ann"


def test_who_has_a_network_of_addresses_has_one(world: World) -> None:
    """Of IPv6 everybody has 2^64."""
    for number in range(20):
        with pytest.raises(Unauthorized):
            world.sign_in(f"name {number}", "wrong", address=f"2001:db8::{number:x}:1")
    with pytest.raises(TooMany):
        world.sign_in("name 99", "wrong", address="2001:db8::ffff")
    assert world.who(world.sign_in(address="2001:db8:0:1::1")) == "ann"


def test_who_guesses_a_name_all_the_time_shuts_its_owner_out_of_nowhere_they_were_before(world: World) -> None:
    """Whoever asks as soon as it is allowed takes every free moment."""
    home, elsewhere = "192.0.2.1", "192.0.2.2"
    world.sign_in(address=home)
    for number in range(100):
        world.now += timedelta(minutes=1)
        with pytest.raises(Unauthorized):
            world.sign_in("ann", "wrong", address=f"198.51.100.{number}")
    with pytest.raises(TooMany):
        world.sign_in(address=elsewhere)
    assert world.who(world.sign_in(address=home)) == "ann"
    for _ in range(5):
        with pytest.raises(Unauthorized):
            world.sign_in("ann", "wrong", address=home)
    with pytest.raises(TooMany):
        world.sign_in("ann", "wrong", address=home)


def test_no_name_is_another_ones_place(world: World) -> None:
    world.sign_in(address="192.0.2.1")
    for name in ("ann\n192.0.2.1", "ann 192.0.2.1", "ann\0192.0.2.1"):
        for number in range(6):
            with pytest.raises((Unauthorized, TooMany)):
                world.sign_in(name, "wrong", address=f"198.51.100.{number}")
    assert world.who(world.sign_in(address="192.0.2.1")) == "ann"


def test_places_are_forgotten_in_the_end() -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)
    homes = Homes(forgotten=timedelta(days=30))
    homes.add("ann", "a", now)
    assert homes.key("ann", "a", now + timedelta(days=29)) == ("ann", "a")
    assert homes.key("ann", "b", now) == homes.key("ann", "a", now + timedelta(days=30)) == ("ann", "")


def test_attempts_at_the_same_time_count_each(world: World) -> None:
    def attempt(number: int) -> str:
        try:
            return world.sign_in("ann", f"wrong {number}", address="127.0.0.1")
        except TooMany:
            return "refused"
        except Unauthorized:
            return "wrong"

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(attempt, range(40))).count("wrong") == 5


def test_the_wait_doubles_to_its_end_and_is_forgotten() -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)
    throttle = Throttle(free=2, first=timedelta(seconds=1), at_most=timedelta(seconds=8), forgotten=HOUR)
    waits = []
    for _ in range(7):
        try:
            throttle.attempt("a", now)
        except TooMany as error:
            waits.append(error.after)
            now += timedelta(seconds=error.after)
            throttle.attempt("a", now)
    assert waits == [1, 2, 4, 8, 8]
    now += HOUR
    throttle.attempt("a", now)
    throttle.attempt("a", now)


def test_a_right_attempt_is_taken_back() -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)
    throttle = Throttle(free=1, first=timedelta(seconds=1), at_most=timedelta(seconds=8), forgotten=HOUR)
    for _ in range(10):
        throttle.attempt("a", now)
        throttle.right("a", all_of_them=False)
    throttle.right("nobody", all_of_them=True)


# ------------------------------------------------------------------------------------------------- tokens


def test_a_token_speaks_for_its_person_as_far_as_both_may(world: World) -> None:
    row, token = world.people.add_token("ANN", [Role.RELEASER, Role.APPROVER], until=world.now + HOUR, by="ann")
    assert token.startswith("wave_")
    person = world.door.by_token(token, address="")
    assert (person.name, person.token) == ("ann", row.name)
    assert person.roles == {Role.VIEWER, Role.RELEASER, Role.APPROVER}
    world.people.set_roles("ann", [Role.APPROVER], by="root")
    assert world.door.by_token(token, address="").roles == {Role.VIEWER, Role.APPROVER}
    assert world.people.tokens()[0].used_at == world.now


@pytest.mark.parametrize("ends", ["over", "revoked", "disabled", "another"])
def test_a_token_that_is_worth_nothing_says_why(world: World, ends: str) -> None:
    row, token = world.people.add_token("ann", [Role.VIEWER], until=world.now + HOUR, by="ann")
    said = {"over": "good until 2026-05-04 10:00", "revoked": "revoked", "disabled": "disabled", "another": "not known"}
    match ends:
        case "over":
            world.now += HOUR
        case "revoked":
            assert world.people.revoke_token(row.name, by="ann")
            assert not world.people.revoke_token(row.name, by="ann")
        case "disabled":
            world.people.disable("ann", by="root")
        case _:
            token += "x"
    with pytest.raises(Unauthorized, match=said[ends]):
        world.door.by_token(token, address="")


def test_a_token_has_an_end_and_no_role_that_its_person_lacks(world: World) -> None:
    world.people.add("ben", [Role.RELEASER], by="ann")
    for until in (world.now, world.now + TOKEN_AT_MOST + HOUR):
        with pytest.raises(InvalidInput):
            world.people.add_token("ben", [Role.VIEWER], until=until, by="ann")
    with pytest.raises(Refused, match="ben is no admin"):
        world.people.add_token("ben", [Role.ADMIN], until=world.now + HOUR, by="ann")
    with pytest.raises(InvalidInput):
        world.people.add_token("ben", [], until=world.now + HOUR, by="ann")
    with pytest.raises(NotFound):
        world.people.add_token("cem", [Role.VIEWER], until=world.now + HOUR, by="ann")


# ------------------------------------------------------------------------------------------------- people


def test_who_is_disabled_is_out_at_once_and_comes_back_without_the_old_sessions(world: World) -> None:
    session = world.sign_in()
    world.people.disable("ann", by="root")
    with pytest.raises(Unauthorized):
        world.who(session)
    with pytest.raises(Unauthorized):
        world.sign_in()
    world.people.enable("ann", by="root")
    with pytest.raises(Unauthorized):
        world.who(session)
    assert world.who(world.sign_in()) == "ann"


def test_a_new_password_ends_every_session(world: World) -> None:
    session = world.sign_in()
    world.people.set_password("ann", "a new password", by="root")
    with pytest.raises(Unauthorized):
        world.who(session)
    with pytest.raises(Unauthorized):
        world.sign_in()
    assert world.who(world.sign_in(password="a new password")) == "ann"


def test_a_password_that_changes_while_it_is_judged_lets_nobody_in(world: World) -> None:
    before = world.people.get("ann")
    world.people.set_password("ann", "a new password", by="root")
    with pytest.raises(Unauthorized):
        world.door.let_in(before, address="")


def test_a_role_that_is_taken_is_gone_with_the_next_request(world: World) -> None:
    session = world.sign_in()
    world.people.set_roles("ann", [Role.VIEWER], by="root")
    assert world.door.by_session(session, address="").roles == {Role.VIEWER}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 129, "policy", "Policy"])
def test_a_name_that_is_none_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidInput):
        world.people.add(name, [Role.VIEWER], by="ann")


def test_there_is_one_of_each_name_and_everybody_has_a_role(world: World) -> None:
    with pytest.raises(Conflict):
        world.people.add("ANN", [Role.VIEWER], by="ann")
    for wrong in (lambda: world.people.add("ben", [], by="a"), lambda: world.people.set_roles("ann", [], by="a")):
        with pytest.raises(InvalidInput):
            wrong()
    for order in (world.people.disable, world.people.enable):
        with pytest.raises(NotFound):
            order("ben", by="ann")


def test_everything_is_written_down_with_who(world: World) -> None:
    world.people.add("<script>ben", [Role.VIEWER], by="ann")
    world.people.set_roles("<script>ben", [Role.RELEASER, Role.APPROVER], by="ann")
    row, _ = world.people.add_token("<script>ben", [Role.RELEASER], until=world.now + HOUR, by="ann")
    world.people.revoke_token(row.name, by="ann")
    world.people.disable("<script>ben", by="ann")
    world.people.disable("<script>ben", by="ann")
    world.people.enable("<script>ben", by="ann")
    world.people.set_password("<script>ben", WORDS, by="ann")
    world.door.sign_out(world.sign_in("<script>ben"))
    told = [(each.event, each.by, each.whom) for each in reversed(world.people.events())]
    ben = "<script>ben"
    assert told == [
        ("added", "root", "ann"),
        ("added", "ann", ben),
        ("roles", "ann", ben),
        ("token_added", "ann", ben),
        ("token_revoked", "ann", ben),
        ("disabled", "ann", ben),
        ("enabled", "ann", ben),
        ("password", "ann", ben),
        ("signed_in", ben, ben),
        ("signed_out", ben, ben),
    ]
    assert "ann made <script>ben approver and releaser." in [each.sentence for each in world.people.events()]


def test_of_many_hashes_at_once_the_last_are_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.services.passwords.WAIT_AT_MOST", timedelta(0))
    passwords = Passwords(CHEAP)
    passwords._room.acquire()
    assert not passwords.good(None, "x")
    passwords._room.acquire()
    with pytest.raises(TooMany):
        passwords.good(None, "x")
    with pytest.raises(TooMany):
        passwords.hashed("correct horse battery")
    with pytest.raises(TooMany):
        passwords.digest(b"an order", b"its key")


def test_a_digest_of_what_holds_a_password_tells_secrets_and_salts_apart() -> None:
    passwords = Passwords(CHEAP)
    found = {passwords.digest(secret, salt) for secret in (b"a", b"b") for salt in (b"", b"ann\0key", b"x" * 900) * 2}
    assert len(found) == 6 and {len(each) for each in found} == {32}
    assert passwords.digest(b"a", b"ann\0key") != Passwords().digest(b"a", b"ann\0key"), "at the price of a password"


@pytest.mark.parametrize(
    ("person", "token", "found"),
    [
        ({Role.ADMIN}, {Role.VIEWER}, {Role.VIEWER}),
        ({Role.VIEWER}, {Role.ADMIN}, {Role.VIEWER}),
        ({Role.RELEASER}, {Role.APPROVER}, {Role.VIEWER}),
        (set(), {Role.ADMIN}, set()),
    ],
)
def test_a_token_may_what_both_may(person: set[Role], token: set[Role], found: set[Role]) -> None:
    assert shared(person, token) == found


def test_names_are_compared_as_people_read_them() -> None:
    assert folded("ANN ") == folded("Ａnn") == folded("ann")
    assert folded("ann") != folded("anna")
