"""What no secret looks like."""

from __future__ import annotations

from customer_orders.settings import PLACEHOLDER

__all__ = ["PLACEHOLDER"]
