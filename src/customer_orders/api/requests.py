"""What is done to every request before a view sees it: an id, a bounded body, one form of each path."""

from __future__ import annotations

import io
import re
import secrets
from typing import Any

from pyramid.events import NewRequest
from pyramid.interfaces import IRoutesMapper

from customer_orders.errors import DomainError
from customer_orders.masking import masked
from customer_orders.settings import section

HEADER = "X-Request-Id"
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# RFC 9562, section 4; one in some hundred has a group that would pass for a number.
UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# Nine to fifteen digits by themselves (E.164), or all of it in groups; deploy/haproxy.cfg has the same.
NUMBER_IN_ID = re.compile(r"(?:^|[._-])[0-9]{9,15}(?:$|[._-])|^(?:[._-]*[0-9]){9,15}[._-]*$")
TOO_LARGE = "customer_orders.too_large"
# In the environ: what tells whether the server is about to stop, and waits for the proxies in front to send requests
# elsewhere.
DRAINING = "customer_orders.draining"
BOTH_FORMS = re.compile("/(api|login)(/|$)")


def id_of(environ: dict[str, Any]) -> str:
    """The id under which a request is logged and kept: the caller's ``X-Request-Id`` if it is sane, else a new one.

    None that may be a phone number or a secret: what is kept outlives the customer whose it is. Kept in the environ, so
    that it survives a retry.
    """
    if "customer_orders.request_id" not in environ:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        sane = ACCEPTED_ID.fullmatch(given) and not NUMBER_IN_ID.search(given) and masked(given) == given
        sane = sane or UUID.fullmatch(given)
        environ["customer_orders.request_id"] = given if sane else secrets.token_hex(16)
    told: str = environ["customer_orders.request_id"]
    return told


def bound_body(request: Any) -> None:
    """Take in at most ``api.max_body`` bytes, whether a length was announced or not (chunked).

    Called by pyramid_retry before the first try, which then has the body in memory for another one. What is larger
    is marked, and refused where problems can be rendered (:func:`on_new_request`).
    """
    environ = request.environ
    limit = section(request.registry, "api").max_body
    announced = request.content_length
    body = b""
    if announced is None and environ.get("wsgi.input_terminated"):
        body = environ["wsgi.input"].read(limit + 1)
    elif announced is not None and 0 < announced <= limit:
        body = environ["wsgi.input"].read(announced)
    if len(body) > limit or (announced or 0) > limit:
        environ[TOO_LARGE], body = True, b""
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    environ["webob.is_body_seekable"] = True


def on_new_request(event: Any) -> None:
    """Give the answer its id, refuse what is too large, normalise the path."""
    request = event.request
    request.add_response_callback(_tell_id)
    if TOO_LARGE in request.environ:
        limit = section(request.registry, "api").max_body
        raise DomainError(f"A body may be {limit} bytes long at most.", code="too-large")
    _normalise(request)


def _tell_id(request: Any, response: Any) -> None:
    response.headers[HEADER] = request.request_id


def _normalise(request: Any) -> None:
    """Route ``/api/customers`` as ``/api/customers/`` and ``/api/customers/1/`` as ``/api/customers/1``.

    Directly: a redirected POST would lose its body. A path that is a route as it stands stays as it is.
    """
    path = request.environ.get("PATH_INFO", "")
    if not BOTH_FORMS.match(path) or path.endswith("//"):
        return
    mapper = request.registry.getUtility(IRoutesMapper)
    if mapper(request)["route"] is not None:
        return
    request.environ["PATH_INFO"] = path[:-1] if path.endswith("/") else f"{path}/"
    if mapper(request)["route"] is None:
        request.environ["PATH_INFO"] = path


def includeme(config: Any) -> None:
    """Register the above."""
    config.add_request_method(lambda request: id_of(request.environ), "request_id", reify=True)
    config.add_subscriber(on_new_request, NewRequest)
    config.add_settings({"retry.activate_hook": "customer_orders.api.requests.bound_body"})
