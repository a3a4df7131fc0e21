"""What goes to Africa's Talking, and what comes of it when the answer is late, broken, or about something else."""

from __future__ import annotations

import gzip
import re
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qsl

import pytest

from customer_orders.interfaces import ChannelDown, NotSent, Receipt, Rejected, Unavailable, Uncertain
from customer_orders_africastalking.gateway import Gateway
from loopback import Answer, break_off, drip, hang, provider, reset, unused_url

# Seconds: long enough for a busy machine to send, short enough to wait for.
SHORT = 0.5


# -- the request --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Thank you!", "Ñandú: 茶 🫖", "two\nlines & a=b + 100%", ""])
def test_what_is_sent_is_exactly_this(server, send, message, api_key, text):
    assert isinstance(send(given=replace(message, text=text)), Receipt)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/version1/messaging")
    assert parse_qsl(asked.body.decode(), keep_blank_values=True, strict_parsing=True) == [
        ("username", "shop"),
        ("to", message.to),
        ("message", text),
        ("bulkSMSMode", "1"),
    ]
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert headers["apikey"] == api_key
    assert headers["accept"] == "application/json"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert not {"authorization", "cookie", "idempotency-key"} & set(headers)


def test_a_sender_id_is_sent_if_there_is_one(server, send, make_notifier):
    send(by=make_notifier(sender_id="Duka La Mtaa"))
    assert server.asked[0].form["from"] == "Duka La Mtaa"


@pytest.mark.parametrize(
    "to",
    [
        "",
        "0700000001",
        "254700000001",
        "+0700000001",
        "+25470",
        "+2547000000012345",
        "+254700000001\n",
        " +254700000001",
        "+254700000001,+254700000002",
        "+\u0662\u0665\u0664\u0667\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661",
        "amina@shop.example",
    ],
)
def test_what_is_no_number_is_rejected_without_a_request(send, message, to):
    outcome = send(given=replace(message, to=to), requests=0)
    assert type(outcome) is Rejected
    assert outcome.reason == "the number is not in E.164"


def test_what_is_no_text_is_rejected_without_a_request(send, message):
    outcome = send(given=replace(message, text="half of a pair: \ud83e"), requests=0)
    assert type(outcome) is Rejected
    assert outcome.reason == "the text is not valid Unicode"


@pytest.mark.parametrize(
    ("username", "endpoint", "url"),
    [
        ("shop", None, "https://api.africastalking.com/version1/messaging"),
        ("sandbox", None, "https://api.sandbox.africastalking.com/version1/messaging"),
        ("Sandbox", None, "https://api.africastalking.com/version1/messaging"),
        ("sandbox", "https://sms.shop.example:8443", "https://sms.shop.example:8443/version1/messaging"),
        ("shop", "http://127.0.0.1:8080", "http://127.0.0.1:8080/version1/messaging"),
    ],
)
def test_the_user_name_selects_the_host_unless_an_endpoint_is_named(username, endpoint, url):
    gateway = Gateway(username, "key", endpoint=endpoint, connect_timeout=1, read_timeout=1)
    assert gateway._make_url("/messaging") == url
    # nothing of the SDK goes elsewhere while an endpoint is named
    assert endpoint is None or gateway._make_url("/messaging", content=True) == url


# -- nothing was sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", [unused_url(), unused_url("https"), "https://nowhere.invalid"], ids=["http", "https", "no such host"]
)
def test_a_provider_that_cannot_be_reached_is_unavailable(send, make_notifier, url):
    outcome = send(by=make_notifier(endpoint=url), requests=0)
    assert type(outcome) is Unavailable
    assert re.fullmatch("not reached: [A-Za-z]+", outcome.reason)
    assert outcome.retry_after is None


class BreakHandshake:
    """Breaks the connection off as soon as the client has begun its handshake.

    Not before (``refuse``): Python 3.11 then leaves a socket to the garbage collector, which warns of it.
    """

    def __init__(self, request, _client_address, _server):
        request.recv(1)
        break_off(request)


def test_a_connection_that_breaks_before_the_request_is_unavailable(server, send, make_notifier):
    server.RequestHandlerClass = BreakHandshake
    url = server.url.replace("http:", "https:")
    assert type(send(by=make_notifier(endpoint=url), requests=0)) is Unavailable
    assert len(server.connections) == 1


