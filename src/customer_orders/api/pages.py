"""What pages need: static files, and headers that keep every answer to itself, whoever makes it."""

from __future__ import annotations

from typing import Any

from pyramid.events import NewResponse
from pyramid.httpexceptions import HTTPException

from customer_orders.settings import section

# Directives that default-src does not stand in for; nobody may frame us (Content Security Policy Level 3).
ALONE = ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'")
# Everything comes from this origin, and nothing is inline.
OURS = (
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
)

# An answer that is no page loads nothing, also when a browser is made to show it as one.
ANSWER = "; ".join((*ALONE, "form-action 'none'", "sandbox"))
# A script of ours that would make markup of text is stopped by the browser, too (Trusted Types).
PAGE = "; ".join((*ALONE, *OURS, "img-src 'self'", "require-trusted-types-for 'script'", "trusted-types 'none'"))
# Swagger UI draws its icons from data: URLs, and makes markup of what it has cleaned itself.
SWAGGER_UI = "; ".join((*ALONE, *OURS, "img-src 'self' data:"))

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # this is about <img> and <script> on pages of others; api.cors_origins is about fetch(), and is not affected
    "Cross-Origin-Resource-Policy": "same-origin",
    # what a page asks for of its own accord, the clipboard, is not in it
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def harden(event: Any) -> None:
    """Security headers on every answer. A view's own do not count: a plugin's page lives by the same rules."""
    request, response = event.request, event.response
    headers = response.headers
    headers.update(HEADERS)
    # what an HTTPException says, of a redirect say, is Pyramid's few words
    is_page = response.content_type == "text/html" and not isinstance(response, HTTPException)
    policy = getattr(getattr(request, "current_service", None), "policy", PAGE) if is_page else ANSWER
    headers["Content-Security-Policy"] = policy
    app = section(request.registry, "app")
    if app.hsts_seconds and app.public_url.startswith("https:"):
        headers["Strict-Transport-Security"] = f"max-age={app.hsts_seconds}"
    # pages have names, states and tokens in them, and so has a cookie
    if is_page or "Set-Cookie" in headers:
        headers["Cache-Control"] = "no-store"


def includeme(config: Any) -> None:
    """Serve our static files, and Swagger UI's from the package that carries it."""
    config.add_static_view("static/swagger-ui", "swagger_ui:static", cache_max_age=3600)
    config.add_static_view("static", "customer_orders:static", cache_max_age=60)
    config.add_subscriber(harden, NewResponse)
