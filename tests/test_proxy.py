"""The proxy that docker-compose.yml ships: what it lets through, and what it says of it."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
import requests

from customer_orders.api.requests import id_of
from loopback import Answer, authority, provider, reset, tls
from proxying import proxying
from serving import wait_for

__all__ = ["authority", "tls"]

pytestmark = pytest.mark.processes

LIMIT = 65536


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A server that is asked what it is asked, and the proxy in front of it."""
    with provider() as server, proxying(tmp_path_factory.mktemp("proxy"), address(server)) as proxy:
        yield server, proxy


def address(server):
    return server.url.removeprefix("http://")


def passed_on(server):
    """What the server was asked, other than whether it is ready."""
    return [asked for asked in list(server.asked) if asked.path != "/readyz"]


@pytest.fixture
def server(behind):
    behind[0].asked.clear()
    behind[0].answer = lambda asked: Answer({})
    return behind[0]


@pytest.fixture
def proxy(behind):
    return behind[1]


def test_who_calls_and_how_the_proxy_alone_says(server, proxy):
    told = {
        "X-Forwarded-For": "192.0.2.1",
        "X_Forwarded_For": "192.0.2.2",
        "x-forwarded_for": "192.0.2.3",
        "Forwarded": "for=192.0.2.4",
        "X-Real-Ip": "192.0.2.5",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X_Request_Id": "evil",
        "X-Kept": "yes",
    }
    assert requests.get(f"{proxy.url}/livez", headers=told, timeout=30).status_code == 200
    [asked] = passed_on(server)
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert {name for name in headers if "_" in name or "forward" in name or "real" in name} == {
        "x-forwarded-for",
        "x-forwarded-proto",
    }
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-kept"] == "yes"
    assert "evil" not in headers.values()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("order-17_a.b", True),
        ("12345678", True),
        ("0af3" * 8, True),
        ("550e8400-e29b-41d4-a716-446655440000", True),
        (None, False),
        ('quo"te', False),
        ("a" * 65, False),
        ("254713812939", False),
        ("0713812939", False),
        ("0713-812-939", False),
        ("order-254713812939", False),
        ("713812939.x", False),
        ("co_12_abcdef", False),
        ("eyJ" + "a" * 12 + ".b.c", False),
        ("Ab1" * 14, False),
    ],
)
def test_a_request_has_one_id_there_and_in_the_log(server, proxy, given, kept):
    requests.get(f"{proxy.url}/livez", headers={"X-Request-Id": given}, timeout=30)
    [asked] = passed_on(server)
    told = {name.lower(): value for name, value in asked.headers.items()}["x-request-id"]
    assert re.fullmatch("[A-Za-z0-9._-]{1,64}", told)
    assert (told == given) is kept
    # the service takes it for what it is, too
    assert id_of({"HTTP_X_REQUEST_ID": told}) == told
    assert kept or id_of({"HTTP_X_REQUEST_ID": given or ""}) != given
    wait_for(lambda: told in {logged.request_id for logged in proxy.logged()}, "it is logged")


