"""Real server processes killed between the work and the answer: who repeats with the same key has one order."""

from __future__ import annotations

import signal

import pytest
import requests
from sqlalchemy import create_engine, select

from conftest import STAGE
from customer_orders.api.idempotency import HEADER, REPLAYED, IdempotencyKey
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import Order
from serving import serving, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture
def url(new_database, database_kind):
    """The URL of an empty database."""
    return new_database(database_kind)


@pytest.fixture
def server(tmp_path, url):
    """A server that a request can kill (see stage/fatal.py); it delivers nothing."""
    fatal = {"PLUGINS": "devtools fatal", "PYTHONPATH": STAGE, "NOTIFICATIONS_DISPATCHER": "worker"}
    with serving(tmp_path, url, **fatal) as server:
        yield server


@pytest.fixture
def post(server):
    """POSTs ``body`` as a clerk would: ``post(path, body, **headers)``."""
    token = server.token("clerk")

    def send(path, body, **headers):
        headers["Authorization"] = f"Bearer {token}"
        return requests.post(f"{server.url}{path}", json=body, headers=headers, timeout=30)

    return send


@pytest.fixture
def ids(url):
    """The ids of what is in the database: ``ids(Order)``."""
    engine = create_engine(url)

    def read(model):
        with engine.connect() as connection:
            return connection.scalars(select(model.id)).all()

    yield read
    engine.dispose()


@pytest.fixture
def body(post):
    """An order that can be placed."""
    customer = post("/api/customers/", {"username": "Amina", "phone_number": "+254700000001"})
    assert customer.status_code == 201, customer.text
    return {"item": "Tea", "amount": 1, "customer": customer.json()["id"]}


def die(server, post, body, moment):
    """POST an order that kills the server at this moment, and start it again."""
    with pytest.raises(requests.ConnectionError):
        post("/api/orders/", body, **{HEADER: "key-1", "X-Test-Die": moment})
    assert server.process.wait(30) == -signal.SIGKILL
    server.start()


def repeat(post, body):
    """The answer to the same request once more, when the database has noticed that nobody is at the first."""
    answers = []

    def over():
        answers.append(post("/api/orders/", body, **{HEADER: "key-1"}))
        return answers[-1].status_code != 409

    wait_for(over, "the first request is over")
    assert answers[-1].status_code == 201, answers[-1].text
    return answers[-1]


def test_killed_after_the_commit_the_repeat_tells_of_the_order_that_is_there(server, post, ids, body):
    die(server, post, body, "after-commit")
    (order,) = ids(Order)
    told = repeat(post, body)
    assert told.headers[REPLAYED] == "true"
    assert told.json()["id"] == order
    assert told.headers["Location"] == f"{server.url}/api/orders/{order}"
    assert ids(Order) == [order]
    assert len(ids(Notification)) == len(ids(IdempotencyKey)) == 1


def test_killed_before_the_commit_the_repeat_places_the_only_order(server, post, ids, body):
    die(server, post, body, "before-commit")
    assert ids(Order) == ids(Notification) == ids(IdempotencyKey) == []
    told = repeat(post, body)
    assert REPLAYED not in told.headers
    assert ids(Order) == [told.json()["id"]]
    assert len(ids(Notification)) == len(ids(IdempotencyKey)) == 1
    again = repeat(post, body)
    assert again.headers[REPLAYED] == "true"
    assert again.content == told.content
