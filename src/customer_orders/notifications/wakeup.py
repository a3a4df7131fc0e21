"""Waking workers from other processes: LISTEN and NOTIFY on PostgreSQL. What gets lost costs time, no message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from customer_orders.db import Database

log = logging.getLogger(__name__)

CHANNEL = "customer_orders_outbox"
# Seconds until a connection that broke is made anew, and for which the listener waits before it sees that it is over.
AGAIN = 5


class Teller:
    """Tells every listener, from a thread of its own, so that whoever calls :meth:`tell` need not wait.

    Several calls may come to one NOTIFY: PostgreSQL takes a lock for each.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._told, self._over = Event(), False
        self._thread = Thread(target=self._run, name="outbox-teller", daemon=True)

    def start(self) -> None:
        """Begin; nothing on a database that cannot notify."""
        if self.database.engine.name == "postgresql":
            self._thread.start()

    def tell(self) -> None:
        """There is something due. Returns at once."""
        self._told.set()

    def stop(self) -> None:
        """End."""
        self._over = True
        self._told.set()
        if self._thread.is_alive():
            self._thread.join(AGAIN)

    def _run(self) -> None:
        while not self._over:
            self._told.wait()
            self._told.clear()
            try:
                with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
            except Exception as error:  # noqa: BLE001 - workers look by themselves, a little later
                log.warning("workers could not be told that a message is due: %s", error)


class Listener:
    """Calls ``wake`` for every NOTIFY; on a database without, never."""

    def __init__(self, database: Database, wake: Callable[[], None]) -> None:
        self.database, self.wake = database, wake
        self._over = Event()
        self._thread = Thread(target=self._run, name="outbox-listener", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self.database.engine.name == "postgresql":
            self._thread.start()

    def stop(self) -> None:
        """End, within some seconds; the thread holds up nobody's exit."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - the worker looks by itself meanwhile
                log.warning("no longer told when a message is due, and trying again: %s", error)
                self._over.wait(AGAIN)

    def _listen(self) -> None:
        with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver: Any = connection.connection.driver_connection
            try:
                # what was committed before it listened
                self.wake()
                while not self._over.is_set():
                    for _ in driver.notifies(timeout=1, stop_after=1):
                        self.wake()
            finally:
                # nobody else gets a connection that listens
                connection.invalidate()
