"""Which pages of other origins may call the API from a browser (Fetch Standard, section 3.2): ``api.cors_origins``."""

from __future__ import annotations

from typing import Any

from pyramid.events import NewResponse

from customer_orders.api.idempotency import HEADER, REPLAYED
from customer_orders.settings import section

# What a page may send, beyond what every page may.
REQUEST_HEADERS = ("Authorization", "Content-Type", HEADER, "If-Match", "If-None-Match", "X-Request-Id")
# What a page may read, beyond what every page may.
RESPONSE_HEADERS = (
    "Allow",
    "ETag",
    REPLAYED,
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
    "X-Total-Count",
    "Deprecation",
    "Sunset",
)
# Seconds for which a browser may remember the answer to its first question.
MAX_AGE = 600


def share(event: Any) -> None:
    """Let the origins of ``api.cors_origins`` read answers of the API. Credentials are none: tokens are no cookies."""
    request, headers = event.request, event.response.headers
    origins = section(request.registry, "api").cors_origins
    # the environ's path, since not every path can be decoded
    if not origins or not request.environ.get("PATH_INFO", "").startswith("/api/"):
        return
    # a cache must not hand the answer for one origin to another
    headers["Vary"] = ", ".join(filter(None, [headers.get("Vary"), "Origin"]))
    origin = request.headers.get("Origin")
    if origin not in origins:
        return
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Expose-Headers"] = ", ".join(RESPONSE_HEADERS)
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        headers["Access-Control-Allow-Methods"] = headers.get("Allow", "")
        headers["Access-Control-Allow-Headers"] = ", ".join(REQUEST_HEADERS)
        headers["Access-Control-Max-Age"] = str(MAX_AGE)


def includeme(config: Any) -> None:
    """Look at every answer, problems too: a page must be able to read what went wrong."""
    config.add_subscriber(share, NewResponse)