def test_no_secret_and_no_number_is_logged(server, proxy):
    requests.post(f"{proxy.url}/api/notifications/reports/africastalking/verysecret?a=verysecret", timeout=30)
    requests.post(f"{proxy.url}/API/notifications/reports/x/verysecret/more", timeout=30)
    raw(proxy, b"POST //api//notifications/reports//x//verysecret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    raw(proxy, b"POST /api/notifications/report%73/x/verysecret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for given in (b"good\r\nX-Request-Id: +254713812939", b"good, tel 254713812939", b"254713812939.x"):
        raw(proxy, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: %s\r\n\r\n" % given)
    requests.get(f"{proxy.url}/api/customers/0713-812-939", timeout=30)
    requests.get(f"{proxy.url}/api/customers/254713812939", headers={"X-Request-Id": "254713812939"}, timeout=30)
    requests.get(f"{proxy.url}/api/customers/+254713812939/export", headers={"X-Request-Id": "0713812939"}, timeout=30)
    requests.get(f"{proxy.url}/api/customers/?q=%2B254713812939", timeout=30)
    wait_for(lambda: "/api/customers/" in {logged.path for logged in proxy.logged()}, "they are logged")
    log = proxy.log.read_text()
    for path in (
        "/api/notifications/reports/africastalking/",
        "//api//notifications/reports//x//",
        "/api/notifications/report%",
    ):
        assert f'"{path}***"' in log
    assert "verysecret" not in log
    assert "713812939" not in log
    assert "0713-812-939" not in log
    assert passed_on(server)[0].path == "/api/notifications/reports/africastalking/verysecret?a=verysecret"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/metrics?a=b", "/metrics/x"])
def test_metrics_are_for_those_inside(server, proxy, path):
    answer = raw(proxy, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"code":"not-found"' in answer
    assert passed_on(server) == []
    requests.get(f"{proxy.url}/metricsand/more", timeout=30)
    assert len(passed_on(server)) == 1


def raw(proxy, sent):
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (10 * 1024 * 1024, 413)])
def test_a_body_that_is_too_large_comes_to_no_server(server, proxy, size, status, chunked):
    body = b"x" * size
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    try:
        sent = iter([body]) if chunked else body
        connection.request("POST", "/api/orders/", sent, {"X-Request-Id": "large"}, encode_chunked=chunked)
    except ConnectionError:
        # refused while more of it is sent, and what was said is there to read
        assert size > LIMIT + 1
    answer = connection.getresponse()
    assert answer.status == status
    if status == 413:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert b'"code":"too-large"' in (told := answer.read())
        assert b'"request_id":"large"' in told
        assert passed_on(server) == []
    connection.close()


def test_what_no_server_got_goes_to_another_and_nothing_is_sent_twice(server, tmp_path):
    with socket.socket() as nobody:
        # bound and not listening: refuses
        nobody.bind(("127.0.0.1", 0))
        refusing = f"127.0.0.1:{nobody.getsockname()[1]}"
        with proxying(tmp_path, refusing, address(server), ready=1) as proxy:
            assert requests.post(f"{proxy.url}/api/orders/", timeout=30).status_code == 200
            server.asked.clear()
            server.answer = lambda asked: Answer({}) if asked.path == "/readyz" else reset
            answer = requests.post(f"{proxy.url}/api/orders/", timeout=30)
            assert (answer.status_code, answer.json()["code"]) == (502, "bad-gateway")
            assert len(passed_on(server)) == 1
            server.answer = lambda asked: Answer({}, 503)
            wait_for(lambda: len(proxy.down()) == 2, "none is ready")
            answer = requests.post(f"{proxy.url}/api/orders/", headers={"X-Request-Id": "late"}, timeout=30)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert (answer.json()["code"], answer.json()["request_id"]) == ("unavailable", "late")
            assert len(passed_on(server)) == 1


def test_a_server_that_refuses_before_it_is_known_to_costs_no_request(server, tmp_path):
    with ExitStack() as stack:
        other = stack.enter_context(provider())
        with proxying(tmp_path, address(other), address(server)) as proxy:
            # gone, and the proxy has yet to notice
            stack.close()
            for _ in range(10):
                assert requests.post(f"{proxy.url}/api/orders/", timeout=30).status_code == 200
    assert len(passed_on(server)) == 10


def test_one_address_has_so_many_connections(server, tmp_path):
    with proxying(tmp_path, address(server), PROXY_CONNECTIONS="10") as proxy, ExitStack() as stack:
        held = []

        def full():
            # one that came while others were being counted out is closed itself
            held.append(stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 30)))
            return not serves(proxy)

        wait_for(full, "there are too many")
        assert len(held) > 5
        # another address is none of their business
        with requests.Session() as elsewhere:
            elsewhere.mount("http://", From("127.0.0.2"))
            assert elsewhere.get(f"{proxy.url}/livez", timeout=30).status_code == 200
        for client in held:
            client.close()
        wait_for(lambda: serves(proxy), "there is room again")
    told = [{name.lower(): value for name, value in asked.headers.items()} for asked in passed_on(server)]
    assert "127.0.0.2" in {headers["x-forwarded-for"] for headers in told}


def serves(proxy):
    try:
        return requests.get(f"{proxy.url}/livez", timeout=30).ok
    except requests.ConnectionError:
        return False


class From(requests.adapters.HTTPAdapter):
    """Calls from an address of loopback."""

    def __init__(self, source):
        self.source = source
        super().__init__()

    def init_poolmanager(self, *positional, **named):
        super().init_poolmanager(*positional, source_address=(self.source, 0), **named)


def test_with_a_certificate_it_serves_https_alone(server, tmp_path, authority, tls):
    certificate = tmp_path / "orders.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"PROXY_CERTIFICATE": str(certificate), "PROXY_TLS_LISTEN": f"127.0.0.1:{port}"}
    with proxying(tmp_path, address(server), **told) as proxy:
        answer = requests.post(f"{proxy.url}/api/orders/?a=b", timeout=30, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (
            308,
            f"https://127.0.0.1:{proxy.port}/api/orders/?a=b",
        )
        assert passed_on(server) == []
        assert requests.post(f"https://127.0.0.1:{port}/api/orders/", timeout=30).status_code == 200
        [asked] = passed_on(server)
        assert asked.headers["x-forwarded-proto"] == "https"
