"""A plugin for tests, installed as any other: a notifier whose provider is any HTTP server on loopback.

It POSTs the key of each message, and takes the body of the answer for the reference. It waits for it for ever.
"""

from __future__ import annotations

import http.client
import threading
from urllib.parse import urlsplit

import colander
from zope.interface import implementer

from customer_orders.interfaces import INotifier, Message, Receipt, Unavailable, Uncertain


class GatewaySettings(colander.MappingSchema):
    """The provider."""

    url = colander.SchemaNode(colander.String(), title="Address of the provider.")


@implementer(INotifier)
class Gateway:
    """Keeps a connection for each thread."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._local = threading.local()

    def send(self, message: Message) -> Receipt:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address)
            try:
                connection.connect()
            except OSError as error:
                raise Unavailable(str(error)) from error
            self._local.connection = connection
        try:
            connection.request("POST", "/", message.key)
            return Receipt(connection.getresponse().read().decode())
        except (OSError, http.client.HTTPException) as error:
            self._local.connection = None
            raise Uncertain(type(error).__name__) from error


def includeme(config):
    settings = config.plugin_settings("gateway", GatewaySettings)
    config.add_notifier("gateway", Gateway(settings.url))
