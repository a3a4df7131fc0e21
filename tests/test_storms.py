"""Storms: many clients at once, all of whom want the same thing.

Small ones by themselves; full ones, which take minutes, with ``make storms``, which sets ``STORMS=full``.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from requests.utils import parse_header_links
from sqlalchemy import func, insert, select
from webtest import TestApp

import factories
from contract import assert_problem
from customer_orders.api.idempotency import HEADER, REPLAYED, IdempotencyKey
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import Order
from customer_orders.orders.services import create_order
from serving import wait_for

FULL = os.environ.get("STORMS") == "full"

# Clients that repeat one request, and how often they all do it again with another key.
REPEATING, ROUNDS = (50, 20) if FULL else (12, 3)
# Clients that change one order, and how often each tries.
CHANGING, TRIES = (20, 10) if FULL else (5, 5)
# Orders to page through, those who place more meanwhile, and how many each of them places at most.
ORDERS, WRITERS, PLACED = (100_000, 4, 4_000) if FULL else (5_000, 4, 50)
LIMIT = 200

pytestmark = pytest.mark.timeout(900 if FULL else 120)


@pytest.fixture
def another(app, client):
    """Makes one more client of the same user, for a thread of its own."""

    def make():
        own = TestApp(app)
        own.authorization = client.authorization
        return own

    return make


def at_once(number, act):
    """What ``act(0)`` to ``act(number - 1)`` return, each in a thread of its own, all begun at the same moment."""
    together = threading.Barrier(number)

    def begin(one):
        together.wait(60)
        return act(one)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


def count(registry, model):
    with registry.database.transaction(writes=False) as session:
        return session.scalar(select(func.count()).select_from(model))


# -- the same request ---------------------------------------------------------------------------------------------


def test_whoever_repeats_a_request_at_the_same_moment_gets_the_one_order(registry, client, another, database_kind):
    clients = [another() for _ in range(REPEATING)]
    body = {"item": "Tea", "amount": 10000, "customer": factories.customer(client)["id"]}

    def post(number, key):
        path = ("/api/orders/", "/api/orders")[number % 2]
        answer = clients[number].post_json(path, body, headers={HEADER: key}, status="*")
        if answer.status_int != 201:
            # of SQLite's writers, each waits for its turn
            assert database_kind == "postgresql", answer.text
            assert_problem(answer, 409, "idempotency-key-in-use")
        return answer

    def insist(number, key):
        """The answers up to the first 201."""
        answers = []
        wait_for(lambda: answers.append(post(number, key)) or answers[-1].status_int == 201, "an answer", 60)
        return answers

    placed = []
    for key in (f"round-{number}" for number in range(ROUNDS)):
        answers = [
            answer for told in at_once(REPEATING, lambda number, key=key: insist(number, key)) for answer in told
        ]
        good = [answer for answer in answers if answer.status_int == 201]
        assert len(good) == REPEATING
        (told,) = {answer.body for answer in good}
        (new,) = [answer for answer in good if REPLAYED not in answer.headers]
        assert new.body == told
        placed.append(new.json["id"])
    assert len(set(placed)) == ROUNDS
    assert sorted(item["id"] for item in client.get("/api/orders/?limit=200").json) == sorted(placed)
    assert [count(registry, model) for model in (Order, Notification, IdempotencyKey)] == [ROUNDS] * 3


# -- the same order -----------------------------------------------------------------------------------------------


def _version(answer):
    return int(answer.headers["ETag"].strip('"').partition(".")[0])


def test_whoever_changes_what_they_read_overwrites_nobody(client, another):
    url = f"/api/orders/{factories.order(client, metadata={'successes': '0'})['id']}"
    before = _version(client.get(url))

    def change(number):
        """How often this client succeeded, of all its tries."""
        own, successes = another(), 0
        for _ in range(TRIES):
            read = own.get(url, status=200)
            metadata = {
                "successes": str(int(read.json["metadata"]["successes"]) + 1),
                f"of client {number}": str(successes + 1),
            }
            told = own.patch_json(url, {"metadata": metadata}, headers={"If-Match": read.headers["ETag"]}, status="*")
            if told.status_int == 200:
                assert told.json["metadata"] == {**read.json["metadata"], **metadata}
                assert _version(told) == _version(read) + 1
                successes += 1
            else:
                assert_problem(told, 412, "stale")
        return successes

    successes = at_once(CHANGING, change)
    after = client.get(url)
    assert sum(successes) >= 1
    assert _version(after) - before == sum(successes)
    assert after.json["metadata"] == {
        "successes": str(sum(successes)),
        **{f"of client {number}": str(own) for number, own in enumerate(successes) if own},
    }


# -- the same list ------------------------------------------------------------------------------------------------


@contextmanager
def writing(registry, customer):
    """Place orders all the while, in threads, each no more than so many; yields their ids, which come to be."""
    stop, first, placed = threading.Event(), threading.Barrier(WRITERS + 1), []

    def write():
        for number in range(PLACED):
            if stop.is_set():
                return
            with registry.database.transaction() as session:
                values = {"item": "Rice", "amount": 1, "customer": customer}
                new = create_order(session, values, currency="KES").id
            placed.append(new)
            if number == 0:
                first.wait(60)

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write) for _ in range(WRITERS)]
        try:
            first.wait(60)
            yield placed
        finally:
            stop.set()
    for writer in writers:
        writer.result()


def walk(client, url, rel):
    """The ids on each page, following ``rel`` from ``url``, and the URL of the last of them."""
    pages = []
    while True:
        answer = client.get(url, status=200)
        pages.append([item["id"] for item in answer.json])
        links = {link["rel"]: link["url"] for link in parse_header_links(answer.headers.get("Link", ""))}
        if rel not in links:
            return pages, url
        url = links[rel]
        assert len(pages) <= (ORDERS + WRITERS * PLACED) / LIMIT, "the pages never end"


@pytest.mark.parametrize(
    ("query", "stands"),
    [
        ("", lambda order: -order.id),
        ("&ordering=created_at,id", lambda order: (order.created_at, order.id)),
    ],
    ids=["by id", "by creation"],
)
def test_whoever_pages_sees_everything_once_whatever_is_added(registry, client, query, stands):
    customer = factories.customer(client)["id"]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"customer_id": customer, "item": "Tea", "amount": 1, "currency": "KES", "status": "placed", "extra": {}}
    # several of each moment, and in another order than their ids
    moments = [start + timedelta(seconds=number * 7919 % (ORDERS // 7)) for number in range(ORDERS)]
    with registry.database.transaction() as session:
        session.execute(insert(Order), [{**row, "created_at": moment, "updated_at": start} for moment in moments])
    with registry.database.transaction(writes=False) as session:
        there = [order.id for order in sorted(session.execute(select(Order.id, Order.created_at)), key=stands)]
    assert len(there) == ORDERS

    with writing(registry, customer) as placed:
        forward, last = walk(client, f"/api/orders/?limit={LIMIT}{query}", "next")
        backward, _ = walk(client, last, "prev")
    known = set(there)
    for pages in (forward, reversed(backward)):
        seen = [order for page in pages for order in page]
        assert [order for order in seen if order in known] == there
        added = [order for order in seen if order not in known]
        assert len(set(added)) == len(added)
        assert set(added) <= set(placed)
    assert len(set(placed)) == len(placed) >= WRITERS
