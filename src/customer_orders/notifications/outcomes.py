"""What an attempt at a message came to, in our words, and how long to wait for the next one."""

from __future__ import annotations

import logging
import random
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from customer_orders.interfaces import (
    ChannelDown,
    Cost,
    Message,
    Receipt,
    Rejected,
    Unavailable,
    Uncertain,
)
from customer_orders.masking import masked
from customer_orders.notifications.models import Status

log = logging.getLogger(__name__)

jitter = random.SystemRandom()


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    :param name: ``accepted, rejected, unavailable, channel_down, uncertain, error``; and ``abandoned``, said of an
        attempt by whoever finds its lease expired.
    :param status: what it makes of the notification; ``queued``: another attempt may be made.
    :param retry_after: seconds that the provider asks to wait.
    """

    name: str
    status: Status
    reason: str | None = None
    retry_after: float = 0
    reference: str | None = None
    cost: Cost | None = None

    @property
    def works(self) -> bool | None:
        """Whether the provider works; None if this does not tell."""
        known = {"accepted": True, "rejected": True}
        # uncertain too: while it answers to nothing in time, message after message would become unknown
        return known.get(self.name, None if self.name == "error" else False)


def of_sending(name: str, notifier: Any, message: Message) -> Outcome:
    """Send by the notifier of that name, and say what came of it, whatever it was."""
    try:
        return _accepted(notifier.send(message))
    except Rejected as error:
        status = Status.SUPPRESSED if error.suppressed else Status.FAILED
        return Outcome("rejected", status, told(error.reason))
    except Unavailable as error:
        return Outcome("unavailable", Status.QUEUED, told(error.reason), retry_after=error.retry_after or 0)
    except ChannelDown as error:
        return Outcome("channel_down", Status.QUEUED, told(error.reason))
    except Uncertain as error:
        return Outcome("uncertain", Status.UNKNOWN, told(error.reason))
    except (Exception, SystemExit) as error:
        # Outside the contract nothing says that it was not sent; so it is not sent again. A SystemExit, which some
        # libraries raise, would end the thread without a word.
        log.exception("the notifier %s is defective", name)
        return Outcome("error", Status.UNKNOWN, f"notifier_error: {type(error).__name__}")


def _accepted(receipt: Receipt) -> Outcome:
    """The provider took the message. Raises whatever comes of a receipt that breaks the contract."""
    reference, cost = receipt.reference, receipt.cost
    if not reference or reference != printable(reference):
        raise ValueError("a receipt needs a printable reference of at most 255 characters")
    if cost is not None:
        if not 0 <= cost.amount < 10**10 or not re.fullmatch("[A-Z]{3}", cost.currency):
            raise ValueError("a receipt's cost is a decimal, and a currency of ISO 4217")
        cost = Cost(Decimal(cost.amount), cost.currency)
    return Outcome("accepted", Status.SENT, reference=reference, cost=cost)


def printable(told: object) -> str:
    """What a provider says, as every database can keep it: printable, and 255 characters at most."""
    return "".join(letter if letter.isprintable() else " " for letter in str(told))[:255]


def told(reason: object) -> str:
    """Why, as it is kept and shown: no number, which some providers repeat."""
    return printable(masked(str(reason)))


def backoff(attempt: int, base: int, cap: int) -> float:
    """Seconds to wait after the given attempt (1 for the first): exponential, with full jitter.

    Between 0 and ``min(cap, base * 2 ** (attempt - 1))``, so that those who failed together do not return together.
    """
    return jitter.uniform(0, min(cap, base * 2 ** min(attempt - 1, 32)))
