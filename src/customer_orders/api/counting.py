"""Counting requests: how many one address, or one caller, has sent of a class (``limits.*``)."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import limits
from limits.storage import storage_from_string
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from customer_orders.sections.limiting import CLASSES
from customer_orders.settings import Section

log = logging.getLogger(__name__)

# Seconds to reach Redis, and to get an answer: longer than that no request shall wait for leave.
TIMEOUT = 0.5
# Seconds for which Redis is not asked again once it did not answer, so that not every request waits for it.
PAUSE = 5
# Seconds between two errors in the log about that.
QUIET = 60


@dataclass(frozen=True)
class Counted:
    """What one rate says of a request.

    :param name: of the policy: the class, whether by address or by caller, and the window.
    :param quota: requests that are taken in ``window`` seconds.
    :param left: requests that are left after this one.
    :param reset: seconds until there are more.
    """

    name: str
    quota: int
    window: int
    taken: bool
    left: int
    reset: int


class Limiter:
    """Counts in what ``limits.storage`` names, over a sliding window: no burst at the turn of a minute counts half.

    While that does not answer, everything is taken. A limit is for fairness and against guessing, and neither is worth
    that nobody can place an order: tokens and secrets are too long to be guessed without it, too.
    """

    def __init__(self, settings: Section) -> None:
        self.rates = {name: limits.parse_many(rate) if (rate := getattr(settings, name)) else [] for name in CLASSES}
        self.clock = time.monotonic
        self._url = settings.storage
        self._lock = threading.Lock()
        self._limiter: RateLimiter | None = None
        self._ask_after = self._log_after = -math.inf
        self._away = False

    def count(self, name: str, kind: str, who: str) -> list[Counted]:
        """Count a request of the class ``name`` against each of its rates, up to the first that has no more.

        :param kind: ``address`` or ``caller``; ``who``: which one.
        """
        counted: list[Counted] = []
        if not self.rates[name] or not self._may_ask():
            return counted
        try:
            limiter = self._connected()
            for rate in self.rates[name]:
                taken = limiter.hit(rate, name, kind, who)
                stats = limiter.get_window_stats(rate, name, kind, who)
                window = rate.get_expiry()
                reset = math.ceil(stats.reset_time - time.time())
                # of a window that began this very moment the library says that it ends now
                if reset <= 0 and stats.remaining >= rate.amount - 1:
                    reset = window
                left = stats.remaining if taken else 0
                counted.append(Counted(f"{name}-{kind}-{window}", rate.amount, window, taken, left, max(reset, 1)))
                if not taken:
                    break
        except Exception as error:  # noqa: BLE001 - whatever the storage raises, it is no fault of the request's
            self._failed(error)
            return []
        self._answered()
        return counted

    def _connected(self) -> RateLimiter:
        """Made with the first request: the memory has a thread of its own, and a server may fork before."""
        with self._lock:
            if self._limiter is None:
                options: dict[str, Any] = {} if self._url == "memory://" else _redis_options()
                storage = storage_from_string(self._url, **options)
                self._limiter = SlidingWindowCounterRateLimiter(storage)
            return self._limiter

    def _may_ask(self) -> bool:
        """Whether to ask now; of those who come at the end of a pause, one finds out for all."""
        if not self._away:
            return True
        with self._lock:
            if self.clock() < self._ask_after:
                return False
            self._ask_after = self.clock() + PAUSE
            return True

    def _failed(self, error: Exception) -> None:
        with self._lock:
            now = self.clock()
            self._away, self._ask_after = True, now + PAUSE
            if now < self._log_after:
                return
            self._log_after = now + QUIET
        log.error(
            "limits.storage (variable LIMITS_STORAGE) does not answer, so no request is limited until it does: %s: %s",
            type(error).__name__,
            error,
        )

    def _answered(self) -> None:
        if self._away:
            self._away = False
            log.info("limits.storage answers again; requests are limited")


def _redis_options() -> dict[str, Any]:
    # once more, at once: a connection that was kept may be that to a server which has restarted since
    retry = Retry(NoBackoff(), 1)
    return {
        "key_prefix": "customer-orders",
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": retry,
    }
