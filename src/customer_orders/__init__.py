"""Customer Orders: the order book of a merchant, as a service. This page is its table of contents."""

from __future__ import annotations

import warnings
from typing import Any

# Pyramid 2.1 and Cornice 6 import pkg_resources; setuptools is pinned for it, and the operator can do nothing.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from pyramid.config import Configurator  # noqa: E402

from customer_orders import logs  # noqa: E402

# At import: whichever process this is, and whoever configures its loggers, before it has anything to tell.
logs.install()


def main(global_config: dict[str, Any], **settings: Any) -> Any:
    """The WSGI application of one INI file (``use = egg:customer-orders``).

    Opens no connection and starts no thread, so that a server may fork after it. Raises
    :class:`customer_orders.settings.InvalidSettings` with every setting that is wrong.
    """
    config = Configurator(settings={**global_config, **settings})
    include(config)
    return config.make_wsgi_app()


def include(config: Configurator) -> None:
    """All that the application is made of, in the order in which it builds on what came before."""
    # what the operator chose, typed and checked
    config.include("customer_orders.sections")
    # resources as services with methods; before the plugins, which may bring some
    config.include("cornice")
    # pages; likewise
    config.include("pyramid_jinja2")
    # notifiers and identity providers, as named in `plugins`; every wrong setting is told here
    config.include("customer_orders.plugins")
    # what was done when, for whoever collects it
    config.include("customer_orders.tracing")
    # sessions, transactions, retry
    config.include("customer_orders.db")
    # how this product speaks HTTP: problems, paging, the document and its dashboard
    config.include("customer_orders.api")
    # who is calling, what they may do, signing in
    config.include("customer_orders.auth")
    # who did what, and was refused what
    config.include("customer_orders.audit")
    # the people who order
    config.include("customer_orders.customers")
    # the outbox, and what empties it
    config.include("customer_orders.notifications")
    # what they ordered
    config.include("customer_orders.orders")
    # how many of both, and what the messages cost
    config.include("customer_orders.stats")
    # what Prometheus is told
    config.include("customer_orders.metrics")
    # whether it lives and is ready
    config.include("customer_orders.health")
    # which code it is
    config.include("customer_orders.version")
