"""``GET /metrics``: figures for Prometheus, made when it asks.

Nothing is kept in objects of Prometheus's while devices are served: rates come from the plain counts of this process
(``services.metering``), and what is said of rollouts from one snapshot of the store (``services.measuring``), no older
than a second, however many ask. Where the store cannot be read the counts are told all the same.

Who may ask: a person who may see, by their token, or whoever shows the one in ``metrics_token_file``. It is never open:
behind a proxy on this machine everybody would come from loopback.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib import metadata
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from orchestrator.core.roles import Role
from orchestrator.errors import WaveError
from orchestrator.services.application import Application
from orchestrator.services.devices import Devices
from orchestrator.services.measuring import Figures, RolloutFigures
from orchestrator.services.metering import Meter
from orchestrator.services.store import Store
from orchestrator.web import families as f
from orchestrator.web.asking import who
from orchestrator.web.csrf import bearer

FRESH_FOR: Final = 1.0
"""Seconds for which what was read from the store is told again."""

_log = logging.getLogger(__name__)

Sample = tuple[f.Family, tuple[str, ...], float]


class Metrics:
    """The figures of one process. ``scraper``: the token of whoever scrapes, None for nobody."""

    def __init__(self, app: Application, meter: Meter, *, scraper: str | None = None) -> None:
        self._scraper = None if scraper is None else _digest(scraper)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collecting(app, meter))
        ProcessCollector(registry=self._registry)

    def scraper(self, token: str) -> bool:
        """Whether it is the scraper's token."""
        return self._scraper is not None and hmac.compare_digest(_digest(token), self._scraper)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The text, in the format that is asked for, and its content type."""
        encode, media = choose_encoder(accept)
        return encode(self._registry), media


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Raises Unauthorized, Forbidden, TooMany."""
    found: Metrics = request.app.state.metrics
    if not found.scraper(bearer(request) or ""):
        who(request).needs(Role.VIEWER)
    text, media = found.page(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": media, "cache-control": "no-store"})


class _Collecting(Collector):
    def __init__(self, app: Application, meter: Meter) -> None:
        self._app = app
        self._meter = meter
        self._guard = threading.Lock()
        self._read_at = float("-inf")
        self._figures: Figures | None = None
        self._version = metadata.version("wave-orchestrator")

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        shown: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for family, labels, value in self._samples():
            found = shown.get(family.name)
            if found is None:
                found = shown[family.name] = _family(family)
            found.add_metric(labels, value)
        yield from shown.values()

    def _samples(self) -> Iterator[Sample]:
        figures = self._fresh()
        yield f.STORE_UP, (), figures is not None
        yield f.VERSION, (self._version,), 1
        yield from _of_the_process(self._app.devices, self._app.store, self._meter)
        if figures is not None:
            yield from _of_the_store(figures)

    def _fresh(self) -> Figures | None:
        """What the store says; None while it cannot be read."""
        with self._guard:
            if time.monotonic() - self._read_at >= FRESH_FOR:
                try:
                    self._figures = self._app.measuring.figures()
                except WaveError as error:
                    _log.warning("the store could not be read for metrics: %s", error)
                    self._figures = None
                self._read_at = time.monotonic()
            return self._figures


def _family(family: f.Family) -> GaugeMetricFamily | CounterMetricFamily:
    made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    return made(family.name, family.says, labels=family.labels)


def _of_the_process(devices: Devices, store: Store, meter: Meter) -> Iterator[Sample]:
    counters, reports, writer, ticks = devices.counters, devices.reports, devices.writer, meter.ticks
    yield f.CHECK_INS, (), counters.check_ins
    yield f.CHECK_INS_IDLE, (), counters.idle
    yield f.NOT_LET_IN, (), counters.unauthorized
    yield f.OFFERS, (), devices.check_ins.offers
    yield f.EVENTS, ("accepted",), reports.accepted
    yield f.EVENTS, ("duplicate",), reports.duplicates
    yield f.EVENTS, ("refused",), reports.refused
    for (door, kind), count in sorted(dict(meter.refused.counts).items()):
        yield f.REFUSED, (door, kind), count
    for (_, kind), count in sorted(dict(meter.beside.counts).items()):
        yield f.REFUSED, ("operators", kind), count
    for limit, count in sorted(meter.limited.items()):
        yield f.LIMITED, (limit,), count
    yield f.IN_MEMORY, (), devices.in_memory
    yield f.WRITER_WAITING, (), writer.waiting
    yield f.WRITER_MOST, (), writer.most_waiting
    yield f.WRITER_ALIVE, (), writer.alive
    yield f.WRITER_BATCHES, (), writer.batches
    yield f.WRITER_ITEMS, (), writer.items
    yield f.PRESSURE, (), devices.pressure.counts
    yield f.LATE, (), meter.late_seconds
    for result, count in (("done", ticks.done), ("elsewhere", ticks.elsewhere), ("failed", ticks.failed)):
        yield f.TICKS, (result,), count
    if ticks.last_at is not None:
        yield f.TICK_AT, (), ticks.last_at.timestamp()
        yield f.TICK_SECONDS, (), ticks.seconds
    yield f.TICK_DECISIONS, (), ticks.decided
    yield f.TICK_PROBLEMS, (), ticks.problems
    for error, count in sorted(store.failures().items()):
        yield f.STORE_ERRORS, (error,), count
    for code, count in sorted(dict(meter.operators).items()):
        yield f.OPERATORS, (str(code),), count


def _of_the_store(figures: Figures) -> Iterator[Sample]:
    yield f.ROLLOUTS_LEFT_OUT, (), figures.left_out
    yield f.FROZEN, (), figures.frozen
    for status, count in figures.builds.items():
        yield f.BUILDS, (status,), count
    for kind, count in sorted(figures.effects.items()):
        yield f.EFFECTS, (kind,), count
    yield f.EFFECTS_FAILING, (), figures.failing
    yield f.MESSAGES_WAITING, (), figures.messages.waiting
    yield f.MESSAGES_FAILING, (), figures.messages.failing
    yield f.MESSAGES_DEAD, (), figures.messages.dead
    for rollout in figures.rollouts:
        yield from _of_a_rollout(rollout)


def _of_a_rollout(rollout: RolloutFigures) -> Iterator[Sample]:
    name = rollout.name
    yield f.ROLLOUT_STATUS, (name, rollout.tag, rollout.status), 1
    yield f.ROLLOUT_SINCE, (name,), rollout.since.timestamp()
    yield f.ROLLOUT_TARGET, (name,), rollout.target
    yield f.ROLLOUT_DEVICES, (name,), rollout.devices
    for wave in rollout.waves:
        key, facts, deltas = (name, wave.state.wave), wave.facts, wave.facts.deltas
        yield f.WAVE_STATUS, (*key, wave.state.status), 1
        yield f.WAVE_HELD, key, wave.state.hold is not None
        yield f.WAVE_AWAITED, key, wave.awaited
        yield f.MEMBERS, key, facts.members
        yield f.WAITING, key, facts.waiting
        yield f.ADMITTED, key, facts.offered
        yield f.IN_FLIGHT, key, facts.in_flight
        yield f.CONFIRMED, key, facts.confirmed
        for outcome in facts.bad_classes:
            yield f.FAILED, (*key, outcome), facts.bad(outcome)
        if deltas is not None:
            yield f.DELTAS_REQUIRED, key, deltas.pairs
            yield f.DELTAS_READY, key, deltas.ready
            yield f.DELTAS_FAILED, key, deltas.failed
            yield f.DELTAS_COVERED, key, deltas.coverage
    for monitor in rollout.monitors:
        of = (name, monitor.facts.monitor)
        yield f.MONITOR_PLACES, of, monitor.facts.places
        yield f.MONITOR_BAD, of, monitor.facts.bad
        yield f.MONITOR_EVIDENCE, of, monitor.evidence
        yield f.MONITOR_MARGIN, of, monitor.margin
        yield f.MONITOR_LIMIT, of, monitor.facts.next_limit
        yield f.MONITOR_AMBER, of, monitor.facts.amber
        yield f.MONITOR_CROSSED, of, monitor.facts.crossed_at is not None
    for budget in rollout.budgets:
        yield f.BUDGET_LIMIT, (name, budget.name), budget.limit
        yield f.BUDGET_LEFT, (name, budget.name), max(0, budget.limit - (budget.bad - budget.base))
