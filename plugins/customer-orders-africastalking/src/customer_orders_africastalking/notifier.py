"""The notifier: one message to one recipient by one request, and what came of it in the words of the contract."""

from __future__ import annotations

import re

import requests
from zope.interface import implementer

from customer_orders.interfaces import INotifier, Message, Receipt, Rejected, Unavailable, Uncertain
from customer_orders_africastalking.answers import Answers
from customer_orders_africastalking.gateway import Gateway
from customer_orders_http import NotWritten, cause


@implementer(INotifier)
class AfricasTalking:
    """Sends SMS by Africa's Talking; may be called from many threads.

    :param username: the app's user name; ``sandbox`` selects the sandbox's host.
    :param sender_id: what the recipient sees as the sender, if the account has one of its own.
    :param endpoint: scheme and host of the API, instead of what the user name calls for.
    :param connect_timeout: seconds to reach the API.
    :param read_timeout: seconds for a whole answer.
    """

    def __init__(
        self,
        *,
        username: str,
        api_key: str,
        sender_id: str | None = None,
        endpoint: str | None = None,
        connect_timeout: float = 5,
        read_timeout: float = 15,
    ) -> None:
        self._sender_id = sender_id
        self._gateway = Gateway(
            username, api_key, endpoint=endpoint, connect_timeout=connect_timeout, read_timeout=read_timeout
        )
        self._answers = Answers(api_key)

    def send(self, message: Message) -> Receipt:
        """Send by one request, never repeated here: the API has no idempotency key.

        Raises :class:`Unavailable` if the request was not written, :class:`Uncertain` if it was and nothing came
        back, and otherwise what :meth:`Answers.read` makes of the answer.
        """
        _check(message)
        try:
            answer = self._gateway.send(message.text, [message.to], self._sender_id)
        except NotWritten as error:
            raise Unavailable(f"not reached: {cause(error)}") from error
        except requests.RequestException as error:
            raise Uncertain(f"no answer: {cause(error)}") from error
        return self._answers.read(answer, message)


def _check(message: Message) -> None:
    """Refuse what no request can carry; the SDK's own complaint would quote the number."""
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", message.to):
        raise Rejected("the number is not in E.164")
    try:
        message.text.encode()
    except UnicodeEncodeError:
        raise Rejected("the text is not valid Unicode") from None
