"""The people who order."""

from __future__ import annotations

from typing import Any


def includeme(config: Any) -> None:
    """Register the services."""
    config.scan("customer_orders.customers.views")
