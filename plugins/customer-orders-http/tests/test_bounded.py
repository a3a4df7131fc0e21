"""Requests that end in time whatever the provider does, and say whether it can have got them."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

import customer_orders_http
from customer_orders_http import Bounded, NotWritten, TooLarge, bound, cause, parse
from loopback import Answer, drip, hang, provider, reset, unused_url

LIMIT = 1000
# More than the buffers of both ends of a connection take in.
HUGE = b"x" * 50_000_000


@pytest.fixture(params=["http", "https"])
def server(request, tls):
    with provider(tls if request.param == "https" else None) as server:
        yield server


@pytest.fixture
def plain():
    with provider() as server:
        yield server


def new_session(read=0.5, connect=5):
    return bound(requests.Session(), Bounded(connect=connect, read=read, most=LIMIT))


@pytest.fixture
def session():
    with new_session() as session:
        yield session


def answers(server, answer):
    server.answer = lambda asked: answer


def endless(handler):
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not handler.server.released.is_set():
        handler.wfile.write(b"b" * 65536)


@pytest.mark.parametrize("size", [0, 1, LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_within_the_limits_is_taken_in_whole(server, session, size, chunked):
    body = b"b" * size

    def in_chunks(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(0, size, 100):
            handler.wfile.write(b"64\r\n%b\r\n" % body[number : number + 100] if size > 1 else b"1\r\nb\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    answers(server, in_chunks if chunked else Answer(body))
    for _ in range(2):
        assert session.post(server.url, data={"a": "b"}).content == body
    assert [asked.form for asked in server.asked] == [{"a": "b"}] * 2
    # read to its end, the connection was used again
    assert {asked.connection for asked in server.asked} == {0}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"b" * (LIMIT + 1)),
        Answer(HUGE),
        endless,
        Answer(gzip.compress(b"b" * 1_000_000), headers={"Content-Encoding": "gzip"}),
    ],
)
def test_a_larger_answer_is_not_taken_in(server, session, answer):
    answers(server, answer)
    with pytest.raises(TooLarge, match="larger than 1000 bytes"):
        session.get(server.url)
    answers(server, Answer(b"next"))
    assert session.get(server.url).content == b"next"


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"b" * 500),
        # the status line and the headers too
        drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        drip(b"HTTP/1.1 200 OK\r\n" + b"X-Drip: drop\r\n" * 90),
    ],
    ids=["hang", "drip the body", "drip statuses", "drip headers"],
)
def test_an_answer_that_does_not_end_in_time_is_given_up(server, answer):
    server.pause = 0.01
    answers(server, answer)
    # left to itself each would go on for seconds, and end in another way
    with pytest.raises(requests.RequestException, match=r"timed out|not end in time") as told:
        new_session(read=0.3).get(server.url)
    assert not isinstance(told.value, NotWritten)


def test_the_time_starts_anew_with_each_request_of_a_connection(plain):
    with new_session(read=0.4) as session:
        for _ in range(4):
            answers(plain, lambda handler: (handler.server.released.wait(0.15), Answer(b"late")(handler)))
            assert session.get(plain.url).content == b"late"
    assert {asked.connection for asked in plain.asked} == {0}


@pytest.mark.parametrize("answer", [reset, lambda handler: setattr(handler, "close_connection", True)])
def test_a_break_after_the_request_is_no_not_written(server, session, answer):
    answers(server, answer)
    with pytest.raises(requests.ConnectionError) as told:
        session.post(server.url, data={"a": "b"})
    assert not isinstance(told.value, NotWritten)
    assert len(server.asked) == 1


def test_an_answer_that_breaks_in_the_middle_is_no_not_written(server, session):
    def half(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        reset(handler)

    answers(server, half)
    with pytest.raises(requests.RequestException) as told:
        session.post(server.url, data={"a": "b"})
    assert not isinstance(told.value, NotWritten)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_connection_is_not_written(session, scheme):
    with pytest.raises(NotWritten):
        session.post(unused_url(scheme), data={"a": "b"})


def test_a_name_that_nobody_knows_is_not_written(session):
    with pytest.raises(NotWritten):
        session.post("http://nowhere.invalid/", data={"a": "b"})


def test_a_break_in_the_handshake_is_not_written(tls, session):
    with provider(tls) as server:
        server.refuse = True
        with pytest.raises(NotWritten):
            session.post(server.url, data={"a": "b"})
        assert server.asked == []


def test_a_certificate_that_is_not_trusted_is_not_written(tls, session, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with provider(tls) as server:
        with pytest.raises(NotWritten, match="CERTIFICATE_VERIFY_FAILED"):
            session.post(server.url, data={"a": "b"})
        assert server.asked == []


@pytest.mark.parametrize("contents", [None, "nonsense"])
def test_without_certificates_to_trust_nothing_is_written(session, monkeypatch, tmp_path, contents):
    if contents:
        (tmp_path / "authority.pem").write_text(contents)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    with pytest.raises(NotWritten):
        session.post(unused_url("https"), data={"a": "b"})


def test_a_handshake_that_hangs_ends_in_time_and_is_not_written():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with new_session(connect=0.3) as session, pytest.raises(NotWritten):
            session.post(url, data={"a": "b"})


def test_a_request_that_breaks_while_it_is_written_is_not_written(plain, session):
    plain.refuse = True
    with pytest.raises(NotWritten):
        session.post(plain.url, data=HUGE)


def test_an_early_answer_to_a_request_that_was_not_read_to_its_end_is_an_answer(plain, session):
    plain.RequestHandlerClass = EarlyHandler
    assert session.post(plain.url, data=HUGE).status_code == 413


class EarlyHandler:
    """Says 413 without reading the body."""

    def __init__(self, request, _client_address, _server):
        with request.makefile("rb") as lines:
            while lines.readline().strip():
                pass
        request.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        request.shutdown(1)
        # take in what is on its way, so that the answer is not overtaken by a RST
        while request.recv(1_000_000):
            pass


def test_a_redirect_is_not_followed_and_nothing_is_sent_on(server, session):
    with provider() as elsewhere:
        answers(server, Answer(status=307, headers={"Location": f"{elsewhere.url}/trap"}))
        answer = session.post(server.url, data={"key": "secret"})
        assert (answer.status_code, answer.headers["Location"]) == (307, f"{elsewhere.url}/trap")
        assert elsewhere.asked == []
    assert len(server.asked) == 1


def test_no_cookie_is_kept_and_nothing_is_asked_for_compressed(server, session):
    answers(server, Answer(headers={"Set-Cookie": "a=b; Path=/"}))
    for _ in range(2):
        session.get(server.url)
    assert all("Cookie" not in asked.headers for asked in server.asked)
    assert [asked.headers["Accept-Encoding"] for asked in server.asked] == ["identity"] * 2


def test_a_netrc_of_the_account_is_not_read(plain, session, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with requests.Session() as unbound:
        unbound.get(plain.url)
    session.get(plain.url)
    assert ["Authorization" in asked.headers for asked in plain.asked] == [True, False]


def test_a_connection_that_rested_is_not_used_again(plain, session, monkeypatch):
    for idle in (5, 0, 5):
        monkeypatch.setattr(customer_orders_http, "IDLE", idle)
        session.get(plain.url)
    assert [asked.connection for asked in plain.asked] == [0, 1, 1]


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(plain, session):
    answers(plain, Answer(headers={"Connection": "close"}))
    for _ in range(3):
        assert session.get(plain.url).ok
    assert [asked.connection for asked in plain.asked] == [0, 1, 2]


def test_threads_share_an_adapter_without_mixing_answers(server):
    adapter = Bounded(connect=5, read=20, most=LIMIT, pool=8)
    together = threading.Barrier(8)

    def ask(number):
        session = bound(requests.Session(), adapter)
        together.wait(30)
        return [session.get(f"{server.url}/{number}/{again}").text for again in range(25)]

    server.answer = lambda asked: Answer(asked.path.encode())
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(8)))
    assert told == [[f"/{number}/{again}" for again in range(25)] for number in range(8)]
    assert len(server.connections) <= 8


def test_failures_of_one_thread_are_not_told_to_another(plain):
    adapter = Bounded(connect=5, read=1, most=LIMIT)

    def ask(number):
        session = bound(requests.Session(), adapter)
        url = plain.url if number % 2 else unused_url()
        with pytest.raises(requests.RequestException) as told:
            session.post(url, data={"a": "b"})
        return isinstance(told.value, NotWritten)

    answers(plain, reset)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(40))) == [number % 2 == 0 for number in range(40)]


def test_a_proxy_passes_requests_on_within_the_same_bounds(plain, session, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", plain.url)
    monkeypatch.setenv("NO_PROXY", "")
    answers(plain, Answer(b"by proxy"))
    assert session.get("http://pigeons.example/loft").content == b"by proxy"
    assert plain.asked[0].path == "http://pigeons.example/loft"
    answers(plain, Answer(HUGE))
    with pytest.raises(TooLarge):
        session.get("http://pigeons.example/loft")
    answers(plain, hang)
    with pytest.raises(requests.RequestException) as told:
        session.get("http://pigeons.example/loft")
    assert not isinstance(told.value, NotWritten)


def test_a_proxy_that_opens_no_tunnel_has_written_nothing(plain, session, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", plain.url)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(NotWritten):
        session.post("https://pigeons.example/loft", data={"a": "b"})


def test_a_socks_proxy_is_not_written_to(session, plain, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", plain.url.replace("http:", "socks5:"))
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(NotWritten, match="SOCKS proxies are not supported"):
        session.get("http://pigeons.example/loft")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "text/plain"])
def test_json_is_read_whatever_its_type_says(plain, session, content_type):
    answers(plain, Answer({"é": [1]}, headers={"Content-Type": content_type}))
    assert parse(session.get(plain.url)) == {"é": [1]}


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff", b"[" * LIMIT], ids=repr)
def test_what_is_no_json_is_a_value_error(plain, session, body):
    answers(plain, Answer(body))
    with pytest.raises(ValueError, match=r".+"):
        parse(session.get(plain.url))


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda session, url: session.get(unused_url()), "ConnectionRefusedError"),
        (lambda session, url: session.get("http://nowhere.invalid/"), "gaierror"),
        (lambda session, url: session.get(f"{url}/huge"), "TooLarge"),
        (lambda session, url: session.get(f"{url}/hang"), "TimeoutError"),
        (lambda session, url: session.get(f"{url}/reset"), "ConnectionResetError"),
    ],
)
def test_a_failure_is_told_in_a_word(plain, session, act, word):
    how = {"/huge": Answer(HUGE), "/hang": hang, "/reset": reset}
    plain.answer = lambda asked: how[asked.path]
    with pytest.raises(requests.RequestException) as told:
        act(session, plain.url)
    assert cause(told.value) == word


def test_what_is_no_header_is_not_logged(plain, session, caplog):
    caplog.set_level(logging.DEBUG)

    def odd(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nyour secret is s3cret\r\nX: y\r\n\r\n{}")
        handler.close_connection = True

    answers(plain, odd)
    session.get(plain.url)
    assert '"GET / HTTP/1.1" 200' in caplog.text
    assert "s3cret" not in caplog.text
