"""The core's two dispatchers: a thread in the web process, and none (a worker process does it)."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from customer_orders.interfaces import IDispatcher

log = logging.getLogger(__name__)

BATCH = 100
# Seconds between two sweeps.
SWEEP = 60
# Seconds that stop() waits for the message in flight.
DRAIN = 20


@implementer(IDispatcher)
class EmbeddedDispatcher:
    """A thread that delivers what is due, woken by a hint and else every ``poll_interval`` seconds."""

    def __init__(self, poll_interval: float) -> None:
        self.poll_interval = poll_interval
        # By process, and no lock: a lock, an event too, that is held during a fork is held for ever in the child.
        self._loops: dict[int, _Loop] = {}

    def start(self, outbox: Any) -> None:
        """Start the thread of this process, unless it was started before; a forked process starts its own."""
        if self._loop is None:
            loop = _Loop(outbox, self.poll_interval)
            # of several who are here at once, one gets its own back
            if self._loops.setdefault(os.getpid(), loop) is loop:
                loop.start()

    def hint(self, ids: Sequence[int]) -> None:
        """Look now. Which ids does not matter: the rows say what is due."""
        if self._loop is not None:
            self._loop.wake.set()

    def stop(self) -> None:
        """Finish the message in flight, for 20 seconds at most, and return."""
        loop = self._loop
        if loop is not None:
            loop.stopping.set()
            loop.wake.set()
            # not so if start() is still at it; then it ends before it begins
            if loop.is_alive():
                loop.join(DRAIN)

    @property
    def _loop(self) -> _Loop | None:
        return self._loops.get(os.getpid())


class _Loop(threading.Thread):
    """The thread of one process."""

    def __init__(self, outbox: Any, poll_interval: float) -> None:
        super().__init__(name="outbox", daemon=True)
        self.outbox, self.poll_interval = outbox, poll_interval
        self.wake, self.stopping = threading.Event(), threading.Event()
        self.sweep_at = time.monotonic()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.wake.clear()
            if not self._round():
                self.wake.wait(self.poll_interval)

    def _round(self) -> bool:
        """Deliver what is due; whether to look again at once."""
        try:
            ids = self.outbox.due(BATCH)
            for notification_id in ids:
                if self.stopping.is_set():
                    return False
                self.outbox.deliver(notification_id)
            if time.monotonic() >= self.sweep_at:
                self.sweep_at = time.monotonic() + SWEEP
                self.outbox.sweep()
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
