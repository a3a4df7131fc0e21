"""What traces tell of messages: each attempt to send one, and what its provider reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.events import MessageChange, MessagesChanged
from customer_orders.logs import about
from customer_orders.notifications.claiming import Claim
from customer_orders.notifications.outcomes import Outcome
from customer_orders.origin import origin_of
from customer_orders.tracing import Tracing


@contextmanager
def sending(tracing: Tracing, notifier: str, claim: Claim) -> Iterator[Callable[[Outcome], None]]:
    """Around one attempt, whose log lines say which it is; yields what to call with the outcome."""
    channel = claim.message.channel
    told = {"notification": claim.notification_id, "attempt": claim.number, "channel": channel, "notifier": notifier}
    with tracing.send(f"send {channel}", claim.traceparent, **told) as span:

        def tell(outcome: Outcome) -> None:
            span.tell(outcome=outcome.name)
            if outcome.name != "accepted":
                span.fail(outcome.name)

        with about(lambda: {**claim.fields(), **span.fields}):
            yield tell


def hear(session: Session, event: MessagesChanged, *, tracing: Tracing) -> None:
    """Tell of what was reported, once it is committed, in the trace of the request that queued the message."""
    heard_by = origin_of(session).traceparent

    def tell(change: MessageChange, traceparent: str) -> None:
        told = {"notification": change.reported, "notifier": change.notifier, "status": change.status}
        tracing.hear("report sms", traceparent, heard_by, **told)

    for change in event.changes:
        if change.traceparent is not None:
            db.after_commit(session, partial(tell, change, change.traceparent), "a trace could not be told of a report")
