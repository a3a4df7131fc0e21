"""Settings of traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

import colander

from customer_orders.settings import node

EXTRA = "opentelemetry.exporter.otlp.proto.http"


class Headers(colander.SchemaType):
    """``name=value``, several with commas between, values percent-encoded; as a tuple of such words, decoded.

    So OpenTelemetry has it for OTEL_EXPORTER_OTLP_HEADERS.
    """

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        """Read them. An error does not repeat them: they are secrets."""
        if cstruct is colander.null:
            return cstruct
        words = []
        for word in cstruct.split(","):
            name, equals, value = (part.strip() for part in word.partition("="))
            value = unquote(value)
            if not (name.isascii() and name.replace("-", "").isalnum() and equals and value.isprintable() and value):
                said = "write name=value, several with commas between, and in a value %2C for a comma, %25 for %"
                raise colander.Invalid(node, said)
            words.append(f"{name}={value}")
        return tuple(words)


class Ratio(colander.SchemaType):
    """A decimal from 0 to 1."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        """Read it."""
        if cstruct is colander.null:
            return cstruct
        try:
            ratio = float(cstruct)
        except ValueError:
            ratio = -1
        if not 0 <= ratio <= 1:
            raise colander.Invalid(node, f"is {cstruct!r}; write a number from 0 to 1, such as 0.1")
        return ratio


def _endpoint(node: colander.SchemaNode, value: str) -> None:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment:
        # it may hold a password where none belongs
        raise colander.Invalid(
            node, "write an address such as http://127.0.0.1:4318; secrets belong into tracing.headers"
        )


def is_installed() -> bool:
    """Whether what makes and sends spans is there: the packages of the extra ``tracing``."""
    try:
        return find_spec(EXTRA) is not None and find_spec("opentelemetry.sdk.trace") is not None
    except ModuleNotFoundError:
        return False


class Tracing(colander.MappingSchema):
    """Traces, by OpenTelemetry; see docs/logs.md."""

    endpoint = node(
        colander.String(),
        "Address of what receives traces by OTLP over HTTP, such as http://127.0.0.1:4318; /v1/traces is added to it. "
        "Blank: there are no traces.",
        missing=None,
        validator=_endpoint,
    )
    headers = node(
        Headers(),
        "Headers that it wants: name=value, several with commas between, values percent-encoded.",
        missing=(),
        secret=True,
        secrets_in=lambda words: [word.partition("=")[2] for word in words],
    )
    service_name = node(colander.String(), "What this deployment is called in traces.", missing="customer-orders")
    sample_ratio = node(
        Ratio(),
        "Part of the traces that are kept, from 0 to 1, of those that begin here: a caller who sends a traceparent has "
        "decided already.",
        missing=1.0,
    )

    def check(self, valid: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What is configured is installed."""
        if valid.get("endpoint") is not None and not is_installed():
            yield "endpoint", "needs packages that are not here: pip install 'customer-orders[tracing]'"
