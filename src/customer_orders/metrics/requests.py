"""Measuring requests: each once, however often it was tried."""

from __future__ import annotations

from customer_orders.api.observing import Handled
from customer_orders.metrics.measures import NONE, Measures


class Requests:
    """Hears of every request: see :class:`customer_orders.api.observing.Observer`."""

    def __init__(self, measures: Measures) -> None:
        self.measures = measures

    def begun(self) -> None:
        """One more is worked on."""
        self.measures.requests_in_progress.inc()

    def answered(self, handled: Handled, status: int, seconds: float) -> None:
        """It is counted, by the pattern of its route."""
        route = handled.route or NONE
        self.measures.requests_in_progress.dec()
        self.measures.request_seconds.labels(route, handled.method).observe(seconds)
        self.measures.requests.labels(route, handled.method, status).inc()
