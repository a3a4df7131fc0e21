"""Every metric that is counted as things happen: its name, meaning, unit, labels. docs/metrics.md has all of them.

No label has values without end: routes are patterns, methods and reasons words of a closed list.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Why a message became what it is; whatever else is kept as a reason begins with one of these, or is a provider's word.
REASONS = frozenset(
    {
        # told by what wrote the message
        *("no_template", "template_error", "empty_text", "too_long", "opted_out", "no_notifier", "anonymized"),
        # by what took it back or gave it up
        *("order_deleted", "order_cancelled", "deadline", "abandoned", "no_report"),
        # by the attempt that settled it (see notifications/outcomes.py), or by a delivery report
        *("rejected", "unavailable", "channel_down", "uncertain", "error", "reported"),
    }
)
OTHER = "other"
# The label of what has no such thing: nobody had the message, there is no reason, no route matched.
NONE = "none"

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
POOL_SECONDS = (0.001, 0.01, 0.1, 1, 5, 10)
# 60 is the bound of the objective: see docs/metrics.md
HANDOVER_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 21600, 86400)
HANDSET_SECONDS = (5, 10, 30, 60, 120, 300, 900, 3600, 21600, 86400, 259200)


class Measures:
    """The metrics of one application, and the ``registry`` of Prometheus that holds them.

    Where several processes serve, each writes its own into files, and the gauges are sums of those that live: see
    ``processes.py``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "http_requests", "Requests answered, by route pattern, method and status.", "route", "method", "status"
        )
        self.request_seconds = self._histogram(
            "http_request_duration_seconds",
            "Seconds from a request's head and body to its answer, tries after conflicts included.",
            REQUEST_SECONDS,
            *("route", "method"),
        )
        self.requests_in_progress = self._gauge("http_requests_in_progress", "Requests that are worked on.")
        self.pool_size = self._gauge("db_pool_size", "Connections that the pools of the processes keep open.")
        self.pool_max_overflow = self._gauge("db_pool_max_overflow", "Connections that may be opened beyond those.")
        self.pool_checked_out = self._gauge("db_pool_checked_out", "Connections in use.")
        self.pool_overflow = self._gauge("db_pool_overflow", "Connections open beyond the pools' size.")
        self.pool_wait_seconds = self._histogram(
            "db_pool_wait_seconds", "Seconds until a connection was had, opened anew if need be.", POOL_SECONDS
        )
        self.pool_timeouts = self._counter("db_pool_timeouts", "Connections that were not had in time.")
        self.orders_created = self._counter("orders_created", "Orders placed.")
        self.notifications = self._counter(
            "notifications",
            "Messages that became this: each counts once for each status that it comes to.",
            *("notifier", "status", "reason"),
        )
        self.handover_seconds = self._histogram(
            "notification_handover_seconds",
            "Seconds from when a message might be sent until its provider took it.",
            HANDOVER_SECONDS,
            "notifier",
        )
        self.handset_seconds = self._histogram(
            "order_to_handset_seconds",
            "Seconds from an order until the message about it was reported delivered.",
            HANDSET_SECONDS,
            "notifier",
        )
        self.cost = self._counter(
            "sms_cost", "What providers charge for messages, in units of the currency.", "currency"
        )
        self.pauses = self._counter("channel_pauses", "Pauses that a notifier began.", "notifier")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry, multiprocess_mode="livesum")

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)
