"""The outbox: messages to customers, written with what they tell of, delivered after the commit."""

from __future__ import annotations

from functools import partial
from typing import Any

from pyramid.events import NewRequest

from customer_orders.events import OrderDeleted, OrderPlaced, OrderStatusChanged
from customer_orders.notifications import services
from customer_orders.notifications.delivery import Outbox
from customer_orders.notifications.dispatch import EmbeddedDispatcher, WorkerDispatcher
from customer_orders.notifications.templates import Templates
from customer_orders.settings import section


def includeme(config: Any) -> None:
    """Listen to orders; have the dispatcher ready, to be started by a process that serves."""
    registry = config.registry
    settings = section(registry, "notifications")
    config.add_dispatcher("embedded", EmbeddedDispatcher(settings.poll_interval))
    config.add_dispatcher("worker", WorkerDispatcher())
    config.commit()
    registry.dispatcher = registry.plugins.dispatchers[settings.dispatcher]
    notifier = registry.plugins.notifiers.get(settings.sms)
    registry.outbox = Outbox(registry.database, settings, notifier)
    outgoing = services.Outgoing(
        templates=Templates.of(settings),
        sends=notifier is not None,
        hint=registry.dispatcher.hint,
    )
    config.add_listener(OrderPlaced, partial(services.queue_order_placed, outgoing=outgoing))
    config.add_listener(OrderStatusChanged, partial(services.queue_order_status_changed, outgoing=outgoing))
    config.add_listener(OrderDeleted, services.cancel_for_order)
    # A server that does not start the dispatcher itself (see server.py) starts it with the first request.
    config.add_subscriber(lambda event: registry.dispatcher.start(registry.outbox), NewRequest)
