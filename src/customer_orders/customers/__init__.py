"""The people who order."""

from __future__ import annotations

from typing import Any


def includeme(config: Any) -> None:
    """Register the services."""
    # a GET that leaves an entry in the audit trail
    config.add_writing_route("customer_export")
    config.scan("customer_orders.customers.views")
