"""What pages need: static files, and headers that keep a page to itself."""

from __future__ import annotations

from typing import Any

from pyramid.events import NewResponse

# Everything comes from this origin; nothing inline; nobody may frame us. data: is for Swagger UI's own icons.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def harden(event: Any) -> None:
    """Security headers on every answer; a policy on pages."""
    headers = event.response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    if event.response.content_type == "text/html":
        headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)


def includeme(config: Any) -> None:
    """Serve our static files, and Swagger UI's from the package that carries it."""
    config.add_static_view("static/swagger-ui", "swagger_ui:static", cache_max_age=3600)
    config.add_static_view("static", "customer_orders:static", cache_max_age=60)
    config.add_subscriber(harden, NewResponse)
