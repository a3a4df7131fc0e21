"""Running checks (see :mod:`customer_orders.interfaces`): each in a thread of its own, bounded in time, told by name.

Whatever a check does, asking is safe: one that hangs is told as failing, and is not begun again while it does.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock, Thread

from customer_orders.interfaces import Check, CheckFailed
from customer_orders.masking import CONTROLS, masked

log = logging.getLogger(__name__)

# What a plugin calls a check; its own name comes before it, with a dot between.
NAME = re.compile("[a-z][a-z0-9_]{0,39}")
# Characters of what a check says, at most.
LONGEST = 10_000
# It may have several lines, and nothing else that would change the terminal that shows it.
SHOWN = {code: spelt for code, spelt in CONTROLS.items() if code != ord("\n")}


class Outcome(StrEnum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Skipped(Exception):
    """There is nothing to check here, or something else has to be mended first; the text says which."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    :param found: what is there, or what is wrong; ``remedy``: what to do about it.
    :param seconds: that it took.
    """

    name: str
    outcome: Outcome
    found: str | None = None
    remedy: str | None = None
    seconds: float = 0


class Checking:
    """One check by its name, which any number of threads may ask for at once.

    :param online: whether it asks somebody outside the deployment.
    """

    def __init__(self, name: str, check: Check, *, online: bool = False) -> None:
        self.name, self.check, self.online = name, check, online
        self._lock = Lock()
        self._under_way: Future[Finding] | None = None

    def begin(self) -> Future[Finding]:
        """Run it, or join in if it runs already: of one that hangs there is one thread, however often it is asked."""
        with self._lock:
            if self._under_way is None or self._under_way.done():
                future: Future[Finding] = Future()
                # a daemon: a process ends although a check hangs
                Thread(target=self._run, args=(future,), name=f"check-{self.name}", daemon=True).start()
                # only now: where no thread could be had, nothing is under way
                self._under_way = future
            return self._under_way

    def _run(self, future: Future[Finding]) -> None:
        began = time.monotonic()
        try:
            found = self.check()
            finding = Finding(self.name, Outcome.OK, found if isinstance(found, str) else None)
        except Skipped as told:
            finding = Finding(self.name, Outcome.SKIPPED, str(told))
        except CheckFailed as told:
            outcome = Outcome.WARNING if told.warning else Outcome.FAILED
            finding = Finding(self.name, outcome, told.reason, told.remedy)
        except BaseException as error:
            # what it says may hold anything: that is for the log
            log.exception("the check %s is broken", self.name)
            kind = type(error).__name__
            finding = Finding(self.name, Outcome.FAILED, f"The check itself is broken: it raised {kind}.")
        future.set_result(replace(_presentable(finding), seconds=time.monotonic() - began))


def _presentable(finding: Finding) -> Finding:
    """Without phone numbers and secrets, should a check have told any, or repeated what somebody else answered."""

    def shown(text: object) -> str | None:
        return None if text is None else masked(str(text)).translate(SHOWN)[:LONGEST]

    return replace(finding, found=shown(finding.found), remedy=shown(finding.remedy))


def run(checkings: Iterable[Checking], seconds: float) -> Iterator[Finding]:
    """What each of them finds, in their order; all begin at once. What has not ended after ``seconds`` has failed."""
    begun = [(checking.name, checking.begin()) for checking in checkings]
    until = time.monotonic() + seconds
    for name, future in begun:
        try:
            yield future.result(max(0, until - time.monotonic()))
        except TimeoutError:
            yield Finding(name, Outcome.FAILED, f"The check did not end within {seconds:g} seconds.", seconds=seconds)
