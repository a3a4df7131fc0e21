"""Limiting requests (RFC 6585, section 4): of each address, and of each caller, so many of a class are taken.

The class is the service's own (``Service(limited_as=...)``) or follows from the method. What leads nowhere is counted
as well. What is refused before it is routed is not: a path that is not UTF-8, a body that is too large; that costs
neither a look at a token nor at the database.
"""

from __future__ import annotations

import logging
from typing import Any

from pyramid.events import BeforeTraversal

from customer_orders.addresses import TrustedProxies, neighbourhood
from customer_orders.api import Service, class_of_method
from customer_orders.api.counting import Counted, Limiter
from customer_orders.errors import TooMany
from customer_orders.settings import section

log = logging.getLogger(__name__)

# Where a request keeps, over its tries, what it was counted as.
COUNTED = "customer_orders.counted"
NAMES = {"address": "this address", "caller": "you"}


def client_address(request: Any) -> str | None:
    """The address of the client, for limits and for the audit trail; None if there is none that we know.

    The other end of the connection, unless that is a proxy of ``app.trusted_proxies``. Never ``request.client_addr``
    of WebOb's, which believes whatever the client says.
    """
    proxies: TrustedProxies = request.registry.trusted_proxies
    return proxies.client(request.environ.get("REMOTE_ADDR", ""), request.environ.get("HTTP_X_FORWARDED_FOR", ""))


def limit(event: Any) -> None:
    """Count a request, before anything is done for it. Raises ``TooMany``.

    It is routed by now, and its context, which compares the secret of a call-back, is not made yet. The address comes
    first: only for one that is not over its limit is a token looked at.
    """
    request = event.request
    name = _class_of(request)
    if name is None:
        return
    request.add_response_callback(_tell)
    address = request.client_address
    _count(request, name, "address", "unknown" if address is None else neighbourhood(address))
    service = request.current_service
    if isinstance(service, Service) and service.asks_who(request.method):
        limit_caller(request, request.authenticated_userid)


def limit_caller(request: Any, caller: str | None) -> None:
    """Count a request against who sent it; for a view too that finds out by itself. Raises ``TooMany``."""
    name = _class_of(request)
    if name is not None and caller is not None:
        _count(request, name, "caller", caller)


def _class_of(request: Any) -> str | None:
    service = request.current_service
    if isinstance(service, Service):
        return service.limit_class(request.method)
    return class_of_method(request.method)


def _count(request: Any, name: str, kind: str, who: str) -> None:
    counted: dict[str, list[Counted]] = request.environ.setdefault(COUNTED, {})
    # a request that the database has us try again is still one
    if kind in counted:
        return
    counted[kind] = request.registry.limiter.count(name, kind, who)
    for each in counted[kind]:
        if not each.taken:
            log.info("limit %s reached (request %s)", each.name, request.request_id)
            kinds = f"requests of the class {name} are taken of {NAMES[kind]}"
            raise TooMany(
                f"No more than {each.quota} {kinds} in {each.window} seconds. Try again in {each.reset} seconds.",
                retry_after=each.reset,
            )


def _tell(request: Any, response: Any) -> None:
    """What was counted, as structured fields (draft-ietf-httpapi-ratelimit-headers-10)."""
    counted = [each for kind in request.environ.get(COUNTED, {}).values() for each in kind]
    # other answers have no reader for it, and that to a wrong secret is like that of any path that leads nowhere
    documented = bool(getattr(request.current_service, "tags", ()))
    if counted and (documented or response.status_int == 429):
        response.headers["RateLimit-Policy"] = ", ".join(
            f'"{each.name}";q={each.quota};w={each.window}' for each in counted
        )
        response.headers["RateLimit"] = ", ".join(f'"{each.name}";r={each.left};t={each.reset}' for each in counted)


def includeme(config: Any) -> None:
    """Count every request."""
    registry = config.registry
    registry.trusted_proxies = TrustedProxies(section(registry, "app").trusted_proxies)
    registry.limiter = Limiter(section(registry, "limits"))
    config.add_request_method(client_address, reify=True)
    config.add_subscriber(limit, BeforeTraversal)
