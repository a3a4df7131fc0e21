"""The notification services."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from customer_orders.api import Service
from customer_orders.api.conditional import tell
from customer_orders.api.paging import link, wanted
from customer_orders.auth.policy import Permission
from customer_orders.notifications import listing, resending, schemas
from customer_orders.notifications.models import Notification
from customer_orders.notifications.resources import NotificationItem, Notifications

READ, WRITE, MANAGE = Permission.NOTIFICATIONS_READ, Permission.NOTIFICATIONS_WRITE, Permission.NOTIFICATIONS_MANAGE

# Services are registered by the names of these: the fixed word goes before the id, which would take it for one.
all_resent = Service("notifications_resend", "/api/notifications/resend", tag="notifications", factory=Notifications)
notification = Service("notification", "/api/notifications/{id}", tag="notifications", factory=NotificationItem)
notifications = Service("notifications", "/api/notifications/", tag="notifications", factory=Notifications)
resent = Service("notification_resend", "/api/notifications/{id}/resend", tag="notifications", factory=NotificationItem)


def _sending(request: Any) -> dict[str, Any]:
    """What a service has to know of who sends."""
    registry = request.registry
    return {"sends": registry.outbox.notifier is not None, "hint": registry.dispatcher.hint}


def _one(request: Any, found: Notification) -> dict[str, Any]:
    attempts = [schemas.attempt(made) for made in listing.attempts_at(request.dbsession, found.id)]
    # an attempt that outlived its lease still writes down how it ended, and the notification does not change with it
    tell(request, found.version, zlib.crc32(orjson.dumps(attempts)))
    return {**schemas.notification(found), "attempt_log": attempts}


@notifications.get(
    permission=READ,
    operation_id="notifications_list",
    query=schemas.NotificationQuery,
    returns=[schemas.NotificationRead],
)
def list_notifications(request: Any) -> list[dict[str, Any]]:
    """List messages to customers, newest first unless told."""
    found = listing.list_notifications(request.dbsession, wanted(request))
    link(request, found)
    return [schemas.notification(item) for item in found.items]


@notification.get(
    permission=READ,
    operation_id="notifications_read",
    returns=schemas.NotificationWithAttempts,
    tagged=True,
)
def read_notification(request: Any) -> dict[str, Any]:
    """Read a message, what became of it, and every attempt to send it."""
    return _one(request, listing.read_notification(request.dbsession, request.context.id))


@resent.post(
    permission=WRITE,
    operation_id="notifications_resend",
    body=schemas.ResendBody,
    returns=schemas.NotificationWithAttempts,
    tagged=True,
    problems=("still-trying", "already-sent", "message-obsolete", "nothing-to-send", "opted-out", "no-notifier"),
)
def resend_notification(request: Any) -> dict[str, Any]:
    """Send a message again that is failed, unknown, expired or suppressed.

    It is queued, with as many attempts as a new one, and goes to the number that the customer has now. One that is
    unknown may have arrived: the customer may get it twice. No body is needed. To a customer who opted out only an
    admin may send, and has to say `force`.
    """
    found = resending.resend(
        request.dbsession,
        request.context.id,
        force=request.validated["body"]["force"],
        may_force=bool(request.has_permission(MANAGE)),
        **_sending(request),
    )
    return _one(request, found)


@all_resent.post(
    permission=MANAGE,
    operation_id="notifications_resend_all",
    body=schemas.ResendAllBody,
    returns=schemas.ResentRead,
    problems=("no-notifier",),
)
def resend_notifications(request: Any) -> dict[str, Any]:
    """Send all messages again that filters find, 1,000 at most, the oldest first.

    With `dry_run` nothing is done: the answer tells what would be. While `remaining` is not 0, go on with `after`.
    What cannot be sent again is skipped, customers who opted out among it; what changes at the same moment is left out.
    """
    filters = dict(request.validated["body"])
    status, after, limit, dry_run = (filters.pop(name) for name in ("status", "after", "limit", "dry_run"))
    done = resending.resend_all(
        request.dbsession, status, filters, after=after, limit=limit, dry_run=dry_run, **_sending(request)
    )
    return schemas.resent(done, dry_run=dry_run)
