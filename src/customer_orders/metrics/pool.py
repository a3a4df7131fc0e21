"""Measuring the pool of database connections."""

from __future__ import annotations

from customer_orders.metrics.measures import Measures


class Pool:
    """Watches a pool (see :class:`customer_orders.pooling.PoolWatch`)."""

    def __init__(self, measures: Measures) -> None:
        self.measures = measures

    def sized(self, size: int, overflow: int) -> None:
        """There is a pool."""
        self.measures.pool_size.set(size)
        self.measures.pool_max_overflow.set(overflow)

    def used(self, checked_out: int, overflow: int) -> None:
        """So many are out, and so many are open beyond its size."""
        self.measures.pool_checked_out.set(checked_out)
        self.measures.pool_overflow.set(overflow)

    def waited(self, seconds: float, *, in_vain: bool) -> None:
        """A connection was had, or not in time."""
        if in_vain:
            self.measures.pool_timeouts.inc()
        else:
            self.measures.pool_wait_seconds.observe(seconds)
