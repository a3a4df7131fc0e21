"""Finding notifications, and what was tried to deliver one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from customer_orders.errors import NotFound
from customer_orders.keyset import Filter, Page, Search, Wanted, common_filters, page
from customer_orders.notifications.models import Notification, NotificationAttempt

FILTERS: dict[str, Filter] = {
    **common_filters(Notification),
    "status": lambda value: Notification.status == value,
    "order": lambda value: Notification.order_id == value,
    "customer": lambda value: Notification.customer_id == value,
    "phone": lambda value: Notification.recipient == value,
}
# no index helps with these: most messages are alike in them
UNINDEXED: dict[str, Filter] = {
    "event": lambda value: Notification.event == value,
    "notifier": lambda value: Notification.notifier == value,
    "reason": lambda value: Notification.reason.icontains(value, autoescape=True),
}


def _search(meets: Filter) -> Search:
    def search(value: Any) -> Any:
        def narrow(found: Select[Any]) -> Select[Any]:
            return found.where(meets(value))

        return narrow

    return search


SEARCHES = {name: _search(meets) for name, meets in UNINDEXED.items()}


def list_notifications(session: Session, wanted: Wanted) -> Page:
    """A page of notifications."""
    return page(session, Notification, wanted, FILTERS, SEARCHES)


def criteria(filters: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """What a notification has to meet for all of these values, by the name of the filter."""
    known = {**FILTERS, **UNINDEXED}
    return [known[name](value) for name, value in filters.items()]


def read_notification(session: Session, notification_id: int) -> Notification:
    """One notification. Raises ``NotFound``."""
    found = session.get(Notification, notification_id)
    if found is None:
        raise NotFound(f"There is no notification {notification_id}.")
    return found


def attempts_at(session: Session, notification_id: int) -> Sequence[NotificationAttempt]:
    """All attempts to deliver one, in the order in which they began."""
    made = select(NotificationAttempt).where(NotificationAttempt.notification_id == notification_id)
    return session.scalars(made.order_by(NotificationAttempt.id)).all()
