"""A real Prometheus scrapes a real ``wave serve`` and answers what the docs, the dashboard and the alert rules ask."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.faults import House
from tests.e2e.faulty_fleet import ask
from tests.e2e.prometheus import prometheus
from tests.loopback import free_port
from tests.waiting import until
from tests.web.test_monitoring import ALERTS, DASHBOARD, expressions

pytestmark = pytest.mark.e2e

TOKEN = "0123456789abcdef" * 4

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: wave
    authorization: {{credentials_file: {token}}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: stranger
    metrics_path: /metrics
    authorization: {{credentials: guessed}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
rule_files: [{alerts}]
"""


def test_prometheus_scrapes_and_answers(house: House, tmp_path: Path) -> None:
    token = house.root / "metrics-token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    console = free_port()
    house.settings(more=f"console_port: {console}\nmetrics_token_file: metrics-token\nbuilders: 0\nlog: json")
    server = house.serve()
    house.begin()
    device, secret = next(iter(house.tokens.items()))
    assert ask(house.port, f"/v1/devices/{device}/check-in", {}, secret)[0] == 200
    assert ask(house.port, f"/v1/devices/{device}/check-in", {}, "another")[0] == 401
    with prometheus(tmp_path, CONFIG.format(token=token, port=console, alerts=ALERTS)) as asked:
        until("it has scraped", lambda: asked.values('wave_rollout_status{rollout="r3",status="running"}') == [1])
        assert asked.values('wave_refused_requests_total{door="own",kind="unauthorized"}') == [1]
        assert asked.values("wave_check_ins_total") == [1]
        assert asked.values("wave_store_up") == [1]
        assert asked.values("sum(wave_status{rollout='r3'})") == [3], "one status for each wave"
        assert asked.values("time() - wave_tick_last_timestamp_seconds < 30")
        assert asked.values('up{job="wave"}') == [1]
        until("who guesses was refused", lambda: asked.values('up{job="stranger"}') == [0])
        board = json.loads(DASHBOARD.read_text())
        for each in expressions(board):
            asked.asked("query", query=each.replace("$__rate_interval", "1m").replace("$rollout", ".*"))
        until("the rules were evaluated", lambda: all_evaluated(asked.asked("rules")))
    server.stop()
    lines = [json.loads(line) for line in server.said().splitlines()]
    assert all({"at", "level", "logger", "message"} <= set(line) for line in lines)
    assert TOKEN not in server.said() and secret not in server.said()


def all_evaluated(found: dict[str, list[dict[str, list[dict[str, str]]]]]) -> bool:
    rules = [rule for group in found["groups"] for rule in group["rules"]]
    assert not [rule["lastError"] for rule in rules if rule.get("lastError")]
    return len(rules) == 19 and all(rule["health"] == "ok" for rule in rules)


GATED = """policy: gated
tolerate: {failed: 2%}
deltas: {within: 0s, otherwise: full}
gates:
  - {gate: scraped, asks: prometheus, query: 'up{job="wave"}', above: 0.5, every: 5s}
  - {gate: refused, asks: prometheus, query: 'wave_refused_requests_total{door="own"}', below: 3, every: 5s}
"""

ROLLOUT = """rollout: r3
target: 3
tag: main
policy: ./gated.yaml
waves: [{wave: all, devices: all}]
"""


def test_a_real_prometheus_lets_a_wave_open_once_it_has_data_that_is_good(house: House, tmp_path: Path) -> None:
    token = house.root / "metrics-token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    console = free_port()
    house.settings(more=f"console_port: {console}\nmetrics_token_file: metrics-token\nbuilders: 0")
    house.file("gated.yaml", GATED)
    house.file("rollout.yaml", ROLLOUT)
    assert "no source is called so" in house.fails(3, "apply", "rollout.yaml")
    with prometheus(tmp_path, CONFIG.format(token=token, port=console, alerts=ALERTS)) as asked:
        (house.root / "gates.yaml").touch(mode=0o600)
        house.file("gates.yaml", f"prometheus: {{promql: {asked.url}}}")
        server = house.serve()
        house.ok("apply", "rollout.yaml", "--start")
        tried = house.ok("gate", "ask", "gated.yaml").out
        assert "refused: no data (the query finds nothing)" in tried and asked.url not in tried
        wait = partial(until, within=60.0, alive=server, every=0.3)
        wait("no data is no yes", lambda: said(house, "refused") == ["no_data"])
        assert wave_of(house)["status"] == "preparing"
        assert ask(house.port, "/v1/devices/nobody/check-in", {}, "another")[0] == 401
        wait("it opens by itself", lambda: wave_of(house)["status"] == "open")
        assert said(house, "refused") == ["no_data", "yes"]
        tried = house.ok("gate", "ask", "gated.yaml", "--rollout", "r3").out
        assert tried.count(": yes (") == 2 and "Its gates would let the wave open." in tried
        assert said(house, "refused") == ["no_data", "yes"], "a try is written down nowhere"
        house.ok("replay", "r3")
        house.ok("journal", "verify", "r3")
    server.stop()


def said(house: House, gate: str) -> list[str]:
    """What the gate said, as the journal has it."""
    facts = house.rows("SELECT facts FROM journal WHERE event = 'gate_answered' ORDER BY seq")
    found = [json.loads(each)["gate"] for (each,) in facts]
    return [each["answer"] for each in found if each["gate"] == gate]


def wave_of(house: House) -> dict[str, str]:
    (state,) = house.rows("SELECT state FROM rollout WHERE name = 'r3'")[0]
    found: dict[str, str] = json.loads(state)["waves"][0]
    return found
