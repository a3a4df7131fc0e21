"""The pool of database connections, which tells what it does: how many are out, and how long each was waited for."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import Any, Protocol, cast

from sqlalchemy import PoolProxiedConnection, QueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeout

# SQLAlchemy logs by the name of the class, and would be as quiet as elsewhere by its own
logging.getLogger(__name__).setLevel(logging.WARNING)


class PoolWatch(Protocol):
    """Whoever wants to know."""

    def sized(self, size: int, overflow: int) -> None:
        """There is a pool: so many connections are kept, and so many more may be opened."""

    def used(self, checked_out: int, overflow: int) -> None:
        """So many are out now, and so many are open beyond those that are kept."""

    def waited(self, seconds: float, *, in_vain: bool) -> None:
        """A connection was had, or not within the pool's time-out, after so long."""


class WatchedPool(QueuePool):
    """SQLAlchemy's, and ``watch``, which is told."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watch: PoolWatch | None = None
        self._telling = Lock()
        self._disposed = False

    def watched_by(self, watch: PoolWatch) -> None:
        """Tell this one from here on, also of the pools that come after this one (``Engine.dispose``)."""
        self.watch = watch
        watch.sized(self.size(), self._max_overflow)
        self._tell()

    def recreate(self) -> WatchedPool:
        """Another like it."""
        made = cast(WatchedPool, super().recreate())
        self._disposed = True
        # what is still out of this one comes back unseen
        watch, self.watch = self.watch, None
        if watch is not None:
            made.watched_by(watch)
        return made

    def connect(self) -> PoolProxiedConnection:
        """A connection, new or used before, that works. Raises ``sqlalchemy.exc.TimeoutError``."""
        began = time.perf_counter()
        try:
            connection = super().connect()
        except PoolTimeout:
            self._say_waited(began, in_vain=True)
            raise
        self._say_waited(began, in_vain=False)
        return connection

    def _do_get(self) -> Any:
        record = super()._do_get()
        self._tell()
        return record

    def _do_return_conn(self, record: Any) -> None:
        if self._disposed:
            # SQLAlchemy would keep it open, in a pool that nobody takes from any more
            record.close()
            return
        super()._do_return_conn(record)
        self._tell()

    def _say_waited(self, began: float, *, in_vain: bool) -> None:
        if self.watch is not None:
            self.watch.waited(time.perf_counter() - began, in_vain=in_vain)

    def _tell(self) -> None:
        if self.watch is not None:
            # read and told in one, so that the last word is of the last state
            with self._telling:
                self.watch.used(self.checkedout(), max(0, self.overflow()))
