"""What the doctor is told of the account."""

from __future__ import annotations

from typing import Any

import pytest

from customer_orders.interfaces import CheckFailed
from customer_orders.testing import CheckContract
from customer_orders_africastalking.account import Account
from loopback import Answer, reset

WRONG = [
    Answer(b"The supplied authentication is invalid", 401),
    Answer({"UserData": {"balance": "KES 0.0000"}}),
    Answer({"UserData": {"balance": "KES -1.5"}}),
    Answer({"UserData": {"balance": "KES 99.99"}}),
    Answer({"UserData": {}}),
    Answer([]),
    Answer(b"<html>"),
    Answer({}, 503),
    Answer({}, 302, {"Location": "/elsewhere"}),
    reset,
]


@pytest.fixture
def account(make_notifier: Any) -> Any:
    """Makes the check: ``account(sandbox=True)``."""

    def make(**more: Any) -> Account:
        return Account(make_notifier().account, **{"low_balance": 100, "sandbox": False, **more})

    return make


@pytest.fixture
def tells(server: Any) -> Any:
    """Has the server answer so from now on."""

    def told(answer: Any) -> None:
        server.answer = lambda asked: answer

    return told


class TestAccount(CheckContract):
    @pytest.fixture
    def check(self, account: Any, tells: Any) -> Any:
        tells(Answer({"UserData": {"balance": "KES 1785.5000"}}))
        return account().check

    @pytest.fixture
    def failing(self, account: Any, server: Any, check: Any) -> Any:
        well = server.answer

        def of(answer: Any) -> Any:
            def ask() -> Any:
                server.answer = lambda asked: answer
                try:
                    return account().check()
                finally:
                    server.answer = well

            return ask

        return [of(answer) for answer in WRONG]

    @pytest.fixture
    def untold(self, api_key: str) -> Any:
        return [api_key]


def test_it_is_asked_by_user_name_and_key(account: Any, tells: Any, server: Any, api_key: str) -> None:
    tells(Answer({"UserData": {"balance": "KES 1,785.50"}}))
    assert account().check() == "Africa's Talking knows the account, and tells no balance."
    tells(Answer({"UserData": {"balance": "USD 1785.5"}}))
    assert account().check() == "The balance is USD 1,785.50."
    asked = server.asked[-1]
    assert (asked.method, asked.path, asked.headers["apiKey"]) == ("GET", "/version1/user?username=shop", api_key)


def test_the_sandbox_needs_no_balance(account: Any, tells: Any) -> None:
    tells(Answer({"UserData": {"balance": "KES 0.0000"}}))
    assert "sends nothing" in account(sandbox=True).check()
    tells(Answer(b"", 401))
    with pytest.raises(CheckFailed, match="401"):
        account(sandbox=True).check()


def test_anything_that_is_left_will_do_unless_told(account: Any, tells: Any) -> None:
    tells(Answer({"UserData": {"balance": "KES 0.0100"}}))
    assert account(low_balance=None).check() == "The balance is KES 0.01."
