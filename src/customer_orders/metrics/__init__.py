"""Metrics for Prometheus: docs/metrics.md lists them, deploy/monitoring has a dashboard and alerts."""

from __future__ import annotations

from typing import Any

from customer_orders.metrics.measures import Measures
from customer_orders.metrics.pool import Pool
from customer_orders.metrics.requests import Requests
from customer_orders.settings import section


def includeme(config: Any) -> None:
    """Measure; nothing is told anywhere before a process that serves does so (see ``exposing.py``)."""
    measures = config.registry.measures = Measures()
    config.registry.database.engine.pool.watched_by(Pool(measures))
    notifier = section(config.registry, "notifications").sms
    if notifier is not None:
        # there from the start, at zero: Prometheus sees no increase in what was not there before
        for each in (measures.handover_seconds, measures.handset_seconds, measures.pauses):
            each.labels(notifier)
    config.registry.request_observers.append(Requests(measures))
    config.include("customer_orders.metrics.happenings")
