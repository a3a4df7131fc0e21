"""A notifier whose provider is down pauses, for all processes together: a circuit breaker whose state is a row.

Closed, until one :class:`~customer_orders.interfaces.ChannelDown` or ``IN_A_ROW`` failures; then open, until
``paused_until``; then half-open: one attempt finds out, and closes it, or opens it for longer than before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, or_, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.events import ChannelPaused, announce
from customer_orders.notifications.models import Channel
from customer_orders.notifications.outcomes import Outcome, jitter
from customer_orders.settings import Section

log = logging.getLogger(__name__)

# Failures in a row that pause a channel.
IN_A_ROW = 5
# A pause lasts up to this much longer than it has to, so that many deployments do not return together.
SPREAD = 0.25

# Whether the channel of a ``notifier`` is in any state that its messages could change for the better.
TROUBLED = (
    select(or_(Channel.failures > 0, Channel.paused_until.is_not(None)))
    .where(Channel.notifier == bindparam("notifier"))
    .scalar_subquery()
)

# to build it costs more than to execute it
PAUSED = select(*(Channel.__table__.c[name] for name in ("notifier", "paused_until", "reason"))).where(
    Channel.notifier == bindparam("notifier"), Channel.paused_until.is_not(None)
)


def pausing(pauses: int, base: int, cap: int) -> float:
    """Seconds that a pause lasts which follows on ``pauses`` others: exponential; never shorter than ``base``."""
    wait = min(cap, base * 2 ** min(pauses, 32))
    return wait + jitter.uniform(0, SPREAD * wait)


def paused(session: Session, notifier: str) -> Row[Any] | None:
    """The channel of a notifier that is paused, or waits for the attempt that finds out; None while it works."""
    return session.connection().execute(PAUSED, {"notifier": notifier}).one_or_none()


def probe(session: Session, channel: Row[Any], owner: str, until: datetime) -> bool:
    """Take the one attempt that a half-open channel has; whether ``owner`` got it.

    Should the owner die with it, the next one's turn is at ``until``.
    """
    found = session.execute(
        update(Channel)
        .where(Channel.notifier == channel.notifier, Channel.paused_until == channel.paused_until)
        .values(paused_until=until, probe_owner=owner)
        .execution_options(synchronize_session=False)
    )
    return bool(found.rowcount)  # type: ignore[attr-defined]


def heard(
    session: Session, settings: Section, notifier: str, now: datetime, told: Iterable[tuple[str, Outcome]]
) -> datetime | None:
    """Learn from what attempts came to, in order, each with its owner; until when the channel is paused after that."""
    told = list(told)
    channel = session.get(Channel, notifier)
    if channel is None:
        if all(outcome.works is not False for _, outcome in told):
            return None
        fresh = {"notifier": notifier, "failures": 0, "pauses": 0, "updated_at": now}
        db.insert_unless_there(session, Channel, fresh)
    channel = session.get_one(Channel, notifier, with_for_update=True, populate_existing=True)
    for owner, outcome in told:
        if _learn(channel, settings, now, owner, outcome):
            announce(session, ChannelPaused(notifier))
    session.flush()
    return channel.paused_until


def _learn(channel: Channel, settings: Section, now: datetime, owner: str, outcome: Outcome) -> bool:
    """Learn from one attempt; whether the channel begins a pause for it."""
    pauses = False
    if channel.paused_until is not None:
        # what was begun before the pause tells nothing of the time after it
        if channel.probe_owner == owner:
            if outcome.works:
                log.warning("%s works again: its messages go on", channel.notifier)
                channel.failures = channel.pauses = 0
                channel.paused_until = channel.probe_owner = channel.reason = None
                channel.updated_at = now
            else:
                pauses = True
    elif outcome.works:
        channel.failures = 0
    elif outcome.works is False:
        channel.failures += 1
        pauses = outcome.name == "channel_down" or channel.failures >= IN_A_ROW
    if pauses:
        _pause(channel, settings, now, outcome)
    return pauses


def _pause(channel: Channel, settings: Section, now: datetime, outcome: Outcome) -> None:
    wait = pausing(channel.pauses, settings.pause_base, settings.pause_cap)
    channel.pauses += 1
    channel.paused_until, channel.probe_owner = now + timedelta(seconds=wait), None
    channel.reason, channel.updated_at = outcome.reason, now
    log.error(
        "%s is down, pause %s: nothing is sent for %.0f seconds, and no attempt counts (%s)",
        channel.notifier,
        channel.pauses,
        wait,
        outcome.reason,
    )
