"""Every 4xx and 5xx of every path as ``application/problem+json`` (RFC 9457), from the table in ``catalogue.py``.

The only place that knows both the kinds of domain error and HTTP.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPException, HTTPForbidden, HTTPMethodNotAllowed, HTTPNotFound
from pyramid.renderers import render
from pyramid.response import Response
from pyramid_retry import IRetryableError

from customer_orders import errors
from customer_orders.api.catalogue import BY_STATUS, PROBLEMS
from customer_orders.db import is_unreachable, lacks_schema
from customer_orders.settings import section

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


def wants_page(request: Any) -> bool:
    """Whether a person looks at this with a browser: not on the API, and only if HTML is preferred."""
    service = getattr(request, "current_service", None)
    outside = not request.environ.get("PATH_INFO", "").startswith("/api/")
    return (getattr(service, "page", False) or outside) and prefers_html(request)


def prefers_html(request: Any) -> bool:
    """Whether the Accept header names HTML before JSON; no header, or ``*/*``, means JSON."""
    offers = request.accept.acceptable_offers(["application/json", "text/html"])
    return bool(offers) and offers[0][0] == "text/html"


def body(request: Any, code: str, detail: str, request_id: str) -> dict[str, Any]:
    """A problem as JSON (RFC 9457, section 3.1); ``code`` and ``request_id`` are extension members."""
    problem = PROBLEMS[code]
    return {
        "type": f"{section(request.registry, 'app').public_url}/problems/{code}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }


def respond(request: Any, code: str, detail: str, *, headers: Any = (), **members: Any) -> Response:
    """The response for a problem. ``members`` are extension members (RFC 9457, section 3.2)."""
    problem = PROBLEMS[code]
    response = Response(status=problem.status, cache_control="no-store")
    if wants_page(request):
        response.content_type = "text/html"
        values = {"problem": problem, "code": code, "detail": detail, "request_id": request.request_id, **members}
        response.text = render("customer_orders:templates/problem.jinja2", values, request=request)
    else:
        response.content_type = CONTENT_TYPE
        response.charset = None
        response.body = orjson.dumps({**body(request, code, detail, request.request_id), **members})
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        given = "Authorization" in request.headers
        response.headers["WWW-Authenticate"] = 'Bearer realm="customer-orders"' + (
            ', error="invalid_token"' if given else ""
        )
    response.headers.update(headers)
    return response


def domain_error(error: errors.DomainError, request: Any) -> Response:
    """A service said no."""
    members: dict[str, Any] = {}
    if isinstance(error, errors.Invalid):
        members["errors"] = [
            {"location": wrong.location, "name": wrong.name, "description": wrong.description} for wrong in error.errors
        ]
    if isinstance(error, errors.Conflict):
        members |= error.facts
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, errors.TooMany) else {}
    return respond(request, error.code, error.detail, headers=headers, **members)


def http_exception(error: HTTPException, request: Any) -> Any:
    """Pyramid or Cornice said no, or a redirect was raised."""
    if error.status_int < 400:
        return error
    if isinstance(error, HTTPForbidden) and request.identity is None:
        given = "Authorization" in request.headers
        detail = "The access token is not good, or no longer." if given else "No access token was sent."
        return respond(request, "unauthenticated", detail)
    if isinstance(error, HTTPNotFound):
        return respond(request, "not-found", "Nothing is at this path.")
    if isinstance(error, HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allow))
        detail = f"{request.method} is not possible here. What is: {allowed}."
        return respond(request, "method-not-allowed", detail, headers={"Allow": allowed})
    code = BY_STATUS.get(error.status_int, "malformed" if error.status_int < 500 else "internal-error")
    return respond(request, code, PROBLEMS[code].remedy)


def undecodable(error: UnicodeDecodeError, request: Any) -> Response:
    """The path is not UTF-8."""
    return respond(request, "malformed", "The path is not UTF-8.")


def unexpected(error: Exception, request: Any) -> Response:
    """A defect, or something underneath that is down."""
    if IRetryableError.providedBy(error):
        log.error("given up after several tries (request %s): %s", request.request_id, error)
        return respond(request, "unavailable", "Too many changes at the same moment; nothing was changed.")
    if is_unreachable(error):
        log.error("the database does not answer (request %s): %s", request.request_id, error)
        return respond(request, "unavailable", "The database does not answer.")
    if lacks_schema(error):
        log.error(
            "the database's schema is missing or old; run `customer-orders db upgrade` (request %s): %s",
            request.request_id,
            error,
        )
        return respond(request, "unavailable", "The database is not ready.")
    log.error("unexpected error (request %s)", request.request_id, exc_info=error)
    return respond(request, "internal-error", "The error was logged under this request id.")


def includeme(config: Any) -> None:
    """Register a view for every kind of exception.

    ``retryable_error=False``: an error that is worth another try must get past these views to pyramid_retry,
    unless this was the last try.
    """
    for context, view in (
        (errors.DomainError, domain_error),
        (HTTPException, http_exception),
        (URLDecodeError, undecodable),
        (Exception, unexpected),
    ):
        config.add_exception_view(view, context=context, retryable_error=False)