def test_a_certificate_that_is_not_trusted_is_unavailable(tls, send, make_notifier, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with provider(tls) as server:
        outcome = send(by=make_notifier(endpoint=server.url), requests=0)
        assert type(outcome) is Unavailable
        assert outcome.reason == "not reached: SSLCertVerificationError"
        assert server.asked == []


def test_without_certificates_to_trust_nothing_is_sent(server, send, make_notifier, monkeypatch, tmp_path):
    url = server.url.replace("http:", "https:")
    (tmp_path / "nonsense.pem").write_text("nonsense")
    for name in ("missing.pem", "nonsense.pem"):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / name))
        outcome = send(by=make_notifier(endpoint=url), requests=0)
        assert type(outcome) is Unavailable
        assert str(tmp_path) not in outcome.reason


def test_a_handshake_that_hangs_is_unavailable(send, make_notifier):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        assert type(send(by=make_notifier(endpoint=url, connect_timeout=0.3), requests=0)) is Unavailable


def test_a_provider_with_a_trusted_certificate_is_talked_to(tls, send, make_notifier, recipient):
    with provider(tls) as server:
        server.answer = lambda asked: Answer({"SMSMessageData": {"Recipients": [recipient()]}}, 201)
        assert isinstance(send(by=make_notifier(endpoint=server.url), requests=0), Receipt)
        assert len(server.asked) == 1


# -- it may have been sent ----------------------------------------------------------------------------------------


def slowly(body):
    return drip(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n" + body)


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        slowly(b" " * 500),
        drip(b"HTTP/1.1 201 Created\r\n" + b"X-Drip: drop\r\n" * 90),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
    ids=["hang", "body", "headers", "statuses"],
)
def test_an_answer_that_does_not_end_in_time_is_uncertain(server, answers, send, make_notifier, answer):
    server.pause = 0.02
    answers(answer)
    outcome = send(by=make_notifier(read_timeout=SHORT))
    assert type(outcome) is Uncertain
    assert outcome.reason == "no answer: TimeoutError"


def test_a_slow_body_within_the_time_is_taken(server, answers, send, recipient):
    server.pause = 0.0001
    body = b'{"SMSMessageData":{"Recipients":[{"statusCode":101,"messageId":"ATXid_1"}]}}'
    answers(drip(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
    assert send() == Receipt("ATXid_1")


def half(handler):
    handler.wfile.write(b'HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"SMSMessageData":')
    reset(handler)


@pytest.mark.parametrize(
    "answer",
    [reset, half, lambda handler: setattr(handler, "close_connection", True)],
    ids=["reset", "reset in the body", "closed"],
)
def test_a_connection_that_breaks_after_the_request_is_uncertain(answers, send, answer):
    answers(answer)
    outcome = send()
    assert type(outcome) is Uncertain
    assert re.fullmatch("no answer: [A-Za-z]+", outcome.reason)


@pytest.mark.parametrize(
    "answer",
    [Answer(b"x" * 50_000_000, 201), Answer(b" " * 65_537, 201), Answer(b" " * 50_000_000, 500)],
    ids=["50 MB", "a byte too many", "50 MB of a 500"],
)
def test_a_large_body_is_not_taken_in(answers, send, answer):
    answers(answer)
    outcome = send()
    assert type(outcome) is Uncertain
    assert outcome.reason == "no answer: TooLarge"


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\r\n\r\n",
        b"Success\r\n",
        b"HTTP/1.1 \xff\xff\xff\r\n\r\n",
        b"HTTP/1.1 000 None\r\n\r\n",
        b"HTTP/1.1 1000 Many\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n" + b"X-Header: x\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 201 Created\r\nX-Header: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nno header\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nContent-Length: two\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nContent-Encoding: nonsense\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 1_000_000, mtime=0),
        b"HTTP/1.1 201 Created\r\nSet-Cookie: \xff=\xff; Expires=\xff\r\nLocation: http://[\r\n\r\n{}",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/0.9 201 Created\r\n\r\n{}",
    ],
    ids=lambda told: repr(told[:60]),
)
def test_an_answer_that_breaks_the_rules_of_http_is_uncertain(answers, send, told):
    def answer(handler):
        handler.close_connection = True
        handler.wfile.write(told)

    answers(answer)
    assert type(send()) is Uncertain


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(answers, send, status):
    with provider() as elsewhere:
        answers(b"", status, Location=f"{elsewhere.url}/trap?of=a#kind")
        outcome = send()
        assert elsewhere.asked == []
        assert elsewhere.connections == []
    assert type(outcome) is Uncertain
    assert outcome.reason == f"HTTP {status}: africastalking.endpoint leads to a redirect, 127.0.0.1"


