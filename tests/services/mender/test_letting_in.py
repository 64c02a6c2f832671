"""Letting Mender devices in: a stranger waits for a person, a new key never takes over, and what was taken away is
worth nothing at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.errors import (
    Busy,
    Forbidden,
    InvalidInput,
    InvalidReport,
    NotFound,
    Refused,
    TooMany,
    Unauthorized,
    WaveError,
    WrongState,
)
from orchestrator.services.mender.authentication import MOST_OF_ONE, Authentication
from orchestrator.services.mender.operating import Operating, Placing, suggested_id
from orchestrator.services.mender.sets import AuthSet, SetStatus
from orchestrator.services.mender.signatures import canonical, claim_of
from orchestrator.services.mender.tokens import holder
from tests.services.fleet_world import HARDWARE, START, TAG, World
from tests.services.mender.keys import key_of, pem_of, request_of, signature_of

HERE = Placing(hardware_id=HARDWARE, tag=TAG, group="lab", labels={"site": "a"})
WEEK = timedelta(days=7)


class House:
    """A world with the two halves of letting in: devices that ask, and a person who decides."""

    def __init__(self, most_pending: int = 100) -> None:
        self.world = World()
        world = self.world
        self.door = Authentication(world.store, world.devices, world.clock, token_for=WEEK, most_pending=most_pending)
        self.person = Operating(world.store, world.devices.register, world.clock)

    def ask(self, name: str, key: str | None = None, kind: str = "ec") -> str:
        return self.door.ask(*request_of(name, key=key, kind=kind)).result(10)

    def waits(self, name: str, key: str | None = None) -> AuthSet:
        """It asks, and is told to wait."""
        with pytest.raises((Unauthorized, Forbidden)):
            self.ask(name, key)
        return self.known(name, key)

    def known(self, name: str, key: str | None = None) -> AuthSet:
        with self.world.store.reading() as r:
            found = r.auth_set(claim_of(*request_of(name, key=key)).id)
        assert found is not None
        return found

    def let_in(self, name: str, key: str | None = None) -> str:
        """It asks, a person accepts, it asks again: its token."""
        self.person.accept(self.waits(name, key).id, HERE, by="ann")
        self.world.later(timedelta(seconds=1), tick=False)
        return self.ask(name, key)

    def good(self, token: str) -> bool:
        try:
            self.world.devices.let_in(holder(token, self.world.now), token)
        except Unauthorized:
            return False
        return True

    def device(self, device_id: str) -> Device | None:
        with self.world.store.reading() as r:
            row = r.device(device_id)
        return None if row is None else row.device


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.world.close()


class TestAsking:
    def test_a_stranger_waits_until_a_person_accepts_it(self, house: House) -> None:
        assert house.waits("aa:bb").status is SetStatus.PENDING
        done = house.person.accept("aa:bb", HERE, by="ann")
        assert (done.device_id, done.enrolled, done.one.decided_by) == ("aa:bb", True, "ann")
        token = house.ask("aa:bb")
        assert house.good(token) and holder(token, house.world.now) == "aa:bb"
        made = house.device("aa:bb")
        assert made is not None
        assert (made.hardware_id, made.tag, made.group, made.labels) == (HARDWARE, TAG, "lab", {"site": "a"})

    @pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
    def test_every_kind_of_key_that_the_client_may_have(self, house: House, kind: str) -> None:
        with pytest.raises(Unauthorized):
            house.ask("m1", kind=kind)
        house.person.accept("m1", HERE, by="ann")
        assert house.good(house.ask("m1", kind=kind))

    def test_only_a_digest_of_the_token_is_kept(self, house: House) -> None:
        token = house.let_in("m1")
        with house.world.store.reading() as r:
            row = r.device("m1")
        assert row is not None and row.token_digest is not None
        assert len(row.token_digest) == 32 and token.rpartition(".")[2].encode() not in row.token_digest

    def test_asking_again_renews_the_token_and_ends_the_one_before(self, house: House) -> None:
        first = house.let_in("m1")
        house.world.later(timedelta(minutes=1), tick=False)
        second = house.ask("m1")
        assert first != second and house.good(second) and not house.good(first)

    def test_a_token_ends(self, house: House) -> None:
        token = house.let_in("m1")
        house.world.later(WEEK - timedelta(seconds=1), tick=False)
        assert house.good(token)
        house.world.later(timedelta(seconds=1), tick=False)
        with pytest.raises(Unauthorized, match="has ended"):
            holder(token, house.world.now)
        assert house.good(house.ask("m1"))

    def test_a_token_cannot_be_made_to_last_longer_or_to_name_another(self, house: House) -> None:
        token = house.let_in("m1")
        house.let_in("m2")
        house.world.later(timedelta(minutes=1), tick=False)
        name, end, secret = token.split(".")
        assert not house.good(f"{name}.{int(end, 16) + 1:x}.{secret}")
        assert not house.good(f"{house.ask('m2').split('.')[0]}.{end}.{secret}")

    def test_waiting_costs_a_write_every_five_minutes_at_most(self, house: House) -> None:
        house.waits("m1")
        before = house.world.devices.writer.items
        for _ in range(10):
            house.waits("m1")
        assert house.world.devices.writer.items == before
        house.world.later(timedelta(minutes=6), tick=False)
        assert house.waits("m1").seen_at == house.world.now

    def test_from_an_address_of_many_strangers_only_who_is_known_is_heard(self, house: House) -> None:
        house.let_in("m1")
        house.waits("m2")
        with pytest.raises(Busy):
            house.door.ask(*request_of("m3"), strangers=False).result(10)
        with pytest.raises(Forbidden):
            house.door.ask(*request_of("m2"), strangers=False).result(10)
        house.world.later(timedelta(minutes=1), tick=False)
        assert house.good(house.door.ask(*request_of("m1"), strangers=False).result(10))

    def test_the_order_and_the_spaces_of_an_identity_say_nothing(self, house: House) -> None:
        assert canonical('{"b": "2",\n "a": ["1", 3]}') == canonical('{"a":["1",3],"b":"2"}')


class TestWhoCannotBe:
    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b"{}", b'{"id_data": {}, "pubkey": ""}', b'{"id_data": "{}"}', b"[" * 100_000],
    )
    def test_what_is_no_request_is_refused(self, body: bytes) -> None:
        with pytest.raises(InvalidReport):
            claim_of(body, b"")

    @pytest.mark.parametrize(
        "identity",
        ["", "x", "[]", "{}", '{"":"a"}', '{"a":null}', '{"a":{}}', '{"a":[]}', '{"a":1.5}', '{"a":"\\u0000"}',
         '{"a":"\\ud800"}', '{"a":"' + "x" * 5000 + '"}'],
    )  # fmt: skip
    def test_what_is_no_identity_is_refused(self, identity: str) -> None:
        body, signature = request_of("m1", id_data=identity)
        with pytest.raises(InvalidReport):
            claim_of(body, signature)

    @pytest.mark.parametrize(
        "key", ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "x" * 9000]
    )
    def test_what_is_no_key_is_refused(self, key: str) -> None:
        with pytest.raises(InvalidReport):
            claim_of(*request_of("m1", pubkey=key))

    def test_a_key_that_is_too_small_is_refused(self) -> None:
        with pytest.raises(InvalidReport, match="2048"):
            claim_of(*request_of("m1", kind="small"))

    @pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
    @pytest.mark.parametrize("signature", [b"", b"x", b"AAAA", b"\xff", None])
    def test_a_signature_that_does_not_hold_is_refused(self, kind: str, signature: bytes | None) -> None:
        body, _ = request_of("m1", kind=kind)
        other = signature_of(key_of("other", kind), body)
        with pytest.raises(Unauthorized):
            claim_of(body, other if signature is None else signature)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=300), st.binary(max_size=100))
    def test_nothing_that_is_sent_is_more_than_refused(self, body: bytes, signature: bytes) -> None:
        with pytest.raises(WaveError):
            claim_of(body, signature)

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=200))
    def test_no_text_is_a_token(self, text: str) -> None:
        with contextlib.suppress(Unauthorized):
            holder(text, START)


class TestNewKeys:
    def test_a_new_key_of_a_known_identity_waits_and_takes_over_nothing(self, house: House) -> None:
        token = house.let_in("m1")
        assert house.waits("m1", "new").status is SetStatus.PENDING
        assert house.good(token) and house.known("m1").status is SetStatus.ACCEPTED

    def test_accepting_it_locks_out_the_old_one_at_once(self, house: House) -> None:
        token = house.let_in("m1")
        house.waits("m1", "new")
        done = house.person.accept("m1", Placing(), by="ann")
        assert done.instead_of is not None and not done.enrolled
        assert not house.good(token)
        with pytest.raises(Forbidden):
            house.ask("m1")
        assert house.good(house.ask("m1", "new"))
        made = house.device("m1")
        assert made is not None and (made.tag, made.group, made.labels) == (TAG, "lab", {"site": "a"})

    def test_made_up_keys_of_one_identity_push_out_only_their_own(self, house: House) -> None:
        house.waits("other")
        for number in range(MOST_OF_ONE + 3):
            house.waits("m1", f"key {number}")
            house.world.later(timedelta(seconds=1), tick=False)
        waiting = house.person.sets([SetStatus.PENDING])
        assert len(waiting) == MOST_OF_ONE + 1
        assert house.known("m1", f"key {MOST_OF_ONE + 2}") in waiting

    def test_when_so_many_wait_strangers_are_sent_away_and_nobody_who_waits_loses_its_place(self) -> None:
        house = House(most_pending=3)
        for number in range(3):
            house.waits(f"m{number}")
        with pytest.raises(TooMany, match="wait for a person"):
            house.ask("m3")
        written = house.world.devices.writer.items
        with pytest.raises(TooMany):
            house.ask("m4")
        assert house.world.devices.writer.items == written, "who comes while it is full costs nothing"
        assert sorted(one.identity for one in house.person.sets()) == [f'{{"mac":"m{n}"}}' for n in (0, 1, 2)]
        house.person.accept("m0", HERE, by="ann")
        house.world.later(timedelta(minutes=1), tick=False)
        assert house.waits("m5").status is SetStatus.PENDING
        house.world.close()

    def test_who_waits_and_has_not_asked_for_a_day_makes_room(self) -> None:
        house = House(most_pending=2)
        for name in ("m1", "made up"):
            house.waits(name)
        house.world.later(timedelta(hours=20), tick=False)
        house.waits("m1")
        house.world.later(timedelta(hours=5), tick=False)
        house.waits("m2")
        assert {one.identity for one in house.person.sets()} == {'{"mac":"m1"}', '{"mac":"m2"}'}
        house.world.close()

    def test_made_up_ones_that_ask_daily_are_rejected_all_at_once_and_come_in_no_more(self) -> None:
        """Monday: an honest device waits. Tuesday: made-up ones take all the places, and ask again every day, so none
        gives up. Thursday: a new device finds no room; a person rejects all who asked first in the last two days."""
        house = House(most_pending=6)
        house.waits("honest")
        house.world.later(timedelta(days=1), tick=False)
        for number in range(5):
            house.waits(f"made up {number}")
        for _ in range(2):
            house.world.later(timedelta(hours=20), tick=False)
            for name in ("honest", *(f"made up {number}" for number in range(5))):
                house.waits(name)
        with pytest.raises(TooMany):
            house.ask("new")
        shown = house.person.waiting(limit=9)
        assert [one.identity for one in shown][-1] == '{"mac":"honest"}', "who asked last comes first"
        two_days = timedelta(days=2)
        assert len(house.person.reject_waiting(asked_within=two_days, by="ann", dry_run=True)) == 5
        assert house.person.waiting(limit=9) == shown
        done = house.person.reject_waiting(asked_within=two_days, by="ann")
        assert {(each.one.status, each.one.decided_by) for each in done} == {(SetStatus.REJECTED, "ann")}
        house.world.later(timedelta(minutes=10), tick=False)
        with pytest.raises(Forbidden):
            house.ask("made up 0")
        assert house.waits("new").status is house.known("honest").status is SetStatus.PENDING
        assert len(house.person.reject_waiting(by="ann")) == 2 and not house.person.waiting(limit=9)
        house.world.close()

    def test_a_request_sent_again_at_once_gives_no_second_token_and_ends_none(self, house: House) -> None:
        token = house.let_in("m1")
        written = house.world.devices.writer.items
        for _ in range(3):
            with pytest.raises(TooMany, match="just been given"):
                house.ask("m1")
        assert house.good(token) and house.world.devices.writer.items == written
        house.world.later(timedelta(minutes=1), tick=False)
        assert house.good(house.ask("m1")) and not house.good(token)


class TestDeciding:
    def test_rejecting_locks_out_at_once_and_the_device_stays(self, house: House) -> None:
        token = house.let_in("m1")
        house.person.reject("m1", by="ann")
        assert not house.good(token)
        with pytest.raises(Forbidden):
            house.ask("m1")
        assert house.device("m1") is not None
        house.person.accept("m1", Placing(), by="ann")
        assert house.good(house.ask("m1"))

    def test_who_is_preauthorised_is_let_in_when_it_asks(self, house: House) -> None:
        done = house.person.preauthorize('{"mac": "m1"}', pem_of(key_of("m1")), HERE, by="ann")
        assert done.enrolled and house.device("m1") is not None
        assert house.good(house.ask("m1"))
        assert house.known("m1").status is SetStatus.ACCEPTED
        with pytest.raises(WrongState):
            house.person.preauthorize('{"mac": "m1"}', pem_of(key_of("m1")), HERE, by="ann")

    def test_a_preauthorised_new_key_takes_over_when_it_asks_and_not_before(self, house: House) -> None:
        token = house.let_in("m1")
        house.person.preauthorize('{"mac": "m1"}', pem_of(key_of("new")), Placing(), by="ann")
        assert house.good(token)
        assert house.good(house.ask("m1", "new")) and not house.good(token)
        assert house.known("m1").status is SetStatus.REJECTED

    def test_another_key_than_the_preauthorised_waits(self, house: House) -> None:
        house.person.preauthorize('{"mac": "m1"}', pem_of(key_of("m1")), HERE, by="ann")
        assert house.waits("m1", "thief").status is SetStatus.PENDING

    def test_who_is_decommissioned_is_locked_out_retired_and_a_stranger_again(self, house: House) -> None:
        token = house.let_in("m1")
        house.person.decommission("m1", by="ann")
        retired = house.device("m1")
        assert retired is not None and retired.status is DeviceStatus.RETIRED
        assert not house.good(token)
        assert house.waits("m1").device_id is None
        house.person.accept("m1", Placing("m1"), by="ann")
        back = house.device("m1")
        assert back is not None and back.status is DeviceStatus.ACTIVE and house.good(house.ask("m1"))

    def test_a_dry_run_writes_nothing(self, house: House) -> None:
        one = house.waits("m1")
        assert house.person.accept("m1", HERE, by="ann", dry_run=True).enrolled
        assert house.person.reject("m1", by="ann", dry_run=True).one.status is SetStatus.REJECTED
        house.person.decommission("m1", by="ann", dry_run=True)
        house.person.preauthorize('{"mac": "m2"}', pem_of(key_of("m2")), HERE, by="ann", dry_run=True)
        assert list(house.person.sets()) == [one] and house.device("m1") is None

    def test_a_device_of_other_means_is_taken_only_when_a_person_names_it(self, house: House) -> None:
        house.world.tokens["m1"] = ""
        assert list(house.world.devices.enroll([Device("m1", HARDWARE, TAG)], tokens=True))
        house.waits("m1")
        with pytest.raises(Refused, match="--device m1"):
            house.person.accept("m1", HERE, by="ann")
        assert house.person.accept("m1", Placing("m1"), by="ann").device_id == "m1"

    def test_two_identities_are_never_one_device(self, house: House) -> None:
        house.let_in("m1")
        house.waits("m2")
        with pytest.raises(Refused, match="Name another id"):
            house.person.accept("m2", Placing("m1"), by="ann")

    def test_a_new_device_needs_hardware_and_tag(self, house: House) -> None:
        house.waits("m1")
        with pytest.raises(InvalidInput, match="--hardware-id and --tag"):
            house.person.accept("m1", Placing(hardware_id=HARDWARE), by="ann")

    def test_what_is_meant_must_be_clear(self, house: House) -> None:
        with pytest.raises(NotFound):
            house.person.accept("nobody", HERE, by="ann")
        one = house.waits("m1", "a")
        house.waits("m1", "b")
        with pytest.raises(Refused, match="may be 2 sets"):
            house.person.accept("m1", HERE, by="ann")
        assert house.person.accept(one.id[:8], HERE, by="ann").one.id == one.id
        with pytest.raises(Refused, match=r"accepted.*pending|pending.*accepted"):
            house.person.reject("m1", by="ann")

    @pytest.mark.parametrize(
        ("identity", "name"),
        [
            ('{"mac":"aa:bb"}', "aa:bb"),
            ('{"mac":"no name!"}', None),
            ('{"a":"1","b":"2"}', None),
            ('{"a":["1"]}', None),
        ],
    )
    def test_the_id_that_an_identity_suggests(self, identity: str, name: str | None) -> None:
        assert suggested_id(identity) == name or (name is None and suggested_id(identity).startswith("mender-"))
