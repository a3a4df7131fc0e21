"""What customers ordered."""

from __future__ import annotations

from typing import Any


def includeme(config: Any) -> None:
    """Register the services."""
    config.scan("customer_orders.orders.views")
