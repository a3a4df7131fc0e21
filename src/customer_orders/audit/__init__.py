"""The audit trail: who did what, when, from where; and who was refused what. Nothing in it ever changes."""

from __future__ import annotations

from typing import Any

from customer_orders.audit import services
from customer_orders.audit.refusals import Seen
from customer_orders.events import Audited


def includeme(config: Any) -> None:
    """Write down what services tell of, and what is refused."""
    config.registry.refusals = Seen()
    config.add_listener(Audited, services.record)
    # around the request's transaction: by the time of a refusal's own, that has ended
    config.add_tween("customer_orders.audit.refusals.tween_factory", over="pyramid_tm.tm_tween_factory")
    config.scan("customer_orders.audit.views")
