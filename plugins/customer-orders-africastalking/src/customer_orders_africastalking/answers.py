"""What Africa's Talking answers, in the words of the contract.

Source: https://developers.africastalking.com/docs/sms/sending/bulk, and its list of status codes.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from customer_orders.interfaces import ChannelDown, Cost, Message, NotSent, Receipt, Rejected, Unavailable, Uncertain
from customer_orders_http import parse

log = logging.getLogger(__name__)

# Codes of a recipient whose message was taken: Processed, Sent, Queued.
ACCEPTED = frozenset({100, 101, 102})

COULD_NOT_ROUTE = 407

_suppressed = partial(Rejected, suppressed=True)

# Codes of a recipient whose message was not taken: the provider's name for it, and what the core is told.
REFUSALS: Mapping[int, tuple[str, Callable[[str], NotSent]]] = {
    401: ("RiskHold", ChannelDown),
    402: ("InvalidSenderId", ChannelDown),
    403: ("InvalidPhoneNumber", Rejected),
    404: ("UnsupportedNumberType", Rejected),
    405: ("InsufficientBalance", ChannelDown),
    406: ("UserInBlacklist", _suppressed),
    # for the first time; see Answers
    COULD_NOT_ROUTE: ("CouldNotRoute", Unavailable),
    409: ("DoNotDisturbRejection", _suppressed),
    500: ("InternalServerError", Unavailable),
    501: ("GatewayError", Unavailable),
    502: ("RejectedByGateway", Rejected),
}

CODES = {name.lower(): code for code, (name, _) in REFUSALS.items()}

# Keys and codes that are remembered, at most.
REMEMBERED = 10_000

# Seconds: a provider that asks for a longer wait is not taken at its word.
LONGEST_WAIT = 6 * 3600


class Seen:
    """The newest words of many, up to a number of them; may be used from many threads."""

    def __init__(self, most: int) -> None:
        self._most, self._words, self._lock = most, OrderedDict[object, None](), threading.Lock()

    def before(self, word: object) -> bool:
        """Whether the word was seen before; it is now."""
        with self._lock:
            known = word in self._words
            self._words[word] = None
            self._words.move_to_end(word)
            if len(self._words) > self._most:
                self._words.popitem(last=False)
            return known


class Answers:
    """Reads the answers to one notifier; may be used from many threads.

    It remembers which messages could not be routed, to try each once more and then give it up. That memory is this
    process's own: each of several processes may try once more, within the attempts that the core allows.

    :param secret: the API key, which no reason may repeat.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._unrouted, self._unknown = Seen(REMEMBERED), Seen(REMEMBERED)

    def read(self, answer: requests.Response, message: Message) -> Receipt:
        """The receipt, if the one recipient's message was taken.

        Raises :class:`Rejected`, :class:`Unavailable`, :class:`ChannelDown` or :class:`Uncertain` for every other
        answer, whatever is in it.
        """
        if not 200 <= answer.status_code < 300:
            raise self._failure(answer, message)
        match _json(answer):
            case {"SMSMessageData": {"Recipients": [], "Message": str(reason)}}:
                raise self._nobody(reason, message)
            case {"SMSMessageData": {"Recipients": [dict(only)]}}:
                # its number is not compared: the provider may mask it, or write it in another way
                return self._result(only, message)
            case {"SMSMessageData": {"Recipients": [_, _, *_] as several}}:
                ours = [each for each in several if isinstance(each, dict) and each.get("number") == message.to]
                if len(ours) == 1:
                    return self._result(ours[0], message)
        raise Uncertain(f"HTTP {answer.status_code} with an answer of no known form")

    def _result(self, recipient: Mapping[str, Any], message: Message) -> Receipt:
        """What came of the message to a recipient."""
        code = _code(recipient.get("statusCode"))
        if code is None:
            raise Uncertain("an answer without a status code")
        if code in ACCEPTED:
            return _receipt(recipient)
        raise self._refusal(code, message, recipient.get("status"))

    def _refusal(self, code: int, message: Message, status: object = None) -> NotSent:
        """What a code that is not one of acceptance means. ``status``: what the provider calls it."""
        if code not in REFUSALS:
            if not self._unknown.before(code):
                log.warning("Africa's Talking answers with a status code that is not documented: %s", code)
            reason = f"{code} {self._quoted(status, message)}".rstrip()
            return Rejected(reason) if 400 <= code < 500 else Uncertain(reason)
        name, outcome = REFUSALS[code]
        if code == COULD_NOT_ROUTE and self._unrouted.before(message.key):
            outcome = Rejected
        return outcome(f"{code} {name}")

    def _nobody(self, reason: str, message: Message) -> NotSent:
        """An answer without recipients: its text is the name of a refusal, or nothing that we know."""
        code = CODES.get(re.sub("[^a-z]", "", reason.lower()))
        if code is None:
            return Uncertain(f"no recipient: {self._quoted(reason, message)}".rstrip(": "))
        return self._refusal(code, message)

    def _failure(self, answer: requests.Response, message: Message) -> NotSent:
        """What an HTTP status other than 2xx means."""
        status = answer.status_code
        reason = f"HTTP {status}"
        if status in (429, 503):
            return Unavailable(reason, retry_after=_retry_after(answer.headers.get("Retry-After")))
        if status == 401:
            return ChannelDown(f"{reason}: africastalking.username or africastalking.api_key is wrong")
        # These are about the address or the account, not about a recipient: were they rejections, a slip in
        # africastalking.endpoint would lose every message until somebody sees it.
        if status in (402, 403, 404, 405, 407):
            return ChannelDown(f"{reason}: africastalking.endpoint or the account is wrong")
        # some gateways say 408 of what is behind them, which may have acted
        if 400 <= status < 500 and status != 408:
            return Rejected(reason)
        if 300 <= status < 400:
            host = self._quoted(_host(answer.headers.get("Location", "")), message)
            return Uncertain(f"{reason}: africastalking.endpoint leads to a redirect, {host}".rstrip(", "))
        return Uncertain(reason)

    def _quoted(self, text: object, message: Message) -> str:
        """What the provider says, fit to be kept and logged: short, printable, and without what it may repeat of
        ours (key, words, number; any number with five digits or more).
        """
        if not isinstance(text, str):
            return ""
        for ours in filter(None, (self._secret, message.text, message.to)):
            text = re.sub(re.escape(ours), "***", text, flags=re.IGNORECASE)
        text = re.sub(r"\d([\s()-]*\d){4,}", "***", text)
        return "".join(letter if letter.isprintable() else " " for letter in text)[:100].strip()


