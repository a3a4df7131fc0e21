"""A notifier whose provider is a file: every message arrives, and the inbox page shows it."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from zope.interface import implementer

from customer_orders.interfaces import Cost, INotifier, Message, Receipt, Unavailable

# How many of the newest messages the inbox shows.
SHOWN = 200
# What a line of the inbox tells of a message.
FIELDS = ("key", "to", "text", "reference", "at")


@implementer(INotifier)
class Simulator:
    """Takes every message and keeps it, a line each, so that several processes share one inbox."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def send(self, message: Message) -> Receipt:
        """Keep the message. Raises ``Unavailable`` if the file cannot be written."""
        reference = f"simulated-{secrets.token_hex(8)}"
        line = json.dumps(
            {
                "key": message.key,
                "to": message.to,
                "text": message.text,
                "reference": reference,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        try:
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    # one write, so that lines of several processes do not mix
                    os.write(descriptor, f"{line}\n".encode())
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise Unavailable(f"the inbox cannot be written: {error}") from error
        return Receipt(reference, Cost(Decimal("0.8000"), "KES"))

    def inbox(self) -> list[dict[str, str]]:
        """The newest messages, newest first."""
        try:
            with self.path.open("rb") as lines:
                newest = deque(lines, maxlen=SHOWN)
        except FileNotFoundError:
            return []
        found = []
        for line in reversed(newest):
            # a line may be torn (the disk was full), or by another hand
            with suppress(ValueError, TypeError, KeyError):
                message = json.loads(line)
                found.append({name: str(message[name]) for name in FIELDS})
        return found
