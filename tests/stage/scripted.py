"""A plugin for tests, installed as any other: a notifier and an identity provider that do as they are told."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from urllib.parse import urlencode

from zope.interface import implementer

from customer_orders.interfaces import (
    Cost,
    IDeliveryReports,
    Identity,
    IIdentityProvider,
    INotifier,
    Message,
    OptOut,
    Receipt,
    Report,
)


@implementer(INotifier, IDeliveryReports)
class ScriptedNotifier:
    """Does what ``script`` says, message by message: raises an exception, calls a function, returns a receipt.

    With the script at its end, every message is accepted.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.script = deque()
        self.sent: list[Message] = []
        self._lock = threading.Lock()

    def send(self, message: Message) -> Receipt:
        with self._lock:
            self.sent.append(message)
            step = self.script.popleft() if self.script else None
            number = len(self.sent)
        if callable(step):
            step = step(message)
        if isinstance(step, BaseException):
            raise step
        return step or Receipt(f"scripted-{number}", Cost(Decimal("0.8"), "KES"))

    def parse(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report | OptOut]:
        """A JSON array of objects: the fields of a report, or of an opt-out, as they are."""
        try:
            told = [(Report if "reference" in one else OptOut)(**one) for one in json.loads(body)]
        except (TypeError, RecursionError):
            told = []
        if not told:
            raise ValueError("no reports")
        return told


@implementer(IIdentityProvider)
class ScriptedProvider:
    """Says that whoever comes is ``identity``, or raises it."""

    title = "Scripted"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.identity: Identity | Exception = Identity("subject-1", "jane@shop.example", True, "Jane")
        self.asked: list[dict[str, str]] = []

    def authorization_url(self, redirect_uri: str, state: str, nonce: str, code_challenge: str) -> str:
        query = {
            "redirect_uri": redirect_uri,
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge,
        }
        return f"https://provider.example/authorize?{urlencode(query)}"

    def identify(self, redirect_uri: str, code: str, nonce: str, code_verifier: str) -> Identity:
        self.asked.append({"redirect_uri": redirect_uri, "code": code, "nonce": nonce, "code_verifier": code_verifier})
        if isinstance(self.identity, Exception):
            raise self.identity
        return self.identity


def includeme(config):
    config.add_notifier("scripted", ScriptedNotifier())
    config.add_identity_provider("scripted", ScriptedProvider())
