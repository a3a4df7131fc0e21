"""The server for production: granian, with what [server:main] and pserve are in development.

Processes that serve, each with threads; the first process only watches them. SIGTERM: nothing new is taken in, what is
under way is finished, then all end with 0. SIGHUP: each process is replaced by one that reads the INI anew.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from multiprocessing import util
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from pyramid.paster import get_app, setup_logging

from customer_orders.metrics.processes import share
from customer_orders.settings import Section

# Granian's lines go where all others go, by the INI; requests are the application's to log.
LOGGING: dict[str, Any] = {"formatters": {}, "handlers": {}, "loggers": {"_granian": {}, "granian.access": {}}}


def serve(config: str, settings: Section, metrics: str | None = None) -> None:
    """Serve the INI ``config`` until SIGTERM or SIGINT. Raises OSError if it cannot listen there.

    :param settings: its section ``server``.
    :param metrics: the folder into which the processes that serve write theirs, if anybody reads them.
    """
    host, port = _probed(settings.listen)
    server = Granian(
        target="customer_orders",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backpressure=settings.backpressure,
        backlog=settings.backlog,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=settings.header_seconds * 1000, max_buffer_size=settings.header_bytes
        ),
        websockets=False,
        log_dictconfig=LOGGING,
        respawn_failed_workers=True,
        workers_kill_timeout=settings.drain_seconds,
    )
    # granian has set up logging its own way
    setup_logging(config)
    server.serve(target_loader=partial(_application, config, metrics), wrap_loader=False)


def _probed(listen: Sequence[str]) -> tuple[str, int]:
    """An address and a port at which a process may listen. Raises OSError: granian's own error is a stack of Rust."""
    if len(listen) != 1:
        raise OSError("this server listens at one address; have a proxy in front for more")
    host, _, port = listen[0].rpartition(":")
    # as waitress has it, * is every address
    named = None if host == "*" else host.strip("[]")
    told = socket.getaddrinfo(named, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = told[0]
    with socket.socket(family, kind, protocol) as probe:
        # as granian does: a second server beside the first takes its share, which is how one follows another
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(address)
    return str(address[0]), int(port)


def _application(config: str, metrics: str | None) -> Any:
    """The application, in a process that serves it; with its dispatcher, for as long as that lasts."""
    setup_logging(config)
    if metrics is not None:
        share(metrics)
    app = get_app(config)
    registry = getattr(app, "registry", None)
    if registry is not None:
        registry.dispatcher.start(registry.outbox)
        # a process of multiprocessing runs nothing of atexit
        util.Finalize(None, registry.dispatcher.stop, exitpriority=100)
    return app
