"""``/metrics``: who may read it, and that every figure is the one that was counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import InvalidInput, StoreUnavailable
from orchestrator.services.application import Application
from orchestrator.services.following import followed
from orchestrator.services.measuring import Measuring
from orchestrator.services.metering import Meter
from orchestrator.services.settings import Settings
from orchestrator.serving import _scraper
from orchestrator.web import metrics
from orchestrator.web.app import operators_side
from orchestrator.web.families import FAMILIES
from orchestrator.web.following import Following
from tests.services.fleet_world import World
from tests.web.asking import ByRole

TOKEN = "scrape" * 8


class Scraped:
    """The operators' side over a small world, scraped as Prometheus does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.meter = Meter()
        app = SimpleNamespace(
            devices=world.devices, store=world.store, measuring=Measuring(world.store, world.clock), clock=world.clock
        )
        side = operators_side(cast(Application, app), doorkeeper=ByRole(), meter=self.meter, scraper=TOKEN)
        self.client = TestClient(Following(side, self.meter), raise_server_exceptions=False)

    def get(self, token: str = TOKEN, **headers: str) -> Any:
        return self.client.get("/metrics", headers={"authorization": f"Bearer {token}", **headers})

    def figures(self) -> dict[str, dict[tuple[str, ...], float]]:
        """By name, then by the values of the labels in the order of their names."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(self.get().text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels[key] for key in sorted(sample.labels))] = (
                    sample.value
                )
        return found


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_FOR", 0.0)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def scraped(world: World) -> Scraped:
    return Scraped(world)


# ------------------------------------------------------------------------------------------------- who may


def test_the_scraper_and_people_who_may_see_are_let_in_and_nobody_else(scraped: Scraped) -> None:
    assert scraped.get().status_code == 200
    assert scraped.get("viewer").status_code == 200
    assert scraped.get("approver").status_code == 200
    for wrong in ("", "nobody", TOKEN[:-1], f"{TOKEN}x", "ÿ"):
        answer = scraped.client.get("/metrics", headers={b"authorization": f"Bearer {wrong}".encode("latin-1")})
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    assert scraped.client.get("/metrics").status_code == 401
    assert scraped.client.post("/metrics").status_code == 405


def test_without_a_token_of_its_own_only_people_may() -> None:
    app = cast(Application, SimpleNamespace())
    client = TestClient(operators_side(app, doorkeeper=ByRole()))
    assert client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 401


def test_the_scrapers_token_opens_nothing_else(scraped: Scraped) -> None:
    assert scraped.client.get("/api/v1/me", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 401


def test_a_token_that_others_may_read_or_could_guess_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    settings = Settings(metrics_token_file=file)
    file.chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read it"):
        _scraper(settings)
    file.chmod(0o600)
    assert _scraper(settings) == TOKEN
    file.write_text("short")
    with pytest.raises(InvalidInput, match="fewer than 32"):
        _scraper(settings)
    assert _scraper(Settings()) is None


def test_it_speaks_the_format_that_is_asked_for(scraped: Scraped) -> None:
    assert scraped.get(accept="text/plain;version=0.0.4").headers["content-type"].startswith("text/plain")
    assert scraped.get(accept="application/openmetrics-text;version=1.0.0").text.endswith("# EOF\n")
    assert scraped.get().headers["cache-control"] == "no-store"


# ------------------------------------------------------------------------------------------------- what it says


def test_a_rollout_its_wave_and_its_monitors_as_they_are(scraped: Scraped) -> None:
    world = scraped.world
    devices = world.fleet(250)
    world.apply(policy={"tolerate": {"failed": "2%"}, "budget": {"failed": 30}})
    offered = [device for device in devices if world.check_in(device) is not None]
    world.report(offered[0], "failed")
    world.report(offered[1], "failed")
    seen = scraped.figures()
    assert seen["wave_rollout_status"] == {("lmp-42", "running", "promoted"): 1}
    assert seen["wave_rollout_devices"] == {("lmp-42",): 250}
    assert seen["wave_status"] == {("lmp-42", "open", "all"): 1}
    assert seen["wave_admitted"] == {("lmp-42", "all"): len(offered)} != {("lmp-42", "all"): 0}
    assert seen["wave_failed"] == {("failed", "lmp-42", "all"): 2}
    assert seen["wave_in_flight"] == {("lmp-42", "all"): len(offered) - 2}
    monitor = ("rollout/failed", "lmp-42")
    assert seen["wave_monitor_bad"][monitor] == 2
    assert seen["wave_monitor_places"][monitor] == seen["wave_members"]["lmp-42", "all"]
    assert 0 < seen["wave_monitor_evidence_ratio"][monitor] < 1
    assert seen["wave_monitor_margin_devices"][monitor] >= 1
    assert seen["wave_monitor_crossed"][monitor] == 0
    assert seen["wave_monitor_margin_devices"]["rollout/rolled_back", "lmp-42"] > 1, "of those that have seen nothing"
    assert seen["wave_budget_left_devices"]["failed", "lmp-42"] == 28
    assert seen["wave_offers_total"] == {(): len(offered)}
    assert seen["wave_reported_events_total"] == {("accepted",): 2, ("duplicate",): 0, ("refused",): 0}


def test_a_wave_that_waits_for_a_persons_word_is_told_apart_from_one_that_is_held(scraped: Scraped) -> None:
    world = scraped.world
    world.fleet(3)
    world.apply(waves=[{"wave": "all", "devices": "all", "policy": {"promote": "manual", "approve": {"open": 1}}}])
    key = ("lmp-42", "all")
    assert scraped.figures()["wave_awaited"] == {key: 1}
    world.rollouts.promote("lmp-42", "all", by="anna")
    world.tick()
    seen = scraped.figures()
    assert (seen["wave_awaited"], seen["wave_held"]) == ({key: 1}, {key: 0}), "now to be approved"
    world.rollouts.approve("lmp-42", by="ben", wave="all")
    world.tick()
    assert scraped.figures()["wave_awaited"] == {key: 0}


def test_a_monitor_that_has_crossed_has_no_margin_left(scraped: Scraped) -> None:
    world = scraped.world
    devices = world.fleet(250)
    world.apply(policy={"budget": {"failed": 100}})
    for device in devices:
        if world.check_in(device) is not None:
            world.report(device, "failed")
    seen = scraped.figures()
    assert seen["wave_rollout_status"] == {("lmp-42", "halted", "promoted"): 1}
    crossed = [key for key, value in seen["wave_monitor_crossed"].items() if value]
    assert crossed
    assert {seen["wave_monitor_margin_devices"][key] for key in crossed} == {0}
    assert {seen["wave_monitor_evidence_ratio"][key] for key in crossed} == {1}


def test_a_rollout_that_has_ended_drops_out(scraped: Scraped) -> None:
    scraped.world.fleet(2)
    name = scraped.world.apply()
    assert (name, "running", "promoted") in scraped.figures()["wave_rollout_status"]
    scraped.world.rollouts.cancel(name, by="anna", reason="enough")
    assert "wave_rollout_status" not in scraped.figures()


def test_a_store_that_cannot_be_read_leaves_the_counts_of_the_process(
    scraped: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> object:
        raise StoreUnavailable("The disk is gone.")

    scraped.meter.refused.count("own", "busy")
    monkeypatch.setattr(scraped.world.store, "reading", closed)
    seen = scraped.figures()
    assert seen["wave_store_up"] == {(): 0}
    assert seen["wave_refused_requests_total"] == {("own", "busy"): 1}
    assert "wave_builds" not in seen


def test_what_was_read_is_told_again_for_a_second(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_FOR", 60.0)
    assert scraped.figures()["wave_frozen"] == {(): 0}
    scraped.world.rollouts.freeze(by="anna", reason="a fire")
    assert scraped.figures()["wave_frozen"] == {(): 0}


def test_every_figure_is_in_the_table_and_has_its_labels(scraped: Scraped) -> None:
    world = scraped.world
    device = world.fleet(1)[0]
    world.apply()
    world.check_in(device)
    scraped.meter.limited = {"device": 1}
    known = {family.shown: family for family in FAMILIES}
    assert len(known) == len(FAMILIES)
    families = list(text_string_to_metric_families(scraped.get().text))
    for family in families:
        for sample in family.samples:
            if sample.name.startswith("wave_") and not sample.name.endswith("_created"):
                assert sorted(sample.labels) == sorted(known[sample.name].labels), sample.name
        assert family.name.startswith(("wave_", "process_"))
    missing = set(known) - {sample.name for family in families for sample in family.samples}
    assert missing <= {
        # what nothing has been counted of yet
        "wave_outbox_effects",
        "wave_failed",
        "wave_budget_limit_devices",
        "wave_budget_left_devices",
        "wave_refused_requests_total",
        "wave_store_errors_total",
        "wave_operators_requests_total",
        "wave_tick_last_timestamp_seconds",
        "wave_tick_last_seconds",
    }, missing


def test_what_is_markup_or_breaks_a_line_is_quoted(scraped: Scraped) -> None:
    scraped.meter.refused.count('<b>"\n\\', "x")
    assert scraped.figures()["wave_refused_requests_total"] == {('<b>"\n\\', "x"): 1}


# ------------------------------------------------------------------------------------------------- whose lines


def test_every_answer_names_its_request_and_so_does_the_log(
    scraped: Scraped, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> object:
        raise KeyError("ours")

    lines: list[dict[str, str]] = []

    class Ids(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(followed())

    ids = Ids()
    logging.getLogger("orchestrator").addHandler(ids)
    monkeypatch.setattr(scraped.world.store, "reading", broken)
    try:
        answer = scraped.get(**{"x-request-id": "from-the-proxy"})
    finally:
        logging.getLogger("orchestrator").removeHandler(ids)
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "from-the-proxy"
    assert {"request": "from-the-proxy"} in lines
    assert all(TOKEN not in record.getMessage() for record in caplog.records)
    other = scraped.client.get("/nothing", headers={"x-request-id": "not sane"})
    assert other.status_code == 404
    assert other.headers["x-request-id"] != "not sane" and len(other.headers["x-request-id"]) == 16
    assert scraped.meter.operators == {500: 1, 404: 1}
