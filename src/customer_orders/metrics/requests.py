"""Measuring requests: each once, however often it was tried."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from pyramid.events import ApplicationCreated, NewResponse

from customer_orders.metrics.measures import METHODS, NONE, OTHER, Measures

# The pattern of the route that a request took, in its environ, which a retry shares. Never the path: there are ids and
# secrets in paths, and no end of them.
ROUTE = "customer_orders.route"

Policy = Callable[[dict[str, Any], Any], Any]


def _note_route(event: Any) -> None:
    route = getattr(event.request, "matched_route", None)
    if route is not None:
        event.request.environ[ROUTE] = route.pattern


def measured(policy: Policy, measures: Measures) -> Policy:
    """An execution policy that does what ``policy`` does, and measures it."""

    def execute(environ: dict[str, Any], router: Any) -> Any:
        given = environ.get("REQUEST_METHOD")
        method = given if given in METHODS else OTHER
        # what has no answer, the server answers so
        status = 500
        began = perf_counter()
        measures.requests_in_progress.inc()
        try:
            response = policy(environ, router)
            status = response.status_int
            return response
        finally:
            measures.requests_in_progress.dec()
            route = environ.get(ROUTE, NONE)
            measures.request_seconds.labels(route, method).observe(perf_counter() - began)
            measures.requests.labels(route, method, status).inc()

    return execute


def includeme(config: Any) -> None:
    """Measure around everything: whatever answers, and its transaction, are within."""

    def wrap(event: Any) -> None:
        event.app.execution_policy = measured(event.app.execution_policy, config.registry.measures)

    config.add_subscriber(wrap, ApplicationCreated)
    config.add_subscriber(_note_route, NewResponse)
