"""Traces, for whoever collects them by OpenTelemetry: off unless ``tracing.endpoint`` says where.

What is here is what there is when it is off: nothing. ``otlp.py`` has the same, with spans; nothing imports it, nor
anything of OpenTelemetry, before a deployment asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from customer_orders.settings import section


class Span:
    """One step of a trace; this one is none.

    ``traceparent``: its place in the trace, as W3C Trace Context has it. ``fields``: what log lines say of it.
    """

    traceparent: str | None = None
    fields: Mapping[str, str] = {}

    def tell(self, **attributes: Any) -> None:
        """Add attributes, in the names of this product; of what is None, none."""

    def fail(self, kind: str) -> None:
        """It went wrong; ``kind``: in what way, one of a few words."""

    def answered(self, method: str, route: str | None, status: int, request_id: str) -> None:
        """Of a request: how it was answered."""


NOTHING = nullcontext(Span())


class Tracing:
    """Makes spans; this one makes none."""

    def request(self, environ: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """The span of a request, for the block; it goes on with the trace of a caller who sends ``traceparent``."""
        return NOTHING

    def send(self, name: str, traceparent: str | None, **attributes: Any) -> AbstractContextManager[Span]:
        """The span of something that is sent, for the block, in the trace of the request that asked for it."""
        return NOTHING

    def hear(self, name: str, traceparent: str, heard_by: str | None, **attributes: Any) -> None:
        """A moment in a trace: something was told of it, by a request of another."""

    def watch(self, engine: Any) -> None:
        """Have the statements of an engine that a request makes be spans."""

    def stop(self) -> None:
        """Send what was not sent yet, for some seconds at most; this process ends."""


OFF = Tracing()


def includeme(config: Any) -> None:
    """Have ``registry.tracing`` do as the settings say."""
    settings = section(config.registry, "tracing")
    config.registry.tracing = OFF
    if settings.endpoint is not None:
        from customer_orders.tracing.otlp import Otlp

        config.registry.tracing = Otlp(settings)
