"""A provider on loopback: a real HTTP server, with or without TLS, that answers, or misbehaves, as it is told."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme


@dataclass(frozen=True)
class Asked:
    """A request as it came in. ``connection``: a number for each connection, to see which were used again."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def form(self) -> dict[str, str]:
        """The body's fields."""
        return {name: values[-1] for name, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}


@dataclass
class Answer:
    """An answer, sent whole; ``body`` that is no bytes is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: Handler) -> None:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        handler.send_response(self.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **self.headers}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


def hang(handler: Handler) -> None:
    """Say nothing until the other side goes, or the server ends."""
    handler.close_connection = True
    handler.server.released.wait(60)


def drip(text: bytes) -> Callable[[Handler], None]:
    """Send a byte at a time, slowly, for as long as the other side listens."""

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        for number in range(len(text)):
            handler.wfile.write(text[number : number + 1])
            handler.wfile.flush()
            if handler.server.released.wait(handler.server.pause):
                return

    return answer


def reset(handler: Handler) -> None:
    """Break the connection as a crashed machine does (RST)."""
    handler.close_connection = True
    break_off(handler.connection)


def break_off(connection: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Handler(BaseHTTPRequestHandler):
    """Notes each request, and answers by the server's ``answer``."""

    protocol_version = "HTTP/1.1"
    server: Provider
    asked: Asked

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.command, self.path, dict(self.headers), body, self.server.number_of(self.connection))
        self.server.asked.append(asked)
        self.asked = asked
        answer = self.server.answer(asked)
        # the other side may be gone by now
        with suppress(ConnectionError):
            answer(self)

    do_GET = do_POST = _handle  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Nothing: what matters is in ``asked``."""


class Provider(ThreadingHTTPServer):
    """The server.

    :param tls: its certificate; without, it speaks plain HTTP.
    ``answer``: called with each request; tells what to do with the handler.
    ``refuse``: break off each new connection, before anything of it was read.
    ``pause``: seconds between two bytes of :func:`drip`.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_address[1]}"
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Callable[[Handler], None]] = lambda asked: Answer({})
        self.refuse = False
        self.pause = 0.1
        self.released = threading.Event()
        self.connections: list[socket.socket] = []
        self.errors: list[BaseException] = []

    def number_of(self, connection: socket.socket) -> int:
        """Which of the connections this is, in the order of their coming."""
        return self.connections.index(connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in a thread of its own."""
        if self.refuse:
            if self.tls:
                # once its handshake has begun: Python leaks a socket that is broken before
                request.recv(1)
            break_off(request)
            return
        if self.tls:
            # here, not when accepting: a handshake that hangs must not keep others waiting
            request = self.tls.wrap_socket(request, server_side=True)
        self.connections.append(request)
        # what a client that gave up leaves behind
        with suppress(ConnectionError, OSError):
            super().finish_request(request, client_address)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what is the test's own fault; handshakes that fail, and clients that leave, are what is tested."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self.errors.append(error)


@contextmanager
def provider(tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    """A provider that runs until the end of the block."""
    server = Provider(tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(30)
    for error in server.errors:
        raise error


def unused_url(scheme: str = "http") -> str:
    """An address of loopback that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"{scheme}://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A certificate authority of this test run; its certificate's file is ``authority.file``."""
    authority: Any = trustme.CA()
    authority.file = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(authority.file)
    return authority


@pytest.fixture
def tls(authority: Any, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The certificate of a server on loopback, which requests trusts during the test."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
