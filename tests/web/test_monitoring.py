"""What the package ships for Prometheus and Grafana: rules that fire when they should, a dashboard of real figures."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from orchestrator.web.families import FAMILIES
from tests.docs.generate import ROOT

SHIPPED = Path(str(files("orchestrator.web") / "monitoring"))
ALERTS, DASHBOARD = SHIPPED / "alerts.yaml", SHIPPED / "dashboard.json"
KNOWN = {family.shown for family in FAMILIES} | {
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions(board: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(board, dict):
        if isinstance(board.get("expr"), str):
            yield board["expr"]
        for each in board.values():
            yield from expressions(each)
    elif isinstance(board, list):
        for each in board:
            yield from expressions(each)


def asked_for(expression: str) -> set[str]:
    """The figures that it names."""
    without = re.sub(r'\{[^}]*\}|"[^"]*"|\[[^\]]*\]|\b(by|on|without) \([^)]*\)', " ", expression)
    words = set(re.findall(r"\b[a-z_]{2,}\b(?!\()", without))
    return words - {"and", "or", "unless", "by", "on", "sum", "max", "min", "count", "offset", "time", "rate", "vector"}


def test_the_alert_rules_are_rules_and_fire_when_they_should() -> None:
    assert "SUCCESS: 19 rules found" in promtool("check", "rules", ALERTS)
    promtool("test", "rules", Path(__file__).with_name("alerts_test.yaml"))


def test_every_alert_names_figures_that_there_are_and_says_what_to_do() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert asked_for(rule["expr"]) <= KNOWN, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "warning"}
        assert all(rule["annotations"][key].endswith(".") for key in ("summary", "description")), rule["alert"]


def test_the_dashboard_shows_figures_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text())
    found = list(expressions(board))
    assert len(found) > 30
    for each in found:
        named = asked_for(each.replace("$__rate_interval", "5m"))
        assert named and named <= KNOWN, each
    shown = {family for each in found for family in KNOWN if family in each}
    assert {name for name in KNOWN if name.startswith("wave_monitor")} - shown <= {
        "wave_monitor_places",
        "wave_monitor_bad",
        "wave_monitor_next_limit",
        "wave_monitor_amber",
        "wave_monitor_crossed",
    }


def test_the_panels_of_the_dashboard_do_not_lie_on_one_another() -> None:
    board = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_dashboard_asks_for_its_source_and_names_no_host() -> None:
    text = DASHBOARD.read_text()
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"wave", "${source}"}
    assert "://" not in text


def test_the_configuration_in_the_docs_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yml\n(.*?)```", (ROOT / "docs/metrics.md").read_text(), re.DOTALL)
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    promtool("check", "config", "--syntax-only", file)
    (scraped,) = yaml.safe_load(text)["scrape_configs"]
    assert scraped["job_name"] == "wave", "the rules know it by this name"


def test_figures_are_named_as_prometheus_would_have_them() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"wave_[a-z]+(_[a-z]+)*", family.name)
        assert not family.name.endswith("_total")
        assert family.says.endswith(".")
        assert all(re.fullmatch("[a-z]+", label) for label in family.labels)
