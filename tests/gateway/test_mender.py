"""The protocol of the Mender client: every answer that its contract asks for, over the real services and store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from orchestrator.core.artifact import FILES, Artifact, Digests, Format
from orchestrator.core.fleet import Target
from orchestrator.core.limits import OFF, Limit
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.protocols import DeviceProtocol
from orchestrator.core.update import UpdateStatus
from orchestrator.gateway.limits import Limits
from orchestrator.gateway.mender.door import LOG_BYTES
from orchestrator.services.mender.operating import Placing
from orchestrator.services.messages import MOST_EVENTS
from tests.gateway.mender_house import AUTH, DEPLOYMENTS, INVENTORY, NEXT, NEXT_V1, V1, V2, Client, House
from tests.services.fleet_world import HARDWARE, TAG, commit_of
from tests.services.mender.keys import key_of, request_of, signature_of

MINUTE = timedelta(minutes=1)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.world.close()


def error(answer: httpx.Response) -> str:
    """The error's text; the client reads no other shape."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "request_id"} and body["request_id"]
    return str(body["error"])


class TestLettingIn:
    def test_pending_is_401_and_accepted_is_a_token_as_text(self, house: House) -> None:
        body, signature = request_of("m1")
        waits = house.auth(body, signature)
        assert waits.status_code == 401 and "not accepted" in error(waits)
        house.person.accept("m1", Placing(hardware_id=HARDWARE, tag=TAG), by="ann")
        let_in = house.auth(body, signature)
        assert (let_in.status_code, let_in.headers["content-type"]) == (200, "application/jwt")
        assert let_in.headers["cache-control"] == "no-store" and let_in.text.count(".") == 2

    def test_a_signature_of_something_else_is_401_and_what_is_no_request_400(self, house: House) -> None:
        body, _ = request_of("m1")
        assert house.auth(body, signature_of(key_of("m1"), b"other")).status_code == 401
        assert house.auth(body, b"").status_code == 401
        assert house.auth(b"{}", b"").status_code == 400
        assert house.ask("GET", AUTH).status_code == 405
        assert house.auth(b"x" * 40_000, b"").status_code == 413
        assert list(house.person.sets()) == []

    def test_who_waits_for_a_person_does_not_make_its_address_suspect(self) -> None:
        """Behind one router: devices that wait, a stranger too many, and one that is let in all the same."""
        house = House(Limits(per_device=OFF, per_address=OFF, failures=Limit(1, "min", 3), clock=lambda: 1000.0))
        site = "192.0.2.7"
        for name in ("m1", "m2"):
            for _ in range(10):
                assert house.auth(*request_of(name), address=site).status_code == 401
        house.person.accept("m1", Placing(hardware_id=HARDWARE, tag=TAG), by="ann")
        assert house.auth(b"{}", b"", address=site).status_code == 400
        assert house.auth(*request_of("m3"), address=site).status_code == 401
        assert house.auth(*request_of("m4"), address=site).status_code == 503
        assert house.auth(*request_of("m2"), address=site).status_code == 401
        assert house.auth(*request_of("m1"), address=site).status_code == 200
        house.world.close()

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "bTE.ffffffffff.x", "bTE.0.x"])
    def test_without_a_good_token_everything_is_401(self, house: House, token: str) -> None:
        client = Client(house, "m1").join()
        client.token = token
        for method, path in (("PUT", INVENTORY), ("POST", NEXT), ("GET", NEXT_V1), ("PUT", f"{DEPLOYMENTS}/x/status")):
            answer = client.ask(method, path, content=b"not even read")
            assert answer.status_code == 401
            error(answer)

    def test_who_is_rejected_is_out_with_the_next_request(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.person.reject("m0", by="ann")
        assert client.tell() == 401
        assert house.auth(*request_of("m0")).status_code == 401


class TestInventory:
    def test_attributes_become_labels_and_say_what_runs(self, house: House) -> None:
        client = Client(house, "m1").join()
        odd: list[dict[str, Any]] = [
            {"name": "ip", "value": ["10.0.0.1", "10.0.0.2"]},
            {"name": "mem", "value": 512},
            {"name": "kernel", "value": " Linux\n6.1 "},
            {"name": "no label", "value": "x"},
            {"name": "empty", "value": ""},
            {"name": "nested", "value": {"a": 1}},
            {"name": "rootfs-image.version", "value": "1.41"},
            {"name": "long", "value": "x" * 1000, "description": "ignored"},
        ]
        assert client.tell(*odd) == 200
        with house.world.store.reading() as r:
            row = r.device("m1")
            assert row is not None
            assert r.spoken([row.key])[row.key].protocol is DeviceProtocol.MENDER
        assert (row.device.commit, row.device.version) == (commit_of(41), 41)
        assert row.device.labels == {"ip": "10.0.0.1,10.0.0.2", "mem": "512", "kernel": "Linux 6.1", "long": "x" * 255}

    def test_put_replaces_patch_adds_and_only_what_changed_is_written(self, house: House) -> None:
        client = Client(house, "m1").join()
        client.tell({"name": "a", "value": "1"}, {"name": "b", "value": "1"})
        before = house.world.devices.writer.items
        for _ in range(3):
            client.tell({"name": "a", "value": "1"}, {"name": "b", "value": "1"})
            assert client.next() is None
        assert house.world.devices.writer.items == before
        client.tell({"name": "b", "value": "2"}, method="PATCH")
        with house.world.store.reading() as r:
            row = r.device("m1")
        assert row is not None and row.device.labels == {"a": "1", "b": "2"}
        client.tell({"name": "c", "value": "3"})
        with house.world.store.reading() as r:
            row = r.device("m1")
        assert row is not None and row.device.labels == {"c": "3"}

    def test_going_back_to_software_that_nothing_here_is_called_by_is_a_rollback(self, house: House) -> None:
        (client,) = house.fleet(1)
        client.runs = "factory-7"
        house.world.apply()
        assert client.says(client.offered(), "success") == 204
        client.runs = "app-42"
        assert client.tell() == 200 and house.status(client) is UpdateStatus.CONFIRMED
        client.runs = "factory-7"
        assert client.tell() == 200 and house.status(client) is UpdateStatus.ROLLED_BACK

    def test_a_file_that_the_client_cannot_take_is_not_offered_and_nobody_ignores_it(self, house: House) -> None:
        (client,) = house.fleet(1)
        digests = Digests(commit_of(43), "0" * 40, "0" * 32, 1000)
        with house.world.store.writing() as w:
            w.add_artifact(Artifact(digests, Format.SWU, "app-43.swu", "app-43", "1.43", (HARDWARE,)))
            target = Target("app-43", 43, commit_of(43), (HARDWARE,), (TAG,), FILES)
            w.add_target(target, now=house.world.now)
        house.world.apply(name="lmp-43", target=43)
        assert [client.next() for _ in range(4)] == [None] * 4
        (reason,) = house.world.devices.why_not(client.name)
        assert reason.update is None and "Mender Artifact" in str(reason)

    @pytest.mark.parametrize("runs", ["app-41_INCONSISTENT", ""])
    def test_a_name_that_stands_for_nothing_is_not_known_to_run(self, house: House, runs: str) -> None:
        client = Client(house, "m1").join()
        client.tell()
        client.runs = runs
        client.tell()
        with house.world.store.reading() as r:
            row = r.device("m1")
        assert row is not None and row.device.commit is None

    @pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[{"value": 1}]', b'"x"', b"\xff", b"[" * 50_000])
    def test_what_is_no_inventory_is_400(self, house: House, body: bytes) -> None:
        client = Client(house, "m1").join()
        assert client.ask("PUT", INVENTORY, content=body).status_code == 400


class TestDeployments:
    def test_a_deployment_is_what_the_client_expects(self, house: House) -> None:
        (client,) = house.fleet(1)
        assert client.next() is None
        house.world.apply()
        found = client.next()
        assert found is not None
        assert set(found) == {"id", "artifact"}
        assert set(found["artifact"]) == {"artifact_name", "device_types_compatible", "source"}
        assert found["artifact"]["artifact_name"] == "app-42"
        assert found["artifact"]["device_types_compatible"] == [HARDWARE]
        source = found["artifact"]["source"]
        assert source["uri"].endswith(f"/artifacts/{commit_of(42)}/app-42.mender")
        assert source["expire"] == "2026-11-03T09:00:00Z"
        assert client.next() == found

    def test_both_older_questions_are_answered_alike(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        found = client.next()
        provides = {"artifact_name": "app-41", "device_type": HARDWARE}
        assert client.ask("POST", NEXT_V1, json=provides).json() == found
        assert client.ask("GET", NEXT_V1, params=provides).json() == found

    def test_a_body_may_come_in_chunks(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b'{"device_provides": {"artifact_', b'name": "app-41", "device_type": "rpi4"}', b"}"):
                yield piece

        assert client.ask("POST", NEXT, content=pieces()).status_code == 200

    def test_success_is_applied_and_only_what_runs_confirms(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        for status, expected in (
            ("downloading", UpdateStatus.DOWNLOADING),
            ("installing", UpdateStatus.INSTALLING),
            ("rebooting", UpdateStatus.INSTALLING),
            ("success", UpdateStatus.APPLIED),
        ):
            assert client.says(deployment, status) == 204
            assert house.status(client) is expected
        client.runs = "app-42"
        assert client.next() is None
        assert house.status(client) is UpdateStatus.CONFIRMED

    @pytest.mark.parametrize("statuses", [["success"], ["already-installed"], ["installing", "success"]])
    def test_statuses_may_be_skipped(self, house: House, statuses: list[str]) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        assert [client.says(deployment, each) for each in statuses] == [204] * len(statuses)
        assert house.status(client) is UpdateStatus.APPLIED
        client.runs = "app-42"
        client.tell()
        assert house.status(client) is UpdateStatus.CONFIRMED

    def test_what_is_sent_again_or_late_changes_nothing(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        for status in ("downloading", "downloading", "installing", "downloading", "success", "success", "installing"):
            assert client.says(deployment, status) == 204
        assert house.status(client) is UpdateStatus.APPLIED
        assert [kind for kind, _, _ in house.events(client)] == ["downloading", "installing", "applied"]

    def test_a_failed_installation_has_its_log_beside_it(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        for status in ("downloading", "installing", "failure"):
            client.says(deployment, status)
        assert client.log(deployment, "Installing app-42", level="info") == 204
        assert client.log(deployment, "Installing app-42", level="info") == 204
        assert (house.status(client), house.bad(client)) == (UpdateStatus.FAILED, frozenset({OutcomeClass.FAILED}))
        assert house.events(client)[-2:] == [
            ("failed", "installing", None),
            ("noted", "log", "info: Installing app-42"),
        ]
        client.runs = "app-42_INCONSISTENT"
        assert client.next() is None
        assert house.status(client) is UpdateStatus.FAILED

    def test_a_failed_download_is_none_of_the_release_and_may_be_tried_again(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        for _ in range(2):
            assert client.says(deployment, "downloading") == 204
            assert client.says(deployment, "failure") == 204
            assert client.says(deployment, "failure") == 204
            assert (house.status(client), house.bad(client)) == (
                UpdateStatus.DOWNLOADING,
                frozenset({OutcomeClass.DOWNLOAD_FAILED}),
            )
            assert client.offered() == deployment
        kinds = [kind for kind, _, _ in house.events(client)]
        assert kinds == ["downloading", "download_failed"] * 2

    def test_however_much_was_said_before_the_attempt_under_way_is_the_newest(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        chatter = [house.world.event("noted") for _ in range(MOST_EVENTS)]
        house.world.devices.report(client.name, client.token, chatter).result(10)
        for status in ("downloading", "failure", "downloading", "installing", "failure"):
            assert client.says(deployment, status) == 204
        assert house.status(client) is UpdateStatus.FAILED

    def test_a_failure_after_a_restart_is_a_rollback(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        for status in ("downloading", "installing", "rebooting", "failure"):
            client.says(deployment, status)
        assert house.status(client) is UpdateStatus.ROLLED_BACK

    def test_a_deployment_of_another_device_or_of_nobody_is_404(self, house: House) -> None:
        one, other = house.fleet(2)
        house.world.apply()
        deployment = one.offered()
        other.offered()
        for name in (deployment, "x", "..", "%2e%2e", "0" * 36, deployment.upper(), deployment + "0"):
            assert other.says(name, "success") == 404
            assert other.log(name, "x") == 404
        assert house.status(other) is UpdateStatus.OFFERED

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b'{"status": "aborted"}', b'{"status": 1}', b'{"status": "success", "substate": 1}']
    )
    def test_what_is_no_status_is_400(self, house: House, body: bytes) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        answer = client.ask("PUT", f"{DEPLOYMENTS}/{client.offered()}/status", content=body)
        assert answer.status_code == 400
        error(answer)

    def test_a_log_that_is_too_large_is_413(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        assert client.ask("PUT", f"{DEPLOYMENTS}/{deployment}/log", content=b"x" * (LOG_BYTES + 1)).status_code == 413

    def test_there_is_nothing_else(self, house: House) -> None:
        (client,) = house.fleet(1)
        for path in (f"{V1}/deviceconfig/configuration", f"{V1}/", f"{V2}/inventory", f"{DEPLOYMENTS}/a/b/status"):
            assert client.ask("PUT", path, json={}).status_code == 404


class TestStopping:
    ONE_FAILS = {"tolerate": {"failed": "1%"}, "budget": {"failed": 1}}

    def test_a_halt_aborts_who_has_not_started_and_lets_the_others_finish(self, house: House) -> None:
        bad, started, waiting = house.fleet(3)
        house.world.apply(policy=self.ONE_FAILS)
        deployments = {each.name: each.offered() for each in (bad, started, waiting)}
        started.says(deployments[started.name], "downloading")
        for status in ("downloading", "installing", "failure"):
            bad.says(deployments[bad.name], status)
        house.world.tick()
        assert waiting.says(deployments[waiting.name], "downloading") == 409
        assert waiting.says(deployments[waiting.name], "failure") == 204
        assert waiting.log(deployments[waiting.name], "Aborted") == 204
        assert house.status(waiting) is UpdateStatus.WITHDRAWN and not house.bad(waiting)
        for status in ("installing", "success"):
            assert started.says(deployments[started.name], status) == 204
        assert house.status(started) is UpdateStatus.APPLIED
        assert waiting.next() is None

    def test_who_has_not_started_and_stops_before_its_withdrawal_is_written_has_refused_nothing(
        self, house: House
    ) -> None:
        (waiting,) = house.fleet(1)
        house.world.apply(policy=self.ONE_FAILS)
        deployment = waiting.offered()
        house.world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        assert waiting.says(deployment, "downloading") == 409
        for _ in range(2):
            assert waiting.says(deployment, "failure") == 204
        assert (house.status(waiting), house.bad(waiting)) == (UpdateStatus.OFFERED, frozenset())
        house.world.tick()
        assert (house.status(waiting), house.bad(waiting)) == (UpdateStatus.WITHDRAWN, frozenset())

    def test_where_the_policy_cancels_who_has_started_stops_too_without_an_outcome(self, house: House) -> None:
        bad, started = house.fleet(2)
        house.world.apply(policy={**self.ONE_FAILS, "on_halt": ["withdraw", "cancel"]})
        deployments = {each.name: each.offered() for each in (bad, started)}
        started.says(deployments[started.name], "downloading")
        for status in ("downloading", "installing", "failure"):
            bad.says(deployments[bad.name], status)
        house.world.tick()
        assert started.says(deployments[started.name], "installing") == 409
        assert started.says(deployments[started.name], "failure") == 204
        assert house.status(started) is UpdateStatus.WITHDRAWN and not house.bad(started)

    def test_who_was_told_to_stop_has_not_failed_though_a_person_resumed_before_it_said_so(self, house: House) -> None:
        told, untold = house.fleet(2)
        house.world.apply(policy={**self.ONE_FAILS, "on_halt": ["withdraw", "cancel"]})
        deployments = {each.name: each.offered() for each in (told, untold)}
        for each in (told, untold):
            assert each.says(deployments[each.name], "installing") == 204
        house.world.later(MINUTE)
        house.world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        house.world.later(MINUTE)
        assert told.says(deployments[told.name], "rebooting") == 409
        house.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
        house.world.later(MINUTE)
        assert told.says(deployments[told.name], "failure") == 204
        assert (house.status(told), house.bad(told)) == (UpdateStatus.WITHDRAWN, frozenset())
        assert told.says(deployments[told.name], "failure") == 204, "sent again"
        assert untold.says(deployments[untold.name], "failure") == 204
        assert (house.status(untold), house.bad(untold)) == (UpdateStatus.FAILED, frozenset({"failed"})), (
            "nobody told it to stop"
        )

    def test_the_order_to_stop_is_kept_however_much_the_device_has_said_before(self, house: House) -> None:
        """Of a device that talks without end what moves nothing is forgotten; that it was told to stop moves nothing,
        and is not."""
        (client,) = house.fleet(1)
        house.world.apply(policy={**self.ONE_FAILS, "on_halt": ["withdraw", "cancel"]})
        deployment = client.offered()
        assert client.says(deployment, "downloading") == 204
        for _ in range(2):
            chatter = [house.world.event("noted") for _ in range(MOST_EVENTS)]
            house.world.devices.report(client.name, client.token, chatter).result(10)
        house.world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        assert client.says(deployment, "installing") == 409
        house.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
        house.restart()
        assert client.says(deployment, "failure") == 204
        assert (house.status(client), house.bad(client)) == (UpdateStatus.WITHDRAWN, frozenset())

    @pytest.mark.parametrize("started", [True, False])
    def test_who_was_told_to_stop_has_not_failed_though_the_server_was_started_anew_before_it_said_so(
        self, house: House, started: bool
    ) -> None:
        """It was told to stop by one process, a person resumed, and another process hears that it has stopped. One that
        nobody told has failed."""
        told, untold = house.fleet(2)
        house.world.apply(policy={**self.ONE_FAILS, "on_halt": ["withdraw", "cancel"]})
        deployments = {each.name: each.offered() for each in (told, untold)}
        for each in (told, untold) if started else (untold,):
            assert each.says(deployments[each.name], "downloading") == 204
        house.world.later(MINUTE)
        house.world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        for _ in range(2):
            assert told.says(deployments[told.name], "installing") == 409
        assert [code for _, code, _ in house.events(told)][started:] == ["told-to-stop"], "written down once"
        house.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
        house.restart()
        house.world.later(MINUTE)
        for _ in range(2):
            assert told.says(deployments[told.name], "failure") == 204
            assert not house.bad(told)
            house.restart()
        assert house.status(told) is UpdateStatus.WITHDRAWN
        assert untold.says(deployments[untold.name], "failure") == 204
        assert house.bad(untold) == {"download_failed"}
        again = told.offered()
        assert [told.says(again, each) for each in ("downloading", "installing", "failure")] == [204] * 3
        assert house.bad(told) == {"failed"}

    def test_who_goes_on_after_a_restart_though_it_was_told_to_stop_may_fail(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply(policy={**self.ONE_FAILS, "on_halt": ["withdraw", "cancel"]})
        deployment = client.offered()
        assert client.says(deployment, "downloading") == 204
        house.world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        assert client.says(deployment, "installing") == 409
        house.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
        house.world.later(MINUTE)
        for _ in range(2):
            house.restart()
            assert client.says(deployment, "downloading") == 204
        house.restart()
        assert client.says(deployment, "failure") == 204
        assert house.bad(client) == {"download_failed"}
        assert [kind for kind, _, _ in house.events(client)] == [
            "downloading",
            "noted",
            "downloading",
            "download_failed",
        ]

    def test_who_was_told_to_stop_and_goes_on_after_a_person_resumed_may_fail(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply(policy={**self.ONE_FAILS, "on_halt": ["withdraw", "cancel"]})
        deployment = client.offered()
        assert client.says(deployment, "downloading") == 204
        house.world.rollouts.halt("lmp-42", by="anna", reason="smoke")
        house.world.later(MINUTE)
        assert client.says(deployment, "installing") == 409
        house.world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
        house.world.later(MINUTE)
        assert client.says(deployment, "installing") == client.says(deployment, "failure") == 204
        assert (house.status(client), house.bad(client)) == (UpdateStatus.FAILED, frozenset({"failed"}))

    def test_who_succeeded_in_spite_of_it_did(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        deployment = client.offered()
        house.world.rollouts.cancel("lmp-42", by="ann")
        house.world.tick()
        assert client.says(deployment, "installing") == 409
        assert client.says(deployment, "success") == 204
        client.runs = "app-42"
        client.tell()
        assert house.status(client) is UpdateStatus.CONFIRMED

    def test_a_deployment_before_a_retry_is_over(self, house: House) -> None:
        (client,) = house.fleet(1)
        house.world.apply()
        first = client.offered()
        for status in ("downloading", "installing", "failure"):
            client.says(first, status)
        house.world.tick()
        house.world.rollouts.retry("lmp-42", [client.name], by="ann")
        house.world.rollouts.resume("lmp-42", accept=["small-wave/first_bad"], by="ann", reason="Tried by hand.")
        house.world.tick()
        second = client.offered()
        assert second != first
        assert client.says(first, "installing") == 409
        assert client.says(first, "failure") == 204
        assert house.status(client) is UpdateStatus.OFFERED
        assert client.says(second, "downloading") == 204
        assert house.status(client) is UpdateStatus.DOWNLOADING
