"""The notifier: one message to one recipient by one request, and what came of it in the words of the contract, at once
and in what Africa's Talking reports later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import requests
from zope.interface import implementer

from customer_orders.interfaces import (
    IDeliveryReports,
    INotifier,
    Message,
    OptOut,
    Receipt,
    Rejected,
    Report,
    Unavailable,
    Uncertain,
)
from customer_orders_africastalking import callbacks
from customer_orders_africastalking.answers import Answers
from customer_orders_africastalking.gateway import Gateway
from customer_orders_http import NotWritten, cause


@implementer(INotifier, IDeliveryReports)
class AfricasTalking:
    """Sends SMS by Africa's Talking, and reads its call-backs; may be called from many threads.

    ``timeout``: the seconds that one message takes at most, if the API's host has two addresses (IPv4 and IPv6) and
    neither answers but at the last moment.

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
        connect_timeout: float = 2,
        read_timeout: float = 14,
    ) -> None:
        # two addresses and the TLS handshake; see customer_orders_http.Bounded
        self.timeout = 3 * connect_timeout + read_timeout
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

    def account(self) -> requests.Response:
        """What Africa's Talking tells of the account. Raises a ``requests.RequestException``."""
        return self._gateway.account()

    def parse(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report | OptOut]:
        """The delivery report, or the opt-out, that a call-back brings. Raises ``ValueError`` for anything else."""
        return callbacks.read(headers, body)


def _check(message: Message) -> None:
    """Refuse what no request can carry; the SDK's own complaint would quote the number."""
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", message.to):
        raise Rejected("the number is not in E.164")
    try:
        message.text.encode()
    except UnicodeEncodeError:
        raise Rejected("the text is not valid Unicode") from None
