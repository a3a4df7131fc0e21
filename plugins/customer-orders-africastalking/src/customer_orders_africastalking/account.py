"""What ``customer-orders doctor`` asks Africa's Talking: whether it knows the account, and what is left on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import requests

from customer_orders.interfaces import CheckFailed
from customer_orders_http import cause, parse

# As in an answer: KES 1785.5000
BALANCE = re.compile(r"([A-Z]{3}) (-?[0-9]{1,15}(?:\.[0-9]{1,6})?)")
TOP_UP = "Top up the app's wallet in Africa's Talking's dashboard."


class Account:
    """The account at Africa's Talking.

    :param ask: for what it tells of the account (see :class:`~customer_orders_africastalking.gateway.Gateway`).
    :param low_balance: what shall be left on it at least, in its own currency; None: anything.
    :param sandbox: whether it is the sandbox's, which costs nothing.
    """

    def __init__(self, ask: Callable[[], requests.Response], low_balance: int | None, *, sandbox: bool) -> None:
        self._ask, self.low_balance, self.sandbox = ask, low_balance, sandbox

    def check(self) -> str:
        """The user name and the key are good, and something is left to send with. Raises ``CheckFailed``."""
        told = self._balance()
        if self.sandbox:
            return "The sandbox knows the account; it sends nothing, and costs nothing."
        found = BALANCE.fullmatch(str(told).strip())
        if found is None:
            return "Africa's Talking knows the account, and tells no balance."
        left = Decimal(found[2])
        said = f"The balance is {found[1]} {left:,.2f}"
        if left <= 0:
            raise CheckFailed(f"{said}: nothing is sent.", remedy=TOP_UP)
        if self.low_balance is not None and left < self.low_balance:
            low = f"{said}, below africastalking.low_balance = {self.low_balance}."
            raise CheckFailed(low, remedy=TOP_UP, warning=True)
        return f"{said}."

    def _balance(self) -> Any:
        """The balance, as it is told."""
        try:
            answer = self._ask()
        except requests.RequestException as error:
            raise CheckFailed(
                f"Africa's Talking does not answer: {cause(error)}.",
                remedy="Is there a way out of this network, and is africastalking.endpoint right?",
            ) from error
        if answer.status_code in (401, 403, 404):
            raise CheckFailed(
                f"Africa's Talking does not know the account: it answers with {answer.status_code}.",
                remedy="Mend africastalking.username and africastalking.api_key, those of one app; for the user name "
                "sandbox the key is the sandbox app's. A new key works after some minutes.",
            )
        try:
            told: Any = parse(answer) if answer.status_code == 200 else None
            return told["UserData"]["balance"]
        except (ValueError, TypeError, KeyError):
            said = f"Africa's Talking answers with {answer.status_code}, and with nothing that tells of an account."
            raise CheckFailed(said, remedy="Is africastalking.endpoint right? If so, try again later.") from None
