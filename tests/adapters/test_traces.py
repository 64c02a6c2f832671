"""Traces as a real collector gets them: requests, ticks, decisions, gates, builds and deliveries, and what they belong
to. Without the setting there is none, and nothing of it is imported."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Kind

from orchestrator.adapters.gates.asking import FileSources
from orchestrator.adapters.notify.sender import DestinationSender
from orchestrator.adapters.scheduler import TickScheduler
from orchestrator.adapters.traces import OpenTelemetry
from orchestrator.bootstrap import traced
from orchestrator.core.gates import Gate, GateAnswer
from orchestrator.errors import StoreUnavailable, Unavailable
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.own import OwnDoor
from orchestrator.services import tracing
from orchestrator.services.application import Application
from orchestrator.services.builder import Builder
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.following import followed
from orchestrator.services.gatekeeping import Gatekeeper, Question, answers
from orchestrator.services.measuring import Measuring
from orchestrator.services.metering import Meter
from orchestrator.services.notices import Notices
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.settings import Settings
from orchestrator.web.app import operators_side
from orchestrator.web.following import Following
from tests.adapters.notify.receiver import receiving
from tests.adapters.otlp import Collector, Told, collecting
from tests.gateway.own_door import Door
from tests.services.fake_provider import FakeProvider, commit
from tests.services.fleet_world import World
from tests.web.asking import ByRole

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


class Traced:
    """Traces are on inside; afterwards all of them have come."""

    def __init__(self, collector: Collector) -> None:
        self.inside = traced(Settings(traces=collector.url))

    def __enter__(self) -> None:
        self.inside.__enter__()

    def __exit__(self, *ended: Any) -> None:
        self.inside.__exit__(None, None, None)


def only(found: list[Told]) -> Told:
    (one,) = found
    return one


class Lines(logging.Handler):
    """Whose each line was."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[tuple[str, dict[str, str]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.ids.append((record.getMessage(), followed()))

    def of(self, words: str) -> dict[str, str]:
        return next(ids for said, ids in self.ids if words in said)


@pytest.fixture
def lines() -> Iterator[Lines]:
    found, log = Lines(), logging.getLogger("orchestrator")
    log.addHandler(found)
    before = log.level
    log.setLevel(logging.INFO)
    yield found
    log.setLevel(before)
    log.removeHandler(found)


# ------------------------------------------------------------------------------------------------- off, and away


