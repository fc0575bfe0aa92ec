"""Traces: one from scrape to act, its context carried in Kafka headers as W3C `traceparent`.

Spans go to a file of JSON lines when one is given. The standard ``OTEL_EXPORTER_OTLP_ENDPOINT`` also sends them to a
collector, when OpenTelemetry's OTLP exporter is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_tracer = trace.get_tracer("trimtab")


def setup(service: str, spans_file: Path | None = None) -> None:
    """Starts recording spans of this process. Without it, contexts are still passed on but nothing is recorded."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if spans_file:
        provider.add_span_processor(BatchSpanProcessor(_FileExporter(spans_file), schedule_delay_millis=1000))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        with contextlib.suppress(ImportError):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextlib.contextmanager
def span(
    name: str, parent_headers: Mapping[str, bytes] | None = None, **attributes: str | int | float | bool
) -> Iterator[trace.Span]:
    """A span around a piece of work; with `parent_headers` (of a `Record`) it continues the trace that wrote the record."""
    carrier = {key: value.decode("ascii", "replace") for key, value in (parent_headers or {}).items()}
    context = propagate.extract(carrier) if carrier else None
    with _tracer.start_as_current_span(name, context=context, attributes=attributes) as current:
        yield current


def headers() -> dict[str, bytes]:
    """The current span's context as Kafka headers; empty outside a span."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {key: value.encode() for key, value in carrier.items()}


class _FileExporter(SpanExporter):
    """One JSON object a line: trace, span and parent ids, name, service, times in unix seconds, attributes."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            for item in spans:
                self._file.write(json.dumps(_plain(item)) + "\n")
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


def _plain(item: ReadableSpan) -> dict[str, object]:
    context = item.get_span_context()
    return {
        "trace": trace.format_trace_id(context.trace_id) if context else None,
        "span": trace.format_span_id(context.span_id) if context else None,
        "parent": trace.format_span_id(item.parent.span_id) if item.parent else None,
        "name": item.name,
        "service": item.resource.attributes.get("service.name"),
        "start": (item.start_time or 0) / 1e9,
        "end": (item.end_time or 0) / 1e9,
        "attributes": dict(item.attributes or {}),
    }
