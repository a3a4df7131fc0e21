"""Contexts of the notification services."""

from __future__ import annotations

from customer_orders.auth.resources import Collection, Item


class Notifications(Collection):
    """All notifications."""


class NotificationItem(Item):
    """One notification."""
