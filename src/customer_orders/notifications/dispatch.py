"""The core's two dispatchers: a thread in the web process, and none (a worker process does it)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from customer_orders.interfaces import IDispatcher

log = logging.getLogger(__name__)

BATCH = 100
# Seconds that stop() waits for the message in flight.
DRAIN = 20


@implementer(IDispatcher)
class EmbeddedDispatcher:
    """A thread that delivers what is due, woken by a hint and else every ``poll_interval`` seconds."""

    def __init__(self, poll_interval: float) -> None:
        self.poll_interval = poll_interval
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, outbox: Any) -> None:
        """Start the thread of this process, if it does not run yet; a forked process starts its own."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._wake, self._stopping = threading.Event(), threading.Event()
            self._thread = threading.Thread(target=self._run, args=(outbox,), name="outbox", daemon=True)
            self._thread.start()

    def hint(self, ids: Sequence[int]) -> None:
        """Look now. Which ids does not matter: the rows say what is due."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the message in flight, for 20 seconds at most, and return."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(DRAIN)

    def _run(self, outbox: Any) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            if not self._round(outbox):
                self._wake.wait(self.poll_interval)

    def _round(self, outbox: Any) -> bool:
        """Deliver what is due; whether to look again at once."""
        try:
            ids = outbox.due(BATCH)
            for notification_id in ids:
                if self._stopping.is_set():
                    return False
                outbox.deliver(notification_id)
        except Exception:
            # The database may be away; the rows keep everything, so the next round goes on.
            log.exception("a round of deliveries ended early; the next one goes on")
            return False
        return bool(ids)


@implementer(IDispatcher)
class WorkerDispatcher:
    """Nothing in this process: ``customer-orders worker`` looks for what is due by itself."""

    def start(self, outbox: Any) -> None:
        """Nothing to start."""

    def hint(self, ids: Sequence[int]) -> None:
        """Nobody to tell."""

    def stop(self) -> None:
        """Nothing to stop."""
