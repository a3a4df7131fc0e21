"""The server for production: granian, with what [server:main] and pserve are in development.

Processes that serve, each with threads; the first process only watches them. SIGTERM: for ``server.unready_seconds``
``/readyz`` says that it is draining, so that proxies send nothing more, while all is still taken in. Then nothing new
is, what is under way is finished, and all end with 0. SIGINT, or a second SIGTERM, cuts the wait short. SIGHUP: each
process is replaced by one that reads the INI anew.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import Pipe, util
from threading import Lock, Thread
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from pyramid.paster import get_app, setup_logging

from customer_orders.api.requests import DRAINING
from customer_orders.metrics.processes import share
from customer_orders.settings import Section

log = logging.getLogger(__name__)

# Granian's lines go where all others go, by the INI; requests are the application's to log.
LOGGING: dict[str, Any] = {"formatters": {}, "handlers": {}, "loggers": {"_granian": {}, "granian.access": {}}}
# Seconds that a dispatcher has to stop: the embedded one's 20, and some for what has to be written down.
STOPPING = 22


def serve(config: str, settings: Section, metrics: str | None = None) -> None:
    """Serve the INI ``config`` until SIGTERM or SIGINT. Raises OSError if it cannot listen there.

    :param settings: its section ``server``.
    :param metrics: the folder into which the processes that serve write theirs, if anybody reads them.
    """
    host, port = _probed(settings.listen)
    server = Server(
        settings.unready_seconds,
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
    loader = partial(_application, config, server.draining, settings.drain_seconds, metrics)
    server.serve(target_loader=loader, wrap_loader=False)


class Server(Granian):  # type: ignore[misc,valid-type]
    """Granian that is unready for some seconds before it stops.

    ``draining``: a connection that the processes that serve share, and nobody reads; there is something to read once it
    was told to stop. It takes no lock that a signal could find taken, and no file: the root may be read only.
    """

    def __init__(self, unready_seconds: int, **options: Any) -> None:
        super().__init__(**options)
        self.draining, self._draining = Pipe(duplex=False)
        self._told = False
        self._unready_seconds = unready_seconds
        self._hurried = False

    def signal_handler_interrupt(self, number: int, *_: object) -> None:
        """SIGTERM, or SIGINT."""
        if os.getpid() != self.pid:
            # a process that does not serve yet, and has this from the first one
            sys.exit()
        if self._told or number == signal.SIGINT:
            self._hurried = True
        if not self._told:
            self._told = True
            self._draining.send_bytes(b"draining")
        super().signal_handler_interrupt()

    def _respawn_workers(self, workers: Sequence[int], *options: Any, **more: Any) -> None:
        """Replace them one after the other; once it is told to stop, none of those that are left."""
        for worker in workers:
            if self.interrupt_signal:
                return
            super()._respawn_workers([worker], *options, **more)

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop, once those in front have had the time to notice. A process that ends meanwhile is not replaced."""
        if self._told and self._unready_seconds:
            log.info("told to stop: unready for %s s (server.unready_seconds), then draining", self._unready_seconds)
            until = time.monotonic() + self._unready_seconds
            while not self._hurried and (left := until - time.monotonic()) > 0:
                self.main_loop_interrupt.wait(left)
                self.main_loop_interrupt.clear()
        super().shutdown(exit_code)


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


class Ending:
    """Has a dispatcher stop when this process ends, or in time before the first process kills it.

    Granian waits for requests without end, also for one whose body never comes, and the first process for no longer
    than ``drain_seconds``; what is being sent then would be sent again.
    """

    def __init__(self, stop: Callable[[], object], drain_seconds: int) -> None:
        self._stop, self._seconds = stop, max(0, drain_seconds - STOPPING)
        self._lock, self._stopped = Lock(), False
        self._woken, waking = socket.socketpair()
        waking.setblocking(False)
        # as granian has signals handled, no code of ours runs; but the numbers of all that come are written here
        signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)
        Thread(target=self._wait, name="serve-ending", daemon=True).start()
        # a process of multiprocessing runs nothing of atexit
        util.Finalize(None, self._once, exitpriority=100)

    def _wait(self) -> None:
        while self._woken.recv(1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        time.sleep(self._seconds)
        self._once()

    def _once(self) -> None:
        # who comes second waits until it is done
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._stop()


def _application(config: str, draining: Any, drain_seconds: int, metrics: str | None) -> Any:
    """The application, in a process that serves it; with its dispatcher, for as long as that lasts.

    :param draining: see :class:`Server`; each request may ask, behind whatever filters of the INI's.
    :param drain_seconds: see :class:`Ending`.
    :param metrics: see :func:`serve`.
    """
    setup_logging(config)
    if metrics is not None:
        share(metrics)
    app = get_app(config)
    registry = getattr(app, "registry", None)
    if registry is not None:
        registry.dispatcher.start(registry.outbox)
        Ending(registry.dispatcher.stop, drain_seconds)
        util.Finalize(None, registry.tracing.stop, exitpriority=50)

    def serving(environ: dict[str, Any], start_response: Any) -> Any:
        environ[DRAINING] = draining.poll
        return app(environ, start_response)

    return serving
