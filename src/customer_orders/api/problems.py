"""Every 4xx and 5xx of every path as ``application/problem+json`` (RFC 9457), from one table.

The only place that knows both the kinds of domain error and HTTP.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import orjson
from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPException, HTTPForbidden, HTTPMethodNotAllowed, HTTPNotFound
from pyramid.renderers import render
from pyramid.response import Response
from pyramid_retry import IRetryableError

from customer_orders import errors
from customer_orders.db import is_unreachable, lacks_schema
from customer_orders.settings import section

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """One kind of problem: its status, its title, and what the caller can do about it."""

    status: int
    title: str
    remedy: str
    # seconds after which another try may work
    retry_after: int | None = None


# The codes are stable: clients branch on them. New ones may come, none changes its meaning.
PROBLEMS: dict[str, Problem] = {
    "malformed": Problem(400, "The request cannot be read", "Send UTF-8 and well-formed JSON, as `detail` says."),
    "invalid": Problem(400, "Some input is not valid", "Mend each field that `errors` names, then send it again."),
    "sign-in-expired": Problem(400, "This sign-in cannot go on", "Start again at /login/; finish in the same tab."),
    "unauthenticated": Problem(
        401,
        "You are not signed in",
        "Send `Authorization: Bearer <access token>`; sign in at /login/ to get one.",
    ),
    "invalid-refresh-token": Problem(
        401,
        "This refresh token is not good",
        "Sign in again. A refresh token is good once, until it expires.",
    ),
    "forbidden": Problem(403, "You may not do this", "Ask an administrator for a role that permits it."),
    "sign-in-refused": Problem(
        403,
        "The sign-in was refused",
        "Start again at /login/. If it goes on, tell your administrator the request id.",
    ),
    "no-role": Problem(
        403,
        "Your account has no role here",
        "Ask an administrator to give you one (`customer-orders user grant`), then sign in again.",
    ),
    "not-found": Problem(404, "There is nothing here", "Check the path and the id."),
    "method-not-allowed": Problem(405, "This path does not take that method", "Use one that the `Allow` header names."),
    "not-acceptable": Problem(406, "No such representation", "Accept `application/json`."),
    "conflict": Problem(409, "The present state forbids it", "Read the thing again, then decide."),
    "customer-has-orders": Problem(409, "The customer has orders", "Delete the customer's orders first."),
    "reference-taken": Problem(
        409,
        "The reference is another's already",
        "Read the thing that `existing` names: it may be the one you mean. Or send another `reference`.",
    ),
    "idempotency-key-in-use": Problem(
        409,
        "A request with this Idempotency-Key is under way",
        "Send it again, with the same key, after the time in `Retry-After`; you get the answer of the first.",
        retry_after=1,
    ),
    "idempotency-answer-gone": Problem(
        409,
        "It was done, and its answer was not kept",
        "The answer held a secret. If you lost it, revoke what was made, and ask for another with a new key.",
    ),
    "stale": Problem(412, "It has changed since you read it", "Read it again, then decide."),
    "too-large": Problem(413, "The body is too large", "Send less; `detail` names the limit."),
    "unsupported-media-type": Problem(415, "The body has the wrong type", "Send `Content-Type: application/json`."),
    "idempotency-key-reused": Problem(
        422,
        "The Idempotency-Key belongs to another request",
        "Make a new key for each thing that you want done; use one again only to repeat the very same request.",
    ),
    "precondition-required": Problem(
        428,
        "If-Match is missing",
        "Read the thing, then send `If-Match` with the `ETag` that came with it.",
    ),
    "internal-error": Problem(
        500, "Something went wrong on our side", "Try again; if it goes on, report the request id."
    ),
    "unavailable": Problem(
        503, "Temporarily not available", "Try again after the time in `Retry-After`.", retry_after=5
    ),
}

BY_STATUS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict",
    412: "stale",
    413: "too-large",
    415: "unsupported-media-type",
    500: "internal-error",
    503: "unavailable",
}


def wants_page(request: Any) -> bool:
    """Whether a person looks at this with a browser: not on the API, and only if HTML is preferred."""
    service = getattr(request, "current_service", None)
    outside = not request.environ.get("PATH_INFO", "").startswith("/api/")
    return (getattr(service, "page", False) or outside) and prefers_html(request)


def prefers_html(request: Any) -> bool:
    """Whether the Accept header names HTML before JSON; no header, or ``*/*``, means JSON."""
    offers = request.accept.acceptable_offers(["application/json", "text/html"])
    return bool(offers) and offers[0][0] == "text/html"


def respond(request: Any, code: str, detail: str, *, headers: Any = (), **members: Any) -> Response:
    """The response for a problem. ``members`` are extension members (RFC 9457, section 3.2)."""
    problem = PROBLEMS[code]
    response = Response(status=problem.status, cache_control="no-store")
    if wants_page(request):
        response.content_type = "text/html"
        values = {"problem": problem, "code": code, "detail": detail, "request_id": request.request_id}
        response.text = render("customer_orders:templates/problem.jinja2", values, request=request)
    else:
        body = {
            "type": f"{section(request.registry, 'app').public_url}/problems/{code}",
            "title": problem.title,
            "status": problem.status,
            "detail": detail,
            "code": code,
            "request_id": request.request_id,
            **members,
        }
        response.content_type = CONTENT_TYPE
        response.charset = None
        response.body = orjson.dumps(body)
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
    if isinstance(error, errors.Conflict) and error.existing is not None:
        members["existing"] = error.existing
    return respond(request, error.code, error.detail, **members)


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
        detail = f"{request.method} is not possible here; {allowed} is."
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
