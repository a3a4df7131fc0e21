"""Telling Prometheus, on a port of its own that no proxy leads to: the metrics need no credentials."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from ipaddress import IPv4Address
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import InfoMetricFamily
from prometheus_client.metrics_core import Metric
from pyramid.exceptions import ConfigurationError

from customer_orders.metrics.processes import Shared
from customer_orders.metrics.stored import Stored
from customer_orders.settings import section

ANY = str(IPv4Address(0))
# Held during a scrape: a fork waits for its end, so that no child begins with a lock or a connection in mid-air.
SCRAPING = Lock()
os.register_at_fork(before=SCRAPING.acquire, after_in_parent=SCRAPING.release, after_in_child=SCRAPING.release)


class Scrape:
    """All metrics of a process, or of all that share its folder."""

    def __init__(self, registry: Any, folder: str | None = None) -> None:
        counted = registry.measures.registry if folder is None else Shared(folder)
        self._parts = (counted, Stored(registry.database, section(registry, "notifications").sms))

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        yield InfoMetricFamily("customer_orders", "The version that runs.", {"version": version("customer-orders")})
        with SCRAPING:
            found = [metric for part in self._parts for metric in part.collect()]
        yield from found


@contextmanager
def exposed(registry: Any, *, shared: bool = False) -> Iterator[str | None]:
    """Tell the metrics of an application at ``metrics.listen``, if it says where, until the end of the block.

    :param shared: whether they are those of other processes, which are to write them into the folder that is yielded.
        It is new, private, and goes in the end.

    Raises ``ConfigurationError`` if it cannot listen there, or there is no place for the folder.
    """
    listen = section(registry, "metrics").listen
    if not listen:
        yield None
    elif shared:
        with _folder() as folder, _listening(listen[0], registry, folder):
            yield folder
    else:
        with _listening(listen[0], registry, None):
            yield None


def _folder() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="customer-orders-metrics-")
    except OSError as error:
        mend = "Name a folder that can be written to by the variable TMPDIR, or blank metrics.listen"
        raise ConfigurationError(
            f"there is no place to add up the metrics of several processes: {error}. {mend}."
        ) from None


@contextmanager
def _listening(address: str, registry: Any, folder: str | None) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    scraped = CollectorRegistry()
    # called at each scrape only
    scraped.register(Scrape(registry, folder))
    try:
        server, thread = start_http_server(int(port), ANY if host == "*" else host.strip("[]"), scraped)
    except OSError as error:
        mend = (
            "Change metrics.listen, or the variable METRICS_LISTEN; each process of a machine needs a port of its own"
        )
        raise ConfigurationError(f"cannot tell metrics at {address}: {error}. {mend}.") from None
    # a child does not hold the port when this process is gone
    os.register_at_fork(after_in_child=server.socket.close)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
