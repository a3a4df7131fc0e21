"""Posts delivery reports, as a provider does: over HTTP, some time after the message, again if nobody takes them."""

from __future__ import annotations

import heapq
import json
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

# Seconds for connecting, and for the answer.
TIMEOUT = 5
# Seconds until a report that was not taken is posted again; after the last it is lost.
WAITS = (1, 5, 25)


class Reporter:
    """Posts to one address, of which it tells nobody: there is a secret in it.

    What waits to be posted is lost when the process ends.

    :param pace: by how much to multiply all waits.
    """

    def __init__(self, url: str, pace: float = 1) -> None:
        parts = urlsplit(url)
        self._netloc, self._path, self._pace = parts.netloc, parts.path, pace
        # when, on the monotonic clock; a number, so that those of one moment keep their order; what; its tries
        self._waiting: list[tuple[float, int, Mapping[str, Any], int]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def later(self, seconds: float, report: Mapping[str, Any], tries: int = 0) -> None:
        """Post a report after so many seconds."""
        with self._changed:
            due = time.monotonic() + seconds * self._pace
            heapq.heappush(self._waiting, (due, next(self._numbers), report, tries))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="devtools-reports", daemon=True)
                self._thread.start()
            self._changed.notify()

    def post(self, report: Mapping[str, Any]) -> bool:
        """Post a report now; tells whether it was taken."""
        try:
            with closing(HTTPConnection(self._netloc, timeout=TIMEOUT)) as connection:
                connection.request("POST", self._path, json.dumps(report), {"Content-Type": "application/json"})
                status = connection.getresponse().status
        except (OSError, HTTPException) as error:
            log.warning("a simulated report was not taken: %s", type(error).__name__)
            return False
        if not 200 <= status < 300:
            log.warning("a simulated report was answered by %s; is devtools.report_url right?", status)
            return False
        return True

    def _run(self) -> None:
        while True:
            report, tries = self._next()
            if not self.post(report) and tries < len(WAITS):
                self.later(WAITS[tries], report, tries + 1)

    def _next(self) -> tuple[Mapping[str, Any], int]:
        """The next report, once it is due, and how often it was posted before."""
        with self._changed:
            while True:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is not None and wait <= 0:
                    _, _, report, tries = heapq.heappop(self._waiting)
                    return report, tries
                self._changed.wait(wait)
