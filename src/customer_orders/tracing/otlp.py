"""Traces by OpenTelemetry, sent by OTLP over HTTP.

No span holds what a person or a caller wrote: routes are patterns, statements have no parameters, errors are told by
their type. Attributes are those of OpenTelemetry's semantic conventions, 1.37 or later, and ``customer_orders.*``.

Nothing waits for the receiver: spans are sent by a thread, from a queue, and lost if that is full. Queue and thread are
made by each process at its first span, so none is shared by a fork.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from threading import Lock
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import event

from customer_orders.settings import Section
from customer_orders.tracing import Span, Tracing

log = logging.getLogger(__name__)

PROPAGATOR = TraceContextTextMapPropagator()
# Seconds for which one batch is tried, and in which the rest has to go when the process ends.
TIMEOUT = 5
# Letters of a statement that are kept.
STATEMENT = 2000
PREFIX = "customer_orders."
# Where a connection keeps the span of the statement that it executes.
KEY = "customer_orders.span"


class Exporter(OTLPSpanExporter):
    """As the library's, but one that can be told when to be done."""

    until: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        if self.until is not None and time.monotonic() > self.until:
            return SpanExportResult.FAILURE
        return super().export(spans)


class OtlpSpan(Span):
    """A span of OpenTelemetry's."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
        self.traceparent = carrier["traceparent"]
        _, trace_id, span_id, _ = self.traceparent.split("-")
        self.fields = {"trace_id": trace_id, "span_id": span_id}

    def tell(self, **attributes: Any) -> None:
        """Add attributes."""
        self._span.set_attributes(_ours(attributes))

    def fail(self, kind: str) -> None:
        """Mark it."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def answered(self, method: str, route: str | None, status: int, request_id: str) -> None:
        """Name it by its route, and tell the rest."""
        self._span.update_name(f"{method} {route}" if route else method)
        self._span.set_attributes({"http.request.method": method, "http.response.status_code": status})
        if route:
            self._span.set_attribute("http.route", route)
        self.tell(request_id=request_id)
        if status >= 500:
            self.fail(str(status))


class Otlp(Tracing):
    """Spans of one application.

    :param settings: its section ``tracing``, with an endpoint.
    """

    def __init__(self, settings: Section) -> None:
        self._settings = settings
        self._by_process: dict[int, tuple[trace.Tracer, TracerProvider | None, Exporter | None]] = {}
        self._making = Lock()
        atexit.register(self.stop)

    @property
    def _tracer(self) -> trace.Tracer:
        known = self._by_process.get(os.getpid())
        if known is None:
            # no process of ours forks while it handles something
            with self._making:
                known = self._by_process.get(os.getpid()) or self._make()
                self._by_process[os.getpid()] = known
        return known[0]

    def _make(self) -> tuple[trace.Tracer, TracerProvider | None, Exporter | None]:
        try:
            return self._made()
        except Exception:
            # variables of OpenTelemetry's own can be wrong, or no thread be had: nobody goes without an answer for that
            log.exception("nothing that this process does is traced")
            return trace.NoOpTracer(), None, None

    def _made(self) -> tuple[trace.Tracer, TracerProvider, Exporter]:
        exporter = Exporter(
            endpoint=f"{self._settings.endpoint.rstrip('/')}/v1/traces",
            headers=dict(word.split("=", 1) for word in self._settings.headers),
            timeout=TIMEOUT,
            compression=Compression.Gzip,
        )
        ours = version("customer-orders")
        told = {"service.name": self._settings.service_name, "service.version": ours}
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(self._settings.sample_ratio)),
            resource=Resource.create(told),
            # as stop() does, in bounded time
            shutdown_on_exit=False,
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return provider.get_tracer("customer_orders", ours), provider, exporter

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, parent: str | None, attributes: Mapping[str, Any], links: Sequence[Link] = ()
    ) -> Iterator[Span]:
        context = PROPAGATOR.extract({} if parent is None else {"traceparent": parent}, Context())
        span = self._tracer.start_span(name, context, kind, attributes, links)
        if not span.get_span_context().is_valid:
            # there are none, by OTEL_SDK_DISABLED
            yield Span()
            return
        # what an error says may hold anything
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            told = OtlpSpan(span)
            try:
                yield told
            except BaseException as error:
                told.fail(type(error).__qualname__)
                raise

    @contextmanager
    def request(self, environ: Mapping[str, Any]) -> Iterator[Span]:
        """A server's span; ``tracestate`` and baggage of the caller's are not taken on."""
        attributes = {"url.scheme": environ["wsgi.url_scheme"]}
        with self._span("HTTP", SpanKind.SERVER, environ.get("HTTP_TRACEPARENT"), attributes) as span:
            yield span

    @contextmanager
    def send(self, name: str, traceparent: str | None, **attributes: Any) -> Iterator[Span]:
        """A client's span, a child of the request's: one order is one trace, however much later it is sent."""
        with self._span(name, SpanKind.CLIENT, traceparent, _ours(attributes)) as span:
            yield span

    def hear(self, name: str, traceparent: str, heard_by: str | None, **attributes: Any) -> None:
        """A consumer's span, a child of the first request's and linked to the one that told of it."""
        with self._span(name, SpanKind.CONSUMER, traceparent, _ours(attributes), _links(heard_by)):
            pass

    def watch(self, engine: Any) -> None:
        """Make a client's span of each statement within another span."""
        system = engine.name

        def before(connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
            if not trace.get_current_span().is_recording() or statement.startswith("PRAGMA"):
                return
            word = statement.split(maxsplit=1)[0].upper()
            told = {"db.system.name": system, "db.operation.name": word, "db.query.text": statement[:STATEMENT]}
            connection.info[KEY] = self._tracer.start_span(word, kind=SpanKind.CLIENT, attributes=told)

        def after(connection: Any, *_: Any) -> None:
            if (span := connection.info.pop(KEY, None)) is not None:
                span.end()

        def failed(context: Any) -> None:
            span = None if context.connection is None else context.connection.info.pop(KEY, None)
            if span is not None:
                OtlpSpan(span).fail(type(context.original_exception).__qualname__)
                span.end()

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)

    def stop(self) -> None:
        """Send what is queued, for twice ``TIMEOUT`` at most."""
        _, provider, exporter = self._by_process.pop(os.getpid(), (None, None, None))
        if provider is not None and exporter is not None:
            exporter.until = time.monotonic() + TIMEOUT
            provider.shutdown()


def _ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{PREFIX}{name}": value for name, value in attributes.items() if value is not None}


def _links(traceparent: str | None) -> list[Link]:
    if traceparent is None:
        return []
    context = PROPAGATOR.extract({"traceparent": traceparent}, Context())
    return [Link(trace.get_current_span(context).get_span_context())]
