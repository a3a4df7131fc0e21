"""What waits in the outbox, and which notifiers pause: asked for often, so cheap however many messages there were."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.notifications.models import Channel, Notification, Status

WAITING = (Status.QUEUED, Status.SENDING)


@dataclass(frozen=True)
class Backlog:
    """What waits.

    :param depth: messages by status, of those that are not settled.
    :param oldest: seconds for which the message has been due that has been so for longest; 0: none is due. One that
        waits for the quiet hours to end, for its next attempt, or for a sender's lease, is not.
    :param paused: by notifier, whether it pauses; those that never had to are not named.
    """

    depth: dict[str, int]
    oldest: float
    paused: dict[str, bool]


def backlog(session: Session) -> Backlog:
    """What waits now."""
    now = db.now(session)
    counts = select(Notification.status, func.count()).where(Notification.status.in_(WAITING))
    depth = dict.fromkeys(map(str, WAITING), 0) | dict(session.execute(counts.group_by(Notification.status)).all())
    due = [
        session.scalar(select(func.min(since)).where(Notification.status == status, since <= now))
        for status, since in (
            (Status.QUEUED, Notification.next_attempt_at),
            (Status.SENDING, Notification.lease_expires_at),
        )
    ]
    oldest = max([(now - since).total_seconds() for since in due if since is not None], default=0.0)
    channels = session.execute(select(Channel.notifier, Channel.paused_until.is_not(None)))
    return Backlog(depth, oldest, dict(channels.all()))
