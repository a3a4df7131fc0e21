"""What the database tells at each scrape. While it does not, these metrics are absent, and all others are there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Thread
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import text

from customer_orders.db import Database
from customer_orders.notifications.backlog import Backlog, backlog

log = logging.getLogger(__name__)

# Seconds that a scrape waits for the database; Prometheus itself waits for ten.
PATIENCE = 3


class Stored:
    """Reads what waits in the outbox.

    :param notifier: the one that sends; it is told of also before it first had to pause.
    """

    def __init__(self, database: Database, notifier: str | None) -> None:
        self.database, self.notifier = database, notifier
        self._reading: Thread | None = None
        self._silent = False

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        found = self._ask()
        up = GaugeMetricFamily("database_up", "Whether the database answers.")
        up.add_metric([], found is not None)
        yield up
        if found is None:
            return
        depth = GaugeMetricFamily("outbox_depth", "Messages that wait, by status.", labels=["status"])
        for status, count in found.depth.items():
            depth.add_metric([status], count)
        yield depth
        yield GaugeMetricFamily(
            "outbox_oldest_seconds", "Seconds for which the oldest message has been due that is due.", found.oldest
        )
        paused = GaugeMetricFamily("channel_paused", "Whether a notifier pauses.", labels=["notifier"])
        known = {} if self.notifier is None else {self.notifier: False}
        for name, pauses in (known | found.paused).items():
            paused.add_metric([name], pauses)
        yield paused

    def _ask(self) -> Backlog | None:
        """What waits; None if the database does not tell in time.

        In a thread, since nothing else bounds how long a connection to a machine that is gone takes to break. Of those
        that do not end there is one at most.
        """
        if self._reading is not None and self._reading.is_alive():
            return None
        told: list[Backlog | Exception] = []
        self._reading = Thread(target=self._read, args=(told,), name="metrics-backlog", daemon=True)
        self._reading.start()
        self._reading.join(PATIENCE)
        found = told[0] if told else TimeoutError(f"no answer within {PATIENCE} seconds")
        if isinstance(found, Backlog):
            self._silent = False
            return found
        if not self._silent:
            said = str(getattr(found, "orig", found)).partition("\n")[0]
            log.warning("the metrics of the outbox are absent until the database tells of it: %s", said)
        self._silent = True
        return None

    def _read(self, told: list[Any]) -> None:
        try:
            with self.database.transaction(writes=False) as session:
                # a process that forks leaves no connection to its children
                session.connection().detach()
                if self.database.engine.name == "postgresql":
                    session.execute(text(f"SET LOCAL statement_timeout = {PATIENCE * 1000}"))
                told.append(backlog(session))
        except Exception as error:  # noqa: BLE001 - whatever it is, the scrape goes on
            told.append(error)