def _json(answer: requests.Response) -> Any:
    """The body, whatever its content type says; None if it is no JSON."""
    try:
        return parse(answer)
    except ValueError:
        return None


def _code(told: object) -> int | None:
    """A status code: an integer or a string of three digits; None if it is anything else."""
    # str of a bool is no digits
    if isinstance(told, int | str) and re.fullmatch("[1-9][0-9]{2}", str(told)):
        return int(told)
    return None


def _receipt(recipient: Mapping[str, Any]) -> Receipt:
    """The receipt of a recipient whose message was taken.

    Raises :class:`Uncertain` without a usable id: the message is on its way, but nothing could be told of it later.
    """
    reference = recipient.get("messageId")
    if not isinstance(reference, str) or reference.strip().lower() in ("", "none"):
        raise Uncertain("accepted without a messageId")
    if not reference.isprintable() or len(reference) > 255:
        raise Uncertain("accepted with a messageId that cannot be kept")
    return Receipt(reference, _cost(recipient.get("cost")))


def _cost(told: object) -> Cost | None:
    """What a message costs, as in ``KES 0.8000``; None for anything else: no price makes a sent message fail."""
    found = re.fullmatch(r"([A-Z]{3}) ([0-9]{1,10}(?:\.[0-9]+)?)", told) if isinstance(told, str) else None
    if found is None:
        return None
    amount = Decimal(found[2]).quantize(Decimal("0.0001"))
    return Cost(amount, found[1]) if amount < 10**10 else None


def _retry_after(told: str | None) -> float | None:
    """Seconds to wait, by a ``Retry-After`` of seconds or of a date; None without one that can be read."""
    try:
        return min(Retry().parse_retry_after(told or ""), LONGEST_WAIT)
    # the standard library's reading of dates is lenient until it breaks
    except (InvalidHeader, ValueError, TypeError, LookupError, ArithmeticError):
        return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
