"""A collector of traces on this machine: takes OTLP over HTTP, and keeps what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.loopback import answering


@dataclass(frozen=True)
class Told:
    """One span. ``parent`` empty: it begins a trace. ``events`` by name."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    facts: dict[str, Any]
    events: dict[str, dict[str, Any]]
    failed: str
    seconds: float


@dataclass
class Collector:
    """``status`` is what it answers."""

    url: str = ""
    status: int = 200
    spans: list[Told] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)

    def named(self, name: str) -> list[Told]:
        return [each for each in self.spans if each.name == name]

    def take(self, body: bytes) -> None:
        asked = ExportTraceServiceRequest()
        asked.ParseFromString(body)
        for resource in asked.resource_spans:
            self.about |= _facts(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_told(each) for each in scope.spans]


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _told(span: Any) -> Told:
    return Told(
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        facts=_facts(span.attributes),
        events={each.name: _facts(each.attributes) for each in span.events},
        failed=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else "",
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.paths.add(self.path)
            if made.status == 200:
                made.take(body)
            self.send_response(made.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

    with answering(Handler) as made.url:
        yield made