def test_nothing_of_it_is_imported_where_nobody_asked_for_it() -> None:
    code = """
import sys
from orchestrator.bootstrap import traced
from orchestrator.core.gates import Gate, GateAnswer
from orchestrator.services.settings import Settings
import orchestrator.serving, orchestrator.web.app, orchestrator.web.following, orchestrator.gateway.app
import orchestrator.adapters.scheduler, orchestrator.adapters.notify.courier, orchestrator.services.builder
with traced(Settings()):
    pass
found = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
assert not found and "orchestrator.adapters.traces" not in sys.modules, found
sys.modules["opentelemetry.exporter"] = None
try:
    with traced(Settings(traces="http://127.0.0.1:4318")):
        pass
except Exception as refused:
    print(type(refused).__name__, refused)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("InvalidInput The setting traces needs OpenTelemetry, and opentelemetry.exporter")
    assert "pip install 'wave-orchestrator[traces]'" in ran.stdout


def test_off_a_span_is_one_and_the_same_nothing() -> None:
    assert not tracing.on()
    with tracing.span("tick") as one, tracing.span("decision") as other:
        assert one is other and one.trace == ""
    assert tracing.carried() == "" and tracing.carried_headers() == {}
    tracing.switch_off()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_collector_that_is_away_costs_nobody_anything() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # it takes what is sent and says nothing
        begun = time.monotonic()
        with traced(Settings(traces=f"http://127.0.0.1:{silent.getsockname()[1]}")):
            for _ in range(5_000):
                with tracing.span("tick"):
                    pass
            assert time.monotonic() - begun < 3
        assert time.monotonic() - begun < 9
    assert not tracing.on()
    for thread in threading.enumerate():
        if thread.name == "traces":
            thread.join(15)
            assert not thread.is_alive()


def test_the_address_is_the_settings_or_the_environments(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "wave-emea")
    with traced(Settings(traces="environment")), tracing.span("tick"):
        pass
    assert collector.about["service.name"] == "wave-emea" and collector.paths == {"/v1/traces"}
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with traced(Settings(traces=f"{collector.url}/")), tracing.span("tick"):
        pass
    assert collector.about["service.name"] == "wave" and collector.about["service.version"]
    assert len(collector.named("tick")) == 2


def test_who_samples_fewer_still_has_an_id_for_the_log(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with traced(Settings(traces=collector.url)), tracing.span("tick") as span:
        assert len(span.trace) == 32
        assert tracing.carried().endswith("-00")
    assert collector.spans == []


def test_an_error_of_ours_is_told_by_its_sentence_and_anothers_by_its_kind(collector: Collector) -> None:
    with Traced(collector):
        for error in (Unavailable("The receiver answered 503."), ValueError("password=hunter2")):
            with pytest.raises(type(error)), tracing.span("tick"):
                raise error
    assert [each.failed for each in collector.spans] == ["The receiver answered 503.", "ValueError"]
    assert "hunter2" not in repr(collector.spans)


# ------------------------------------------------------------------------------------------------- requests


def operators(world: World) -> TestClient:
    app = SimpleNamespace(
        devices=world.devices, store=world.store, measuring=Measuring(world.store, world.clock), clock=world.clock
    )
    side = operators_side(cast(Application, app), doorkeeper=ByRole(), meter=(meter := Meter()), scraper="s" * 32)
    return TestClient(Following(side, meter), raise_server_exceptions=False)


def test_a_request_goes_on_from_who_asks_and_its_id_is_the_traces(collector: Collector, world: World) -> None:
    client = operators(world)
    with Traced(collector):
        headers = {"traceparent": PARENT, "x-request-id": "from-the-proxy", "authorization": "Bearer viewer"}
        answer = client.get("/api/v1/me", headers=headers)
        assert answer.headers["x-request-id"] == TRACE
        other = client.get("/nothing", headers={"traceparent": "00-zz-zz-01"})
        assert len(other.headers["x-request-id"]) == 32 and other.headers["x-request-id"] != TRACE
        client.get("/metrics", headers={"authorization": "Bearer " + "s" * 32})
    span = only(collector.named("GET /api/v1/me"))
    assert (span.trace, span.parent, span.kind) == (TRACE, "00f067aa0ba902b7", Kind.SPAN_KIND_SERVER)
    assert span.facts["http.response.status_code"] == answer.status_code
    assert span.facts["http.request.header.x-request-id"] == "from-the-proxy"
    assert len(collector.spans) == 2, "whoever scrapes is no news"
    assert "viewer" not in repr(collector.spans)


def test_what_fails_inside_a_request_is_a_failure_of_its_span(
    collector: Collector, world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = operators(world)
    monkeypatch.setattr(world.store, "reading", lambda: 1 / 0)
    with Traced(collector):
        answer = client.get("/api/v1/rollouts", headers={"authorization": "Bearer viewer"})
    span = only(collector.spans)
    assert answer.status_code == 500 and span.failed
    assert span.facts["http.response.status_code"] == 500
    assert {"request": span.trace} in [ids for _, ids in lines.ids]


def test_an_idle_check_in_has_no_span_and_what_touches_the_store_has(collector: Collector, world: World) -> None:
    (device,) = world.fleet(1)
    door = Door(world, Gateway([OwnDoor(world.devices)]))
    assert door.check_in(device).status_code == 200
    with Traced(collector):
        for _ in range(5):
            assert door.check_in(device).status_code == 200
        event = {"id": "e", "rollout": "nothing", "target": 42, "event": "failed"}
        assert door.post(device, "reports", {"events": [event]}).status_code == 200
        world.devices.writer.close()
    told = only(collector.named("device"))
    assert told.facts == {"http.request.method": "POST", "url.path": f"/v1/devices/{device}/reports"}
    assert told.parent == "" and told.kind == Kind.SPAN_KIND_SERVER
    assert [each.facts["wave.items"] for each in collector.named("write")] == [1]


def test_a_device_chooses_no_trace(collector: Collector, world: World) -> None:
    (device,) = world.fleet(1)
    door = Door(world, Gateway([OwnDoor(world.devices)]))
    headers = {"authorization": f"Bearer {world.tokens[device]}", "traceparent": PARENT, "x-request-id": TRACE}
    with Traced(collector):
        assert door.ask("POST", f"/v1/devices/{device}/reports", json={"events": []}, headers=headers).status_code < 500
        world.devices.writer.close()
    assert TRACE not in {each.trace for each in collector.spans}


# ------------------------------------------------------------------------------------------------- what nobody asks


def test_a_tick_its_decisions_a_gate_and_what_is_told_of_it_are_one_trace(
    collector: Collector, world: World, tmp_path: Path, lines: Lines
) -> None:
    """A policy asks a webhook before its wave opens, and has the opening told to another: both are given the trace."""
    secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD7w8Wu0JuYkY="
    with receiving() as desk, receiving() as hook:
        for name, text in (
            ("gates.yaml", f"desk: {{webhook: '{desk.url}'}}\n"),
            ("destinations.yaml", f"release: {{webhook: '{hook.url}/hook/TOKEN', secret: {secret}}}\n"),
        ):
            (tmp_path / name).touch(mode=0o600)
            (tmp_path / name).write_text(text)
        sources = FileSources(tmp_path / "gates.yaml")
        sender = DestinationSender(tmp_path / "destinations.yaml")
        world.rollouts = Rollouts(world.store, world.clock, destinations=sender.names, sources=sources.kinds)
        world.ticker.ask = Gatekeeper(world.store, sources, world.clock, later=lambda work: work()).ask
        world.fleet(3)
        with Traced(collector):
            asks = [{"gate": "tickets", "asks": "desk", "at_most": "1m", "otherwise": "open"}]
            notify = [{"to": "release", "on": ["opened"]}]
            world.apply(policy={"gates": asks, "notify": notify}, start=False)
            world.rollouts.start("lmp-42", by="anna")
            ticker = scheduler(world)
            ticker._run()
            world.now += world_minutes(2)
            ticker._run()
            hook.status = 503
            notices = Notices(world.store, sender, world.clock, None, lambda: 0.5)
            assert notices.deliver().failed == 1
            hook.status = 200
            world.now += world_minutes(60)
            assert notices.deliver().sent == 1
    ticks = collector.named("tick")
    assert len(ticks) == 2 and all(each.parent == "" for each in ticks)
    first, second = ticks
    asked = collector.named("gate")[0]
    assert (asked.trace, asked.kind) == (first.trace, Kind.SPAN_KIND_CLIENT)
    assert asked.facts == {
        "wave.gate": "tickets",
        "wave.source": "desk",
        "wave.rollout": "lmp-42",
        "wave.wave": "all",
        "wave.answer": "no_data",
    }
    assert desk.came[0][0]["traceparent"] == f"00-{asked.trace}-{asked.id}-01"
    opening = only([each for each in collector.named("decision") if "OpenWave" in each.events])
    assert opening.trace == second.trace and opening.facts["wave.rollout"] == "lmp-42"
    assert opening.events["OpenWave"]["wave.wave"] == "all"
    failed, sent = collector.named("delivery")
    assert failed.trace == sent.trace == second.trace, "the message belongs to the tick that decided"
    assert failed.failed == "The receiver answered 503." and sent.failed == ""
    assert [headers["traceparent"].split("-")[1:3] for headers, _ in hook.came] == [
        [each.trace, each.id] for each in (failed, sent)
    ]
    assert b"traceparent" not in hook.came[0][1] and second.trace.encode() not in hook.came[0][1]
    assert lines.of("message 1 to release is tried again") == {"delivery": second.trace}
    assert "TOKEN" not in repr(collector.spans) and "127.0.0.1" not in repr(collector.spans)


def test_a_program_that_is_asked_is_given_the_trace_and_none_that_the_server_was_started_with(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-11111111111111111111111111111111-2222222222222222-01")
    file = tmp_path / "gates.yaml"
    file.touch(mode=0o600)
    file.write_text("""desk: {command: [/bin/sh, -c, 'echo "told ${TRACEPARENT-nothing}"']}\n""")
    gate = Gate.parse({"gate": "tickets", "asks": "desk"})
    question = Question(gate, "lmp-42", "all", 42, "promoted")
    with Traced(collector):
        (traced,) = answers(FileSources(file), [question])
    (untraced,) = answers(FileSources(file), [question])
    asked = only(collector.named("gate"))
    assert traced == (GateAnswer.YES, f"told 00-{asked.trace}-{asked.id}-01")
    assert untraced == (GateAnswer.YES, "told nothing")


def scheduler(world: World) -> TickScheduler:
    return TickScheduler(
        world.ticker, world.store, world.clock, at_most=world_minutes(1), lease=world_minutes(1), owner="one"
    )


def world_minutes(many: int) -> Any:
    from datetime import timedelta

    return timedelta(minutes=many)


def test_a_build_is_a_trace_of_its_own_and_its_lines_carry_it(
    collector: Collector, world: World, tmp_path: Path, lines: Lines
) -> None:
    provider = FakeProvider(tmp_path, [commit(5), commit(9)])
    pair = DeltaPair(commit(5), commit(9))
    with world.store.writing() as w:
        w.queue_builds({pair: 1.0}, now=world.now, again=True)
    with Traced(collector):
        assert Builder(world.store, provider, world.clock, owner="b1").work_once(SimpleNamespace(is_set=bool))
    span = only(collector.spans)
    assert (span.name, span.parent) == ("build", "")
    assert span.facts["wave.to"] == commit(9) and span.facts["wave.bytes"] > 0
    assert lines.of("builder b1 builds") == {"build": span.trace}


def test_a_line_about_a_device_carries_the_trace_of_its_request(
    collector: Collector, world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> object:
        raise StoreUnavailable("The disk is gone.")

    (device,) = world.fleet(1)
    door = Door(world, Gateway([OwnDoor(world.devices)]))
    event = {"id": "e", "rollout": "nothing", "target": 42, "event": "failed"}
    with Traced(collector):
        with monkeypatch.context() as broken:
            broken.setattr(world.store, "writing", closed)
            assert door.post(device, "reports", {"events": [event]}).status_code == 503
        world.devices.writer.close()
    told = only(collector.named("device"))
    assert told.failed == "The disk is gone."
    assert lines.of("a request could not be answered") == {"request": told.trace}


def test_without_traces_whatever_writes_a_line_has_an_id_all_the_same(
    world: World, tmp_path: Path, lines: Lines
) -> None:
    provider = FakeProvider(tmp_path, [commit(5), commit(9)])
    with world.store.writing() as w:
        w.queue_builds({DeltaPair(commit(5), commit(9)): 1.0}, now=world.now, again=True)
    assert Builder(world.store, provider, world.clock, owner="b1").work_once(SimpleNamespace(is_set=bool))
    world.rollouts = Rollouts(world.store, world.clock, destinations=lambda: ("nobody",))
    world.fleet(1)
    world.apply(policy={"notify": [{"to": "nobody", "on": ["started"]}]})
    Notices(world.store, DestinationSender(tmp_path / "none.yaml"), world.clock, None, lambda: 0.5).deliver()
    (build, one), (delivery, other) = (
        next(iter(lines.of(words).items())) for words in ("builder b1 builds", "is tried again")
    )
    assert (build, delivery) == ("build", "delivery")
    assert one != other and len(one) == len(other) == 16


def test_a_span_may_end_twice(collector: Collector) -> None:
    tracer = OpenTelemetry(collector.url, environment={})
    with tracer.begin("GET", {}, side=tracing.Side.ASKED, parent="", trace="") as span:
        span.end()
    tracer.close()
    assert len(collector.spans) == 1
