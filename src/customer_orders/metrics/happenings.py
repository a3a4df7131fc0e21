"""Counting what happens in the order book: what was announced, once its transaction is committed.

So what is rolled back, or only rehearsed, counts nothing. A process that is killed between the commit and the count,
which follows at once, has not counted what that one transaction did: metrics are for watching, the rows for accounts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.events import ChannelPaused, MessageChange, MessagesChanged, OrderPlaced
from customer_orders.metrics.measures import NONE, OTHER, REASONS, Measures
from customer_orders.money import CURRENCIES


def in_a_word(reason: str | None) -> str:
    """The word that a reason is counted under."""
    if reason is None:
        return NONE
    word = reason.partition(":")[0]
    return word if word in REASONS else OTHER


class Happenings:
    """The listeners, each for one kind of event."""

    def __init__(self, measures: Measures) -> None:
        self.measures = measures

    def order_placed(self, session: Session, event: OrderPlaced) -> None:
        """One more order."""
        self._once_committed(session, self.measures.orders_created.inc)

    def messages_changed(self, session: Session, event: MessagesChanged) -> None:
        """Messages became something."""
        if event.changes:
            self._once_committed(session, lambda: self._count(event.changes))

    def channel_paused(self, session: Session, event: ChannelPaused) -> None:
        """A notifier pauses."""
        self._once_committed(session, self.measures.pauses.labels(event.notifier).inc)

    def _count(self, changes: Sequence[MessageChange]) -> None:
        # many became the same, and a counter costs as much for one as for all
        same = Counter((one.notifier or NONE, one.status, in_a_word(one.reason)) for one in changes)
        for labels, number in same.items():
            self.measures.notifications.labels(*labels).inc(number)
        for change in changes:
            self._observe(change)

    def _observe(self, change: MessageChange) -> None:
        by = change.notifier or NONE
        if change.handed_over is not None:
            self.measures.handover_seconds.labels(by).observe(change.handed_over)
        if change.arrived is not None:
            self.measures.handset_seconds.labels(by).observe(change.arrived)
        if change.cost is not None:
            amount, currency = change.cost
            self.measures.cost.labels(currency if currency in CURRENCIES else OTHER).inc(float(amount))

    def _once_committed(self, session: Session, count: Callable[[], object]) -> None:
        db.after_commit(session, count, "what was committed could not be counted")


def includeme(config: Any) -> None:
    """Listen."""
    happenings = Happenings(config.registry.measures)
    config.add_listener(OrderPlaced, happenings.order_placed)
    config.add_listener(MessagesChanged, happenings.messages_changed)
    config.add_listener(ChannelPaused, happenings.channel_paused)
