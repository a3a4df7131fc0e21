"""The core's two dispatchers: threads in the web process, and none (worker processes do it)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from customer_orders.interfaces import CheckFailed, IDispatcher
from customer_orders.notifications.wakeup import Teller
from customer_orders.notifications.worker import Worker


class OfProcess:
    """What each process has one of: a fork inherits no threads, and makes its own.

    By process, and no lock: a lock, an event too, that is held during a fork is held for ever in the child.
    """

    def __init__(self) -> None:
        self._by_process: dict[int, Any] = {}

    def get(self) -> Any:
        """This process's, or None."""
        return self._by_process.get(os.getpid())

    def start(self, made: Any) -> None:
        """Start it as this process's, unless there is one."""
        # of several who are here at once, one gets its own back
        if self._by_process.setdefault(os.getpid(), made) is made:
            made.start()


@implementer(IDispatcher)
class EmbeddedDispatcher:
    """Threads that deliver what is due, woken by a hint and else every ``poll_interval`` seconds."""

    def __init__(self, concurrency: int, poll_interval: float) -> None:
        self.concurrency, self.poll_interval = concurrency, poll_interval
        self._worker = OfProcess()

    def start(self, outbox: Any) -> None:
        """Start the threads of this process, unless they were started before; a forked process starts its own."""
        if self._worker.get() is None:
            self._worker.start(Worker(outbox, self.concurrency, self.poll_interval))

    def hint(self, ids: Sequence[int]) -> None:
        """Look now. Which ids does not matter: the rows say what is due."""
        if (worker := self._worker.get()) is not None:
            worker.wake()

    def check(self) -> str | None:
        """The threads of this process live. Raises ``CheckFailed``: orders would be taken, and nobody be told."""
        worker = self._worker.get()
        if worker is None:
            raise CheckFailed("The dispatcher has not been started in this process.", remedy="Restart the process.")
        if worker.stopped:
            raise CheckFailed("The dispatcher is stopping, and the process with it.")
        if worker.dead:
            said = f"Threads of the dispatcher have died: {', '.join(worker.dead)}."
            raise CheckFailed(said, remedy="Restart the process, and report what its log says of them.")
        return None

    def stop(self) -> None:
        """Finish what is being sent, for 20 seconds at most, and return."""
        if (worker := self._worker.get()) is not None:
            worker.stop()


@implementer(IDispatcher)
class WorkerDispatcher:
    """Sends nothing in this process; wakes those of ``customer-orders worker`` where the database can."""

    def __init__(self) -> None:
        self._teller = OfProcess()

    def start(self, outbox: Any) -> None:
        """Have ready what tells them."""
        if self._teller.get() is None:
            self._teller.start(Teller(outbox.database))

    def hint(self, ids: Sequence[int]) -> None:
        """Wake the workers; those on other databases look by themselves."""
        if (teller := self._teller.get()) is not None:
            teller.tell()

    def stop(self) -> None:
        """Nothing more is told."""
        if (teller := self._teller.get()) is not None:
            teller.stop()
