"""Contexts of the order services."""

from __future__ import annotations

from customer_orders.auth.resources import Collection, Item


class Orders(Collection):
    """All orders."""


class OrderItem(Item):
    """One order."""
