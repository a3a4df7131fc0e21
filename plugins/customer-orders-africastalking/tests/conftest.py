"""Africa's Talking on loopback, the notifier that talks to it, and the real application around both."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from customer_orders import main
from customer_orders.auth.services import local_user
from customer_orders.interfaces import Message, NotSent
from customer_orders_africastalking.notifier import AfricasTalking
from databases import migrated_sqlite
from loopback import Answer, authority, provider, tls

__all__ = ["authority", "tls"]

HOST = "127.0.0.1:6543"


@pytest.fixture
def api_key() -> str:
    """A key that no other test has."""
    return f"key_{secrets.token_hex(32)}"


@pytest.fixture
def message() -> Message:
    """A message to a number that no other test has."""
    number = f"+2547{secrets.randbelow(10**8):08d}"
    return Message(key="notification-1", channel="sms", to=number, text="Your order has been created.")


@pytest.fixture
def recipient(message: Message) -> Callable[..., dict[str, Any]]:
    """Makes the entry of a recipient whose message was taken, but for what is told; None leaves a field out."""

    def make(**more: Any) -> dict[str, Any]:
        entry = {
            "statusCode": 101,
            "number": message.to,
            "status": "Success",
            "cost": "KES 0.8000",
            "messageId": f"ATXid_{secrets.token_hex(16)}",
            **more,
        }
        return {name: value for name, value in entry.items() if value is not None}

    return make


@pytest.fixture
def arrived() -> threading.Semaphore:
    """Released with each request that came in, whatever becomes of its answer."""
    return threading.Semaphore(0)


@pytest.fixture
def server(arrived: threading.Semaphore, recipient: Callable[..., dict[str, Any]]) -> Iterator[Any]:
    """Africa's Talking, which takes every message until it is told otherwise."""
    with provider() as server:
        server.answer = lambda asked: (arrived.release(), Answer(sms(recipient()), status=201))[1]
        yield server


def sms(*recipients: Any, message: Any = "Sent to 1/1 Total Cost: KES 0.8000") -> dict[str, Any]:
    return {"SMSMessageData": {"Message": message, "Recipients": list(recipients)}}


@pytest.fixture
def answers(server: Any, arrived: threading.Semaphore) -> Callable[..., None]:
    """Has the server answer so from now on: ``answers(body, status=201)``, or by a function of ``loopback``."""

    def told(answer: Any, status: int = 201, **headers: str) -> None:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        respond = answer if callable(answer) else Answer(answer, status, headers)
        server.answer = lambda asked: (arrived.release(), respond)[1]

    return told


@pytest.fixture
def recipients(answers: Callable[..., None]) -> Callable[..., None]:
    """Has the server answer with these recipients: ``recipients(recipient(statusCode=403))``."""
    return lambda *given, **more: answers(sms(*given, **more))


@pytest.fixture
def make_notifier(server: Any, api_key: str) -> Callable[..., AfricasTalking]:
    """Makes a notifier that talks to the server, unless told otherwise."""

    def make(**more: Any) -> AfricasTalking:
        given = {"username": "shop", "api_key": api_key, "endpoint": server.url, "read_timeout": 30, **more}
        return AfricasTalking(**given)

    return make


@pytest.fixture
def notifier(make_notifier: Callable[..., AfricasTalking]) -> AfricasTalking:
    """The notifier."""
    return make_notifier()


@pytest.fixture
def send(
    server: Any, arrived: threading.Semaphore, notifier: AfricasTalking, message: Message
) -> Callable[..., object]:
    """Sends once, and returns the receipt or the exception; one request was made for it, or as many as told."""

    def once(by: AfricasTalking = notifier, given: Message = message, requests: int = 1) -> object:
        before = len(server.asked)
        try:
            outcome: object = by.send(given)
        except NotSent as told:
            outcome = told
        for _ in range(requests):
            assert arrived.acquire(timeout=30)
        assert len(server.asked) == before + requests
        return outcome

    return once


@pytest.fixture
def settings(tmp_path: Path, server: Any, api_key: str) -> dict[str, str]:
    """Settings of an application that sends by the server."""
    return {
        "app.public_url": f"http://{HOST}",
        "sqlalchemy.url": migrated_sqlite(tmp_path),
        "jwt.private_key": secrets.token_urlsafe(64),
        "plugins": "africastalking",
        "notifications.sms": "africastalking",
        # tests deliver by hand, when they mean to
        "notifications.dispatcher": "worker",
        "africastalking.username": "shop",
        "africastalking.api_key": api_key,
        "africastalking.endpoint": server.url,
    }


@pytest.fixture
def make_app(settings: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Makes an application on a migrated database: ``make_app(**{"africastalking.read_timeout": "1"})``."""
    made = []

    def make(**more: str) -> Any:
        app = main({}, **{**settings, **more})
        made.append(app)
        return app

    yield make
    for app in made:
        app.registry.dispatcher.stop()
        app.registry.database.engine.dispose()


@pytest.fixture
def client_of() -> Callable[[Any], TestApp]:
    """Makes a client of an application, signed in as an admin."""

    def make(app: Any) -> TestApp:
        with app.registry.database.transaction() as session:
            user_id = local_user(session, "owner@shop.example", "admin").id
        client = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": HOST})
        client.authorization = ("Bearer", app.registry.access_tokens.create_token(str(user_id)))
        return client

    return make
