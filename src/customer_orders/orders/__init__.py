"""What customers ordered."""

from __future__ import annotations

from typing import Any

from customer_orders.events import CustomerAnonymized, CustomerAnonymizing, CustomerExported
from customer_orders.orders import privacy


def includeme(config: Any) -> None:
    """Register the services; hear of customers who are to be forgotten, or told all."""
    config.add_listener(CustomerAnonymizing, privacy.lock)
    config.add_listener(CustomerAnonymized, privacy.wipe)
    config.add_listener(CustomerExported, privacy.tell)
    config.scan("customer_orders.orders.views")
