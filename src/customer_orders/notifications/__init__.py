"""The outbox: messages to customers, written with what they tell of, delivered after the commit."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from pyramid.events import NewRequest

from customer_orders.events import (
    CustomerAnonymized,
    CustomerExported,
    MessagesChanged,
    OrderDeleted,
    OrderPlaced,
    OrderStatusChanged,
)
from customer_orders.interfaces import IDeliveryReports
from customer_orders.notifications import privacy, services, traces
from customer_orders.notifications.delivery import Outbox
from customer_orders.notifications.dispatch import EmbeddedDispatcher, WorkerDispatcher
from customer_orders.notifications.templates import Templates
from customer_orders.settings import InvalidSettings, Section, SettingError, section


def _check_timeout(settings: Section, notifier: Any) -> None:
    """Raises ``InvalidSettings`` if a send may take too much of its lease: it is renewed three times meanwhile."""
    timeout = getattr(notifier, "timeout", None)
    if timeout is not None and timeout > settings.lease / 3:
        said = f"is {settings.lease}, and {settings.sms} takes up to {timeout:g} seconds for a message. "
        mend = f"Make it {math.ceil(3 * timeout)} or more, or have {settings.sms} time out sooner (see its settings)."
        raise InvalidSettings([SettingError("notifications.lease", said + mend)])


def includeme(config: Any) -> None:
    """Listen to orders; have the dispatcher ready, to be started by a process that serves."""
    registry = config.registry
    settings = section(registry, "notifications")
    embedded = EmbeddedDispatcher(settings.concurrency, settings.poll_interval)
    config.add_dispatcher("embedded", embedded)
    config.add_dispatcher("worker", WorkerDispatcher())
    config.commit()
    registry.dispatcher = registry.plugins.dispatchers[settings.dispatcher]
    if registry.dispatcher is embedded:
        config.add_readiness_check("dispatcher", embedded.check)
    notifier = registry.plugins.notifiers.get(settings.sms)
    _check_timeout(settings, notifier)
    # those that can tell what became of a message, if they may
    reporting = [name for name, each in registry.plugins.notifiers.items() if IDeliveryReports.providedBy(each)]
    registry.outbox = Outbox(
        registry.database, settings, notifier, reporting if settings.report_secrets else (), registry.tracing
    )
    outgoing = services.Outgoing(
        templates=Templates.of(settings),
        sends=notifier is not None,
        quiet_hours=settings.quiet_hours,
        hint=registry.dispatcher.hint,
    )
    config.add_listener(OrderPlaced, partial(services.queue_order_placed, outgoing=outgoing))
    config.add_listener(OrderStatusChanged, partial(services.queue_order_status_changed, outgoing=outgoing))
    config.add_listener(OrderDeleted, services.cancel_for_order)
    config.add_listener(MessagesChanged, partial(traces.hear, tracing=registry.tracing))
    config.add_listener(CustomerAnonymized, privacy.wipe)
    config.add_listener(CustomerExported, privacy.tell)
    config.scan("customer_orders.notifications.views")
    config.scan("customer_orders.notifications.callbacks")
    # A server that does not start the dispatcher itself (see server.py) starts it with the first request.
    config.add_subscriber(lambda event: registry.dispatcher.start(registry.outbox), NewRequest)
