"""Contexts of the audit services."""

from __future__ import annotations

from customer_orders.auth.resources import Collection


class Entries(Collection):
    """The whole audit trail."""
