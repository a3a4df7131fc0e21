"""Africa's Talking's SDK on connections that are bounded in time and size."""

from __future__ import annotations

import threading
from typing import Any

import requests
from africastalking.SMS import SMSService

from customer_orders_http import Bounded, bound

# Bytes of an answer's body: one to a single recipient has some 300.
MOST = 64 * 1024


class _Sessions(threading.local):
    """A session for each thread, since requests does not say that threads may share one; all on one adapter."""

    def __init__(self, adapter: Bounded) -> None:
        self.session = bound(requests.Session(), adapter)


class Gateway(SMSService):
    """The SDK's SMS service, but for how its requests are made; may be called from many threads.

    The SDK's own have a time-out between two bytes only, follow redirects with the API key, take bodies of any size,
    and lose the status and headers of an answer.

    :param endpoint: scheme and host instead of what the SDK chooses by the user name.
    :param connect_timeout: seconds to reach the API.
    :param read_timeout: seconds for a whole answer.
    """

    def __init__(
        self, username: str, api_key: str, *, endpoint: str | None, connect_timeout: float, read_timeout: float
    ) -> None:
        self._endpoint = endpoint
        self._sessions = _Sessions(Bounded(connect=connect_timeout, read=read_timeout, most=MOST))
        super().__init__(username, api_key)

    def _init_service(self) -> None:
        super()._init_service()
        if self._endpoint is not None:
            self._baseUrl = self._contentUrl = f"{self._endpoint}/version1"

    def account(self) -> requests.Response:
        """What Africa's Talking tells of the account. Raises what :class:`customer_orders_http.Bounded` raises."""
        url, params = f"{self._baseUrl}/user", {"username": self._username}
        return self._make_request(url, "GET", headers=self._headers, data=None, params=params)

    def _make_request(
        self, url: str, method: str, headers: Any, data: Any, params: Any, callback: Any = None, timeout: Any = None
    ) -> requests.Response:
        """The answer as it is, whatever its status; the SDK's ``send`` returns it.

        ``callback`` and ``timeout`` are not heeded. Raises what :class:`customer_orders_http.Bounded` raises.
        """
        return self._sessions.session.request(method, url, params=params, data=data, headers=headers)
