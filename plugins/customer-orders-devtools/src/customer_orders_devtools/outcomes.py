"""What the simulator does with a message to which number: the one table, for its code, the inbox page and the docs.

The numbers are of the range that Ofcom keeps free for drama (07700 900000 to 900999): they belong to nobody, so a
message that goes by a real provider after all reaches nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from customer_orders.interfaces import ChannelDown, Rejected, Unavailable, Uncertain


@dataclass(frozen=True)
class Callback:
    """What the provider posts ``after`` so many seconds; after 0, before it answers. Without ``status``: a STOP."""

    after: float
    status: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What becomes of a message.

    :param number: to whom; None: to everybody else.
    :param does: what the provider does, in words.
    :param becomes: what the notification becomes, in words; without reports, what is accepted stays ``sent``.
    :param raises: makes what ``send`` raises; None: it accepts.
    :param attempts: how many attempts at a message fail so, before it is accepted; None: all.
    :param hangs: whether it raises only after the time-out.
    :param arrives: whether the message arrives though ``send`` raises.
    :param callbacks: what is reported of a message that arrives.
    """

    name: str
    number: str | None
    does: str
    becomes: str
    raises: Callable[[], Exception] | None = None
    attempts: int | None = None
    hangs: bool = False
    arrives: bool = False
    callbacks: tuple[Callback, ...] = (Callback(1, "delivered"),)


OUTCOMES = (
    Outcome("accepted", None, "is accepted; reported delivered after a second", "delivered"),
    # what send answers
    Outcome(
        "rejected",
        "+447700900001",
        "is refused for good: there is no such number",
        "failed",
        partial(Rejected, "simulated: no such number"),
    ),
    Outcome(
        "blocklisted",
        "+447700900002",
        "is refused for good: the recipient blocks all senders",
        "suppressed",
        partial(Rejected, "simulated: the recipient blocks all senders", suppressed=True),
    ),
    Outcome(
        "unavailable",
        "+447700900003",
        "the gateway is busy, at every attempt",
        "queued; failed after the last attempt",
        partial(Unavailable, "simulated: the gateway is busy"),
    ),
    Outcome(
        "throttled",
        "+447700900004",
        "too many requests, try again after 5 seconds; then it is accepted",
        "queued, then delivered",
        partial(Unavailable, "simulated: too many requests", retry_after=5),
        attempts=1,
    ),
    Outcome(
        "flaky",
        "+447700900005",
        "the gateway is busy, twice; then it is accepted",
        "queued, then delivered",
        partial(Unavailable, "simulated: the gateway is busy"),
        attempts=2,
    ),
    Outcome(
        "channel-down",
        "+447700900006",
        "the account has no credit, twice, which stops everybody's messages; then it is accepted",
        "queued, then delivered",
        partial(ChannelDown, "simulated: the account has no credit"),
        attempts=2,
    ),
    Outcome(
        "time-out",
        "+447700900007",
        "no answer before the time-out, and the message never arrives",
        "unknown",
        partial(Uncertain, "simulated: no answer in time"),
        hangs=True,
    ),
    Outcome(
        "reply-lost",
        "+447700900008",
        "is accepted, but the answer is lost; reported delivered after a second",
        "unknown, then delivered",
        partial(Uncertain, "simulated: the answer is lost"),
        arrives=True,
    ),
    Outcome(
        "defective",
        "+447700900009",
        "the notifier raises what no contract knows",
        "unknown",
        partial(RuntimeError, "simulated: a defect"),
    ),
    # what is reported afterwards
    Outcome(
        "delivered",
        "+447700900101",
        "is accepted; reported sent after a second, delivered after two",
        "delivered",
        callbacks=(Callback(1, "sent"), Callback(2, "delivered")),
    ),
    Outcome(
        "undelivered",
        "+447700900102",
        "is accepted; reported failed after a second: the phone is off",
        "failed",
        callbacks=(Callback(1, "failed", "simulated: the phone is off"),),
    ),
    Outcome(
        "expired",
        "+447700900103",
        "is accepted; reported expired after a second",
        "expired",
        callbacks=(Callback(1, "expired"),),
    ),
    Outcome(
        "unreported",
        "+447700900104",
        "is accepted; nothing is ever reported",
        "sent; expired after 72 hours",
        callbacks=(),
    ),
    Outcome(
        "late",
        "+447700900105",
        "is accepted; reported delivered after a minute",
        "sent, then delivered",
        callbacks=(Callback(60, "delivered"),),
    ),
    Outcome(
        "duplicate",
        "+447700900106",
        "is accepted; reported delivered three times",
        "delivered",
        callbacks=(Callback(1, "delivered"), Callback(2, "delivered"), Callback(3, "delivered")),
    ),
    Outcome(
        "reordered",
        "+447700900107",
        "is accepted; reported delivered after a second, sent after two",
        "delivered",
        callbacks=(Callback(1, "delivered"), Callback(2, "sent")),
    ),
    Outcome(
        "contradicted",
        "+447700900108",
        "is accepted; reported expired after a second, failed after two, delivered after three",
        "expired, failed, then delivered",
        callbacks=(Callback(1, "expired"), Callback(2, "failed", "simulated: given up"), Callback(3, "delivered")),
    ),
    Outcome(
        "early",
        "+447700900109",
        "is accepted; reported delivered before the answer",
        "delivered",
        callbacks=(Callback(0, "delivered"),),
    ),
    Outcome(
        "stop",
        "+447700900110",
        "is accepted; reported delivered after a second; the customer answers STOP after two",
        "delivered; the customer gets no more",
        callbacks=(Callback(1, "delivered"), Callback(2, None)),
    ),
)

_BY_NUMBER = {outcome.number: outcome for outcome in OUTCOMES}


def outcome_for(number: str) -> Outcome:
    """What becomes of a message to ``number``."""
    return _BY_NUMBER.get(number, _BY_NUMBER[None])
