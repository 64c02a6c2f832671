"""Traces over OpenTelemetry: OTLP over HTTP to one collector. Imported only where the setting ``traces`` asks for it.

Spans are sent in batches by a thread of its own. A collector that is away costs nobody anything: what cannot be sent is
dropped, and the log says so. How many are recorded is OpenTelemetry's own business, ``OTEL_TRACES_SAMPLER`` and its
like in the environment.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Mapping
from contextvars import ContextVar, Token
from importlib import metadata
from types import TracebackType
from typing import Final

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.errors import WaveError
from orchestrator.services.tracing import NO_FACTS, Facts, Side, Span

PATH: Final = "/v1/traces"
"""Below a collector's address, as OTLP has it."""

SERVICE: Final = "wave"

END_WITHIN: Final = 5.0
"""Seconds for which the end of the process waits for a collector."""

_KINDS: Final = {
    Side.INSIDE: trace.SpanKind.INTERNAL,
    Side.ASKED: trace.SpanKind.SERVER,
    Side.ASKS: trace.SpanKind.CLIENT,
}
_CARRIED: Final = TraceContextTextMapPropagator()
_PARENT: Final = "traceparent"

_wanted: ContextVar[int] = ContextVar("wanted", default=0)
"""The id that a trace which begins now shall have; 0 for any."""


class _Ids(IdGenerator):
    """Ids of which nothing can be told, and none of the system's time or of Python's chance."""

    def generate_trace_id(self) -> int:
        return _wanted.get() or secrets.randbits(128) or 1

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1


class OpenTelemetrySpan:
    """A span of OpenTelemetry's."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._under_way: Token[context.Context] | None = None

    @property
    def trace(self) -> str:
        found = self._span.get_span_context().trace_id
        return trace.format_trace_id(found) if found else ""

    def note(self, facts: Facts) -> None:
        self._span.set_attributes(dict(facts))

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def event(self, name: str, facts: Facts = NO_FACTS) -> None:
        self._span.add_event(name, dict(facts))

    def failed(self, why: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, why)

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()

    def __enter__(self) -> OpenTelemetrySpan:
        self._under_way = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._under_way is not None:
            context.detach(self._under_way)
        if error is not None and self._span.is_recording():
            self.failed(str(error) if isinstance(error, WaveError) else type(error).__name__)
        self.end()


class OpenTelemetry:
    """The tracer. ``exporter`` is what a test may have it use instead."""

    def __init__(
        self, address: str | None, *, environment: Mapping[str, str], exporter: SpanExporter | None = None
    ) -> None:
        """``address``: of the collector, without the path; None: as ``OTEL_EXPORTER_OTLP_…`` in the environment has
        it."""
        named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        about = {"service.version": metadata.version("wave-orchestrator")}
        self._provider = TracerProvider(
            resource=Resource.create(about if named else {"service.name": SERVICE, **about}),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        endpoint = None if address is None else address.rstrip("/") + PATH
        self._exporter = exporter or OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("orchestrator", about["service.version"])

    def begin(self, name: str, facts: Facts, *, side: Side, parent: str | None, trace: str) -> Span:
        above = None if parent is None else _CARRIED.extract({_PARENT: parent}, context.Context())
        wanted = _wanted.set(_id(trace))
        try:
            span = self._tracer.start_span(name, above, _KINDS[side], dict(facts), record_exception=False)
        finally:
            _wanted.reset(wanted)
        return OpenTelemetrySpan(span)

    def carried(self) -> str:
        carrier: dict[str, str] = {}
        _CARRIED.inject(carrier)
        return carrier.get(_PARENT, "")

    def close(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(END_WITHIN)
        if ending.is_alive():
            logging.getLogger(__name__).warning("the collector of traces did not take the last ones in time")
            self._exporter.shutdown()  # nothing is tried again


def _id(text: str) -> int:
    try:
        return int(text, 16) if len(text) == 32 else 0
    except ValueError:
        return 0


def tracer(wanted: str) -> OpenTelemetry:
    """The one that the setting asks for: ``environment``, or a collector's address."""
    return OpenTelemetry(None if wanted == "environment" else wanted, environment=os.environ)