@pytest.mark.parametrize("location", [None, "/version2/messaging", "http://[", "//", "\xff"])
def test_a_redirect_to_no_host_names_none(answers, send, location):
    answers(b"", 302, **({} if location is None else {"Location": location}))
    outcome = send()
    assert type(outcome) is Uncertain
    assert outcome.reason == "HTTP 302: africastalking.endpoint leads to a redirect"


def test_a_redirect_tells_neither_key_nor_number(answers, send, message, api_key):
    answers(b"", 302, Location=f"https://user:{api_key}@{api_key}.{message.to[1:]}.example/{api_key}")
    assert send().reason == "HTTP 302: africastalking.endpoint leads to a redirect, ***.***.example"


# -- statuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (304, Uncertain, "HTTP 304: africastalking.endpoint leads to a redirect"),
        (400, Rejected, "HTTP 400"),
        (401, ChannelDown, "HTTP 401: africastalking.username or africastalking.api_key is wrong"),
        (402, ChannelDown, "HTTP 402: africastalking.endpoint or the account is wrong"),
        (403, ChannelDown, "HTTP 403: africastalking.endpoint or the account is wrong"),
        (404, ChannelDown, "HTTP 404: africastalking.endpoint or the account is wrong"),
        (405, ChannelDown, "HTTP 405: africastalking.endpoint or the account is wrong"),
        (407, ChannelDown, "HTTP 407: africastalking.endpoint or the account is wrong"),
        (408, Uncertain, "HTTP 408"),
        (413, Rejected, "HTTP 413"),
        (422, Rejected, "HTTP 422"),
        (429, Unavailable, "HTTP 429"),
        (499, Rejected, "HTTP 499"),
        (500, Uncertain, "HTTP 500"),
        (501, Uncertain, "HTTP 501"),
        (502, Uncertain, "HTTP 502"),
        (503, Unavailable, "HTTP 503"),
        (504, Uncertain, "HTTP 504"),
        (599, Uncertain, "HTTP 599"),
        (600, Uncertain, "HTTP 600"),
        (999, Uncertain, "HTTP 999"),
    ],
)
def test_a_status_that_is_no_success_is_told_by_itself(answers, recipient, send, status, expected, reason):
    # whatever the body says: nobody knows who wrote it
    body = {"SMSMessageData": {"Message": "InsufficientBalance", "Recipients": [recipient()]}}
    answers(b"" if status == 304 else body, status)
    outcome = send()
    assert type(outcome) is expected
    assert outcome.reason == reason
    assert getattr(outcome, "suppressed", False) is False


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        (" 30 ", 30),
        ("21600", 21600),
        ("86400", 21600),
        ("9" * 30, 21600),
        ("9" * 5000, None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 21600),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_a_wait_that_the_provider_asks_for_is_passed_on(answers, send, status, header, seconds):
    answers(b"", status, **({} if header is None else {"Retry_After": header}))
    outcome = send()
    assert type(outcome) is Unavailable
    assert outcome.retry_after == seconds


def test_a_wait_until_a_date_is_passed_on(answers, send):
    until = format_datetime(datetime.now(UTC) + timedelta(hours=4), usegmt=True)
    answers(b"", 503, Retry_After=until)
    # as long as this test does not take hours
    assert 2 * 3600 < send().retry_after <= 4 * 3600


# -- many at once -------------------------------------------------------------------------------------------------


def test_threads_share_a_notifier_and_its_connections(server, notifier, message):
    def answer(asked):
        told = {"statusCode": 101, "number": "hidden", "messageId": f"ATXid {asked.form['message']}"}
        return Answer({"SMSMessageData": {"Recipients": [told]}}, 201)

    server.answer = answer
    together = threading.Barrier(8)

    def send(thread):
        together.wait(30)
        words = [f"{thread} {number} {secrets.token_hex(4)}" for number in range(20)]
        return [(text, notifier.send(replace(message, text=text)).reference) for text in words]

    with ThreadPoolExecutor(8) as pool:
        told = [pair for pairs in pool.map(send, range(8)) for pair in pairs]
    assert len(told) == len(server.asked) == 160
    assert all(reference == f"ATXid {text}" for text, reference in told)
    assert len(server.connections) <= 8


def test_a_failure_of_one_thread_is_not_told_to_another(server, notifier, message):
    def answer(asked):
        return reset if asked.form["message"] == "break" else Answer(status=400)

    server.answer = answer

    def send(number):
        try:
            return notifier.send(replace(message, text="break" if number % 2 else "refuse"))
        except NotSent as told:
            return type(told)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(send, range(40))) == [Rejected, Uncertain] * 20
    assert len(server.asked) == 40
