"""The outbox: claim by lease, send outside any transaction, record what came of it.

The guarantees are in the row, so any number of threads, processes and machines may work on it. If we die before a
claim is committed, nothing happened; after it, the lease expires and the message is tried again (a provider without
idempotency keys may then send twice: at least once, never lost). Whoever outlives their lease cannot record over a
later attempt: results are fenced by the owner and the number of the attempt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from zope.interface import implementer

from customer_orders import db
from customer_orders.db import Database
from customer_orders.interfaces import IOutbox
from customer_orders.notifications import claiming, recording, sweeping, traces
from customer_orders.notifications.claiming import Claim
from customer_orders.notifications.outcomes import Outcome, of_sending
from customer_orders.settings import Section
from customer_orders.tracing import OFF, Tracing

log = logging.getLogger(__name__)

# Seconds between tries to record what a provider said, while the database is away or busy. Their sum may outlast
# the lease: what is known is worth writing down for as long as the row still names the attempt.
RECORD_WAITS = (0.1, 0.5, 1, 2, 5, 10, 20, 30)
pause = time.sleep


@implementer(IOutbox)
class Outbox:
    """The notifications of one application, and the notifier that sends them."""

    def __init__(
        self,
        database: Database,
        settings: Section,
        notifier: Any,
        reporting: Collection[str] = (),
        tracing: Tracing = OFF,
    ) -> None:
        self.database, self.settings, self.notifier, self.reporting = database, settings, notifier, reporting
        self.tracing = tracing

    def due(self, limit: int) -> Sequence[int]:
        """Ids of notifications to deliver now, oldest first; none while the notifier pauses, or there is none."""
        if self.notifier is None:
            return []
        with self.database.transaction(writes=False) as session:
            return claiming.due(session, self.settings, limit)

    def deliver(self, notification_id: int) -> None:
        """Claim, send and record one. Does nothing if it is not due, or another got there first."""
        for claim in self.claim(1, only=notification_id):
            with self.renewing(lambda: [claim]):  # noqa: B023 - ends before the next
                self.record([(claim, self.send(claim))])

    def sweep(self) -> None:
        """End what waited for too long, and delete what was kept for long enough."""
        for step in sweeping.steps(self.settings, self.reporting):
            more = True
            while more:
                with self.database.transaction() as session:
                    more = step(session)

    def claim(self, limit: int, *, suspects: int | None = None, only: int | None = None) -> list[Claim]:
        """Take up to ``limit`` messages that are due, each for one lease; each counts as an attempt from here on.

        :param suspects: how many of them may be such that their last attempt was abandoned; None: any number.
        :param only: the one to take, if it is due.
        """
        claims: list[Claim] = []
        more = self.notifier is not None and limit > 0
        while more and not claims:
            with self.database.transaction() as session:
                claims, more = claiming.claim(session, self.settings, limit, suspects=suspects, only=only)
        return claims

    def send(self, claim: Claim) -> Outcome:
        """Send what was claimed; outside any transaction."""
        with traces.sending(self.tracing, self.settings.sms, claim) as tell, claim.sending():
            outcome = of_sending(self.settings.sms, self.notifier, claim.message)
            tell(outcome)
        return outcome

    def record(self, done: Sequence[tuple[Claim, Outcome]]) -> None:
        """Record, and try again while the database does not let us: a forgotten receipt is a message sent twice."""
        for wait in (*RECORD_WAITS, None):
            try:
                with self.database.transaction() as session:
                    recording.record(session, self.settings, done)
                return
            except Exception as error:
                told = ", ".join(
                    f"notification {claim.notification_id} ({outcome.name}, reference {outcome.reference})"
                    for claim, outcome in done
                )
                if wait is None or not db.is_unreachable(error):
                    log.error("could not be recorded: %s", told)
                    raise
                log.warning("not recorded yet: %s: %s", told, error)
                pause(wait)

    def release(self, claims: Sequence[Claim]) -> None:
        """Give back what was claimed and not begun: it is due again, and no attempt was made."""
        if claims:
            with self.database.transaction() as session:
                claiming.release(session, claims)

    def renew(self, claims: Sequence[Claim]) -> None:
        """Begin the leases of these anew, of those that are still theirs."""
        if claims:
            with self.database.transaction() as session:
                claiming.renew(session, self.settings, claims)

    @contextmanager
    def renewing(self, held: Callable[[], Sequence[Claim]]) -> Iterator[None]:
        """Renew what is ``held``, three times a lease, until the end of the block."""
        over = Event()

        def renew() -> None:
            while not over.wait(self.settings.lease / 3):
                try:
                    self.renew(held())
                except Exception:
                    # what is not renewed in time is not begun, or recorded late
                    log.exception("leases could not be renewed; the next try is soon")

        thread = Thread(target=renew, name="outbox-leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(1)
