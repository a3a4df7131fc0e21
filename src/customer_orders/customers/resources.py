"""Contexts of the customer services."""

from __future__ import annotations

from customer_orders.auth.resources import Collection, Item


class Customers(Collection):
    """All customers."""


class CustomerItem(Item):
    """One customer."""
