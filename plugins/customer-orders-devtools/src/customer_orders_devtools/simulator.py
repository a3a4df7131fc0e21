"""A notifier whose provider is a file: the inbox page shows what arrives, and some numbers have other outcomes."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from zope.interface import implementer

from customer_orders.interfaces import (
    CheckFailed,
    Cost,
    IDeliveryReports,
    INotifier,
    Message,
    OptOut,
    Receipt,
    Report,
    Unavailable,
)
from customer_orders_devtools.outcomes import Callback, outcome_for
from customer_orders_devtools.reporter import Reporter

# How many of the newest messages the inbox shows.
SHOWN = 200
# What a line of the inbox tells of a message.
FIELDS = ("key", "to", "text", "reference", "at")


@implementer(INotifier, IDeliveryReports)
class Simulator:
    """Keeps every message, a line each, so that several processes share one inbox, and does what its number asks for.

    :param path: of the file with the messages.
    :param timeout: seconds that a send takes which gets no answer.
    :param reporter: posts the reports; None: there are none.
    """

    def __init__(self, path: str, timeout: float = 5, reporter: Reporter | None = None) -> None:
        self.path, self.timeout, self.reporter = Path(path), timeout, reporter
        self._lock = threading.Lock()

    def send(self, message: Message) -> Receipt:
        """Do what the table of outcomes says of the number. Raises ``Unavailable`` if the file cannot be written."""
        outcome = outcome_for(message.to)
        reference = f"simulated-{secrets.token_hex(8)}"
        try:
            raises = outcome.raises
            if raises and outcome.attempts is not None and self._failures(message) >= outcome.attempts:
                raises = None
            arrived = raises is None or outcome.arrives
            self._keep(message, reference, outcome.name, arrived)
        except OSError as error:
            raise Unavailable(f"the inbox cannot be written: {error}") from error
        if arrived:
            self._report(outcome.callbacks, reference, message.to)
        if raises is None:
            return Receipt(reference, Cost(Decimal("0.8000"), "KES"))
        if outcome.hangs:
            time.sleep(self.timeout)
        raise raises()

    def parse(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report | OptOut]:
        """Read what the reporter posts. Raises ValueError for anything else."""
        try:
            told = json.loads(body)
        except RecursionError:
            raise ValueError("the report is nested too deep") from None
        if isinstance(told, dict) and told.keys() == {"opt_out"}:
            return [OptOut(told["opt_out"])]
        if not isinstance(told, dict) or told.keys() != {"reference", "status", "reason", "to"}:
            raise ValueError("a report holds reference, status, reason and to; or opt_out alone")
        return [Report(**told)]

    def _report(self, callbacks: Sequence[Callback], reference: str, to: str) -> None:
        if self.reporter is None:
            return
        for callback in callbacks:
            told: dict[str, Any] = {"opt_out": to}
            if callback.status is not None:
                told = {"reference": reference, "status": callback.status, "reason": callback.reason, "to": to}
            if callback.after:
                self.reporter.later(callback.after, told)
            else:
                self.reporter.post(told)

    def _keep(self, message: Message, reference: str, outcome: str, arrived: bool) -> None:
        line = json.dumps(
            {
                "key": message.key,
                "to": message.to,
                "text": message.text,
                "reference": reference,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "outcome": outcome,
                "arrived": arrived,
            }
        )
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # one write, so that lines of several processes do not mix
                os.write(descriptor, f"{line}\n".encode())
            finally:
                os.close(descriptor)

    def _failures(self, message: Message) -> int:
        """How many attempts at a message failed since one last arrived."""
        failures = 0
        with suppress(FileNotFoundError), self.path.open("rb") as lines:
            for kept in map(_read, lines):
                if kept and (kept["key"], kept["to"]) == (message.key, message.to):
                    failures = 0 if kept["arrived"] else failures + 1
        return failures

    def check(self) -> str:
        """The file can be written; it is not made. Raises ``CheckFailed``."""
        nearest = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if nearest.is_dir() == (nearest == self.path) or not os.access(nearest, os.W_OK):
            raise CheckFailed(f"The inbox {self.path} cannot be written.", remedy="Mend devtools.inbox.")
        return f"Messages go to {self.path}."

    def inbox(self) -> list[dict[str, Any]]:
        """The newest messages, newest first."""
        try:
            with self.path.open("rb") as lines:
                newest = deque(lines, maxlen=SHOWN)
        except FileNotFoundError:
            return []
        return [message for message in map(_read, reversed(newest)) if message]


def _read(line: bytes) -> dict[str, Any] | None:
    """A message of the inbox; None if the line is torn (the disk was full), or by another hand."""
    with suppress(ValueError, TypeError, KeyError):
        message = json.loads(line)
        # the first simulator wrote no more than these
        found: dict[str, Any] = {name: str(message[name]) for name in FIELDS}
        return {**found, "outcome": message.get("outcome", "accepted"), "arrived": message.get("arrived", True)}
    return None
