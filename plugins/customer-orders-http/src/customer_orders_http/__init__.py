"""requests, bounded in time and size: for plugins that talk to a provider.

A :class:`Bounded` adapter, mounted on a session by :func:`bound`, gives every request the time-outs and the size limit
that it was made with, and tells failures before the request was written (:class:`NotWritten`) from those after it.
"""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Mapping
from http import client
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

__all__ = ["Bounded", "NotWritten", "TooLarge", "bound", "cause", "parse"]

# Seconds after which an unused connection is not used again: a request that meets a server just as it closes the
# connection fails in a way that does not tell whether it was read.
IDLE = 5

SessionT = TypeVar("SessionT", bound=requests.Session)

_progress = threading.local()


class NotWritten(requests.ConnectionError):
    """The request was not written, or not to its end: the server cannot have acted on it."""


class TooLarge(requests.RequestException):
    """The answer's body is larger than allowed."""


class _Timely(io.RawIOBase):
    """What a socket sends until a deadline, however slowly it comes; then ``TimeoutError``."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._sock = raw, sock
        self._deadline = time.monotonic() + (sock.gettimeout() or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not end in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(client.HTTPResponse):
    """Read by a deadline, from the status line on: the socket's time-out is for all of it."""

    def __init__(self, sock: socket.socket, *args: Any, **kw: Any) -> None:
        super().__init__(sock, *args, **kw)
        self.fp = io.BufferedReader(_Timely(self.fp.detach(), sock))

    def begin(self) -> None:
        super().begin()
        # what is no header urllib3 would write into the log, as it came
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Watched(HTTPConnection):
    """Notes when the request has been written, and is not used again after a rest."""

    response_class = _Answer
    _used = 0.0

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self._used < IDLE

    def request(self, *args: Any, **kw: Any) -> None:
        super().request(*args, **kw)
        _progress.written = True

    def getresponse(self) -> Any:
        self._used = time.monotonic()
        return super().getresponse()


class _WatchedTLS(_Watched, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class Bounded(HTTPAdapter):
    """A pool of connections that bounds every request; may be shared by sessions and threads.

    :param connect: seconds to reach a server's address, and again for its part of a TLS handshake.
    :param read: seconds for the whole answer, from when the request was written.
    :param most: bytes of body, decompressed, that an answer may have.
    :param pool: connections kept for reuse.
    """

    def __init__(self, *, connect: float, read: float, most: int, pool: int = 64) -> None:
        self.timeout, self.most = (connect, read), most
        super().__init__(pool_maxsize=pool)

    def init_poolmanager(self, *args: Any, **kw: Any) -> None:
        """Make the pools of our own connections."""
        super().init_poolmanager(*args, **kw)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kw: Any) -> Any:
        """The same through a proxy. Raises ``InvalidProxyURL`` for SOCKS, whose connections are not ours to watch."""
        if proxy.lower().startswith("socks"):
            raise requests.exceptions.InvalidProxyURL("SOCKS proxies are not supported; name an http:// one")
        manager = super().proxy_manager_for(proxy, **kw)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send, and take in the whole answer.

        ``stream`` and ``timeout`` are not heeded. Raises :class:`NotWritten`, or once the request was written
        another ``requests.ConnectionError`` or :class:`TooLarge`.
        """
        _progress.written = False
        try:
            response = super().send(request, True, self.timeout, verify, cert, proxies)
        except (requests.RequestException, HTTPError, OSError) as error:
            # OSError: a file of certificates that is not there
            raise _failure(error, request) from error
        try:
            body = response.raw.read(self.most + 1, decode_content=True)
        except (HTTPError, OSError) as error:
            raise _failure(error, request) from error
        finally:
            # read to its end, its connection is back in the pool; else both are of no more use
            response.raw.close()
        if len(body) > self.most:
            raise TooLarge(f"the answer is larger than {self.most} bytes", request=request, response=response)
        # and with the former goes all that a session would take cookies from
        response.raw = io.BytesIO(body)
        return response


def _failure(error: Exception, request: requests.PreparedRequest) -> requests.ConnectionError:
    kind = requests.ConnectionError if _progress.written else NotWritten
    return kind(error, request=request)


def bound(session: SessionT, adapter: Bounded) -> SessionT:
    """Bind a session to an adapter, for both schemes. It follows no redirect (which is an answer like any other),
    keeps no cookies, and reads no ``.netrc``.
    """
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # instead of allow_redirects=False, which some who are handed a session do not say
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
    # what is not compressed cannot blow up
    session.headers["Accept-Encoding"] = "identity"
    if session.auth is None:
        # or ~/.netrc would be asked
        session.auth = _as_it_is
    return session


def _as_it_is(request: Any) -> Any:
    return request


def cause(error: BaseException) -> str:
    """What a failure came from, in a word such as ``ConnectionRefusedError``: its own text quotes addresses."""
    inner = error.__cause__ or getattr(error, "reason", None)
    for told in (inner, *error.args):
        if isinstance(told, BaseException):
            return cause(told)
    return type(error).__name__


def parse(response: requests.Response) -> Any:
    """The JSON of an answer, whatever its content type says. Raises ``ValueError`` if it is none."""
    try:
        return json.loads(response.content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
