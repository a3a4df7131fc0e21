"""Emptying the outbox in one process: several messages at a time, claimed and recorded in batches.

One thread claims, ``concurrency`` of them send, one records, one renews leases; what is claimed and not yet sent is
all that a process ever holds. A message that hangs its thread loses it, and another thread takes its place.

Whatever ends a process, what it was sending and what it had not yet recorded may be sent again: at most
``concurrency + unrecorded`` messages (``2 * concurrency - 1`` unless set, so one at a concurrency of 1). Nobody begins
another message before.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Event, Lock, RLock, Semaphore, Thread, current_thread

from customer_orders.notifications.claiming import Claim
from customer_orders.notifications.delivery import Outbox
from customer_orders.notifications.outcomes import Outcome

log = logging.getLogger(__name__)

# Messages claimed at once, for each that is sent at a time: so that threads need not wait for a claim.
HELD = 4
# Results recorded in one transaction, at most, and seconds that the first of them waits for others, while there is
# more to send. Until it is recorded, a message is sent twice if we die.
RECORDED = 500
FLUSH = 0.02
# Leases after which a send counts as hung.
HUNG = 5
# Seconds between two sweeps.
SWEEP = 60
# Seconds that stop() waits for what is being sent.
DRAIN = 20

Done = tuple[Claim, Outcome | None]


class Worker:
    """The threads of one process that deliver what is due.

    :param concurrency: messages sent at a time.
    :param poll_interval: seconds between two looks for what is due, unless woken.
    """

    def __init__(self, outbox: Outbox, concurrency: int, poll_interval: float) -> None:
        self.outbox, self.concurrency, self.poll_interval = outbox, concurrency, poll_interval
        self._claimed: SimpleQueue[Claim | None] = SimpleQueue()
        self._done: deque[Done] = deque()
        self._lock = Lock()
        self._held: set[Claim] = set()
        self._sending: dict[Thread, tuple[Claim, float]] = {}
        self._woken, self._stopping, self._down = Event(), Event(), Event()
        # something is done, enough of it to write it down at once, and nothing follows
        self._told, self._enough, self._drained = Event(), Event(), Event()
        unrecorded = outbox.settings.unrecorded
        # results that may wait to be recorded while those who brought them send again
        self._unrecorded = Semaphore(concurrency - 1 if unrecorded is None else unrecorded)
        # whether the last claim got all that it asked for
        self._more = False
        self._claimer = Thread(target=self._claim, name="outbox-claims", daemon=True)
        self._recorder = Thread(target=self._record, name="outbox-results", daemon=True)
        self._senders: set[Thread] = set()
        self._leases = ExitStack()
        self._beginning = RLock()

    def start(self) -> None:
        """Begin, unless it was stopped already."""
        with self._beginning:
            if not self._stopping.is_set():
                self._leases.enter_context(self.outbox.renewing(self._renewed))
                for _ in range(self.concurrency):
                    self._add_sender()
                self._recorder.start()
                self._claimer.start()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def stop(self) -> None:
        """Finish what is being sent, for 20 seconds at most, and give back what was not begun."""
        until = time.monotonic() + DRAIN
        with self._beginning:
            self._stopping.set()
        self._woken.set()
        _join([self._claimer], until)
        # threads that wait for a message end; those that send one end after it
        senders = list(self._senders)
        for _ in senders:
            self._claimed.put(None)
        _join(senders, until)
        self._drained.set()
        self._told.set()
        # what is known is written down, however little time is left
        _join([self._recorder], max(until, time.monotonic() + 1))
        self._leases.close()
        left = len(self._held)
        if left:
            log.warning("%s messages were still being sent; they are tried again when their leases end", left)

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    @property
    def dead(self) -> list[str]:
        """Names of threads that ended although nobody told them to; of those that send, if none is left."""
        # one without an ident has not begun yet
        senders = [thread.ident is None or thread.is_alive() for thread in list(self._senders)]
        lost = [thread.name for thread in (self._claimer, self._recorder) if thread.ident and not thread.is_alive()]
        return lost if any(senders) or not senders else [*lost, "outbox-sender"]

    # -- claiming -------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        sweep_at = time.monotonic()
        while not self._stopping.is_set():
            self._woken.clear()
            self._attempt(self._fill, "what is due could not be claimed; the next look is soon")
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + SWEEP
                self._attempt(self.outbox.sweep, "a sweep ended early; the next one goes on")
            if not self._more or self._claimed.qsize() >= self.concurrency:
                self._woken.wait(self.poll_interval)

    def _fill(self) -> None:
        self._more = False
        room = HELD * self.concurrency - self._claimed.qsize()
        if self._down.is_set() or room < 2 * self.concurrency:
            self._more = room < 2 * self.concurrency
            return
        # one at a time: should it end this process, it takes with it no other that was suspected for nothing
        with self._lock:
            suspects = 0 if any(claim.trial for claim in self._held) else 1
        claims = self.outbox.claim(room, suspects=suspects)
        with self._lock:
            self._held.update(claims)
        self._more = len(claims) == room
        for claim in claims:
            self._claimed.put(claim)

    # -- sending --------------------------------------------------------------------------------------------------

    def _add_sender(self) -> None:
        thread = Thread(target=self._send, name="outbox-sender", daemon=True)
        self._senders.add(thread)
        thread.start()

    def _send(self) -> None:
        me = current_thread()
        while (claim := self._claimed.get()) is not None:
            if self._more and self._claimed.qsize() < self.concurrency:
                self._woken.set()
            if self._stopping.is_set() or self._down.is_set() or claim.expired:
                self._tell(claim, None)
                continue
            self._sending[me] = (claim, time.monotonic())
            outcome = self.outbox.send(claim)
            hung = self._sending.pop(me, None) is None
            if outcome.name == "channel_down":
                # before the row says so
                self._down.set()
            self._tell(claim, outcome)
            self._unrecorded.acquire()
            if hung:
                # another took its place
                return

    def _renewed(self) -> Sequence[Claim]:
        """What is held, less what hangs: another thread takes over from that, and another attempt."""
        late = time.monotonic() - HUNG * self.outbox.settings.lease
        for thread, (claim, since) in list(self._sending.items()):
            if since < late and self._sending.pop(thread, None):
                log.error("notification %s hangs in the notifier; its thread is given up", claim.notification_id)
                self._forget([claim])
                self._senders.discard(thread)
                self._add_sender()
        with self._lock:
            return list(self._held)

    # -- recording ------------------------------------------------------------------------------------------------

    def _tell(self, claim: Claim, outcome: Outcome | None) -> None:
        self._done.append((claim, outcome))
        # a thread that is woken costs more than what it does
        if not self._told.is_set():
            self._told.set()
        if len(self._done) >= self.concurrency and not self._enough.is_set():
            self._enough.set()

    def _record(self) -> None:
        while self._done or not self._drained.is_set():
            if not self._done:
                self._told.wait()
            if self._claimed.qsize():
                self._enough.wait(FLUSH)
            self._told.clear()
            self._enough.clear()
            batch = [self._done.popleft() for _ in range(min(RECORDED, len(self._done)))]
            self._flush(batch)

    def _flush(self, batch: Sequence[Done]) -> None:
        done = [(claim, outcome) for claim, outcome in batch if outcome is not None]
        unsent = [claim for claim, outcome in batch if outcome is None]
        if done and not self._attempt(lambda: self.outbox.record(done), "results could not be recorded together"):
            for one in done:
                self._attempt(
                    lambda one=one: self.outbox.record([one]),  # type: ignore[misc]
                    "a result could not be recorded; its message is tried again when its lease ends",
                )
        if unsent:
            self._attempt(lambda: self.outbox.release(unsent), "leases could not be given back; they end by themselves")
        self._forget([claim for claim, _ in batch])
        if done:
            self._unrecorded.release(len(done))
        if any(outcome.name == "channel_down" for _, outcome in done):
            self._down.clear()
        if unsent or any(claim.trial for claim, _ in batch):
            self._woken.set()

    def _forget(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            self._held.difference_update(claims)

    def _attempt(self, act: Callable[[], object], failed: str) -> bool:
        """Whether it went well; the database may be away, and the rows keep everything."""
        try:
            act()
        except Exception:
            log.exception(failed)
            return False
        return True


def _join(threads: Sequence[Thread], until: float) -> None:
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0, until - time.monotonic()))
