"""A provider that is down: all that is sent by it pauses together, and no message pays for it."""

from __future__ import annotations

from datetime import timedelta

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import factories
from customer_orders import db
from customer_orders.interfaces import ChannelDown, Receipt, Rejected, Unavailable, Uncertain
from customer_orders.notifications.channels import IN_A_ROW, SPREAD, pausing
from customer_orders.notifications.models import Channel, Notification
from customer_orders.settings import section


@pytest.fixture
def settings(registry):
    return section(registry, "notifications")


@pytest.fixture
def channel(registry):
    """How the notifier fares."""

    def read():
        with registry.database.session(writes=False) as session:
            return session.get(Channel, "scripted")

    return read


@pytest.fixture
def order(client):
    """Places orders of one customer: ``order(3)``."""
    customer = factories.customer(client)["id"]

    def place(count=1):
        return [factories.order(client, customer=customer) for _ in range(count)]

    return place


@given(st.integers(0, 1000), st.integers(1, 3600), st.integers(1, 86400))
def test_a_pause_grows_and_stays_within_its_bounds(pauses, base, cap):
    wait = pausing(pauses, base, cap)
    least = min(cap, base * 2 ** min(pauses, 40))
    assert least <= wait <= least * (1 + SPREAD)


def test_while_it_works_there_is_nothing_to_remember(order, deliver, channel):
    order()
    deliver()
    assert channel() is None


def test_one_word_that_the_account_is_down_pauses_it(order, deliver, notifier, channel, rows, later, settings, caplog):
    order(3)
    notifier.script.append(ChannelDown("InsufficientBalance"))
    deliver()
    assert len(notifier.sent) == 1
    found = channel()
    assert (found.pauses, found.reason) == (1, "InsufficientBalance")
    assert found.paused_until >= found.updated_at + timedelta(seconds=settings.pause_base)
    assert "scripted is down, pause 1" in caplog.text
    assert "InsufficientBalance" in caplog.text
    assert deliver() == 0
    assert {row.attempts - row.unburned for row in rows(Notification)} == {0}


@pytest.mark.parametrize("failure", [Unavailable("no answer"), Uncertain("no answer")])
def test_failures_in_a_row_pause_it(order, deliver, notifier, channel, failure):
    order(IN_A_ROW + 3)
    notifier.script.extend([failure] * (IN_A_ROW - 1))
    notifier.script.append(None)
    notifier.script.extend([failure] * 3)
    deliver()
    # one that was taken is between them
    assert (channel().pauses, channel().failures) == (0, 3)
    order(4)
    notifier.script.extend([failure] * 4)
    deliver()
    assert channel().pauses == 1
    assert channel().failures == IN_A_ROW


def test_one_attempt_finds_out_and_the_rest_follows(order, deliver, notifier, channel, rows, later, caplog):
    order(5)
    notifier.script.append(ChannelDown("InsufficientBalance"))
    deliver()
    for pauses in (2, 3):
        later(3600)
        notifier.script.append(ChannelDown("InsufficientBalance"))
        assert deliver() == 1
        assert channel().pauses == pauses
        assert deliver() == 0
    later(3600)
    assert deliver() == 1
    assert (channel().paused_until, channel().pauses, channel().failures) == (None, 0, 0)
    assert "scripted works again" in caplog.text
    assert deliver() == 4
    assert [row.status for row in rows(Notification)] == ["sent"] * 5
    assert {row.attempts - row.unburned for row in rows(Notification)} == {1}


def test_of_several_who_would_find_out_one_does(order, registry, notifier, deliver, later):
    order(3)
    notifier.script.append(ChannelDown("InsufficientBalance"))
    deliver()
    later(3600)
    first, second = registry.outbox.claim(10), registry.outbox.claim(10)
    assert [claim.trial for claim in first] == [True]
    assert second == []
    # should it die with that, it is another's turn
    later(61)
    assert len(registry.outbox.claim(10)) == 1


def test_what_was_begun_before_the_pause_does_not_end_it(order, registry, notifier, channel):
    order(2)
    slow, down = registry.outbox.claim(1), registry.outbox.claim(1)
    notifier.script.append(ChannelDown("InsufficientBalance"))
    registry.outbox.record([(down[0], registry.outbox.send(down[0]))])
    registry.outbox.record([(slow[0], registry.outbox.send(slow[0]))])
    assert channel().paused_until is not None


@pytest.mark.parametrize("failure", [Unavailable("connection refused"), ChannelDown("HTTP 401")])
def test_an_outage_of_two_hours_fails_no_message(order, deliver, notifier, registry, rows, later, failure):
    over = registry.database.clock_offset + timedelta(hours=2)
    asked = []

    def answer(message):
        if registry.database.clock_offset < over:
            asked.append(message.key)
            return failure
        return Receipt(f"after-{message.key}")

    notifier.script.extend([answer] * 10_000)
    order(30)
    # every half a minute for three hours
    for _ in range(360):
        deliver()
        later(30)
    assert {row.status for row in rows(Notification)} == {"sent"}
    assert {row.attempts - row.unburned for row in rows(Notification)} <= {1, 2}
    # those until it was noticed, and one for each pause
    assert len(asked) < 60


FINAL = {"sent", "failed", "unknown", "suppressed", "delivered", "expired", "cancelled"}
STEPS = st.lists(
    st.sampled_from(
        [
            None,
            Rejected("no such number"),
            Rejected("blocklisted", suppressed=True),
            Unavailable("busy"),
            Unavailable("busy", retry_after=7200),
            ChannelDown("broke"),
            Uncertain("cut off"),
            KeyError("odd"),
            "abandoned",
        ]
    ),
    min_size=1,
    max_size=16,
)


# each example has a notification of its own
@hypothesis.settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_attempts_never_exceed_the_most_and_what_is_final_stays(registry, steps):
    registry.database.clock_offset = timedelta()
    settings, outbox = section(registry, "notifications"), registry.outbox
    notifier = registry.plugins.notifiers["scripted"]
    notifier.reset()
    with registry.database.transaction() as session:
        session.query(Channel).delete()
        now = db.now(session)
        made = Notification(
            event="order_placed",
            channel="sms",
            recipient="+254700000001",
            text="Hello",
            status="queued",
            next_attempt_at=now,
            created_at=now,
            updated_at=now,
        )
        session.add(made)
        session.flush()
        key = made.id

    def row():
        with registry.database.session(writes=False) as session:
            return session.get(Notification, key)

    ended = None
    for step in steps:
        registry.database.clock_offset += timedelta(hours=2)
        if step == "abandoned":
            outbox.claim(1, only=key)
        else:
            notifier.script.append(step)
            outbox.deliver(key)
            notifier.script.clear()
        found = row()
        assert 0 <= found.attempts - found.unburned <= settings.max_attempts
        if ended is not None:
            assert (found.status, found.attempts, found.version) == ended
        elif found.status in FINAL:
            ended = (found.status, found.attempts, found.version)
            assert found.next_attempt_at is None
        if found.status == "queued":
            assert found.next_attempt_at is not None
