"""The development tools answer to this machine alone."""

from __future__ import annotations

import re
import secrets

import pytest
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_app

PAGES = ["/devtools/inbox", "/devtools/sign-in", "/devtools/static/inbox.css"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:6543", "[::1]", "[::1]:6543"])
def test_it_answers_to_this_machine(browser, host):
    for address in ("127.0.0.1", "127.8.8.8", "::1"):
        browser.get("/devtools/inbox", extra_environ={"REMOTE_ADDR": address, "HTTP_HOST": host}, status=200)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        # another machine
        ("192.168.1.7", "localhost:6543"),
        ("10.0.0.1", "127.0.0.1"),
        ("2001:db8::1", "[::1]:6543"),
        ("203.0.113.9", "localhost"),
        # not an address
        ("", "localhost"),
        ("localhost", "localhost"),
        ("127.0.0.1, 10.0.0.1", "localhost"),
        # a proxy on this machine, or a foreign name that resolves to it
        ("127.0.0.1", "orders.example.com"),
        ("127.0.0.1", "192.168.1.7:6543"),
        ("::1", "[2001:db8::1]:6543"),
        ("127.0.0.1", "0.0.0.0:6543"),
        # names that only look like this machine's
        ("127.0.0.1", "localhost.evil.example"),
        ("127.0.0.1", "evil.example#localhost"),
        ("127.0.0.1", "evil.example@localhost"),
        ("127.0.0.1", "localhost@evil.example"),
        ("127.0.0.1", "localhost:80:evil.example"),
        ("127.0.0.1", "127.0.0.1.evil.example"),
        ("127.0.0.1", "127.0.0.10"),
        ("127.0.0.1", "127x0x0x1"),
        ("127.0.0.1", "[::1].evil.example"),
        ("127.0.0.1", "[::1"),
        ("127.0.0.1", ""),
    ],
)
def test_to_anyone_else_it_does_not_exist(browser, address, host):
    for page in PAGES:
        refused = browser.get(page, extra_environ={"REMOTE_ADDR": address, "HTTP_HOST": host}, status=404)
        assert refused.content_type == "application/problem+json"
        assert refused.json["code"] == "not-found"
        assert refused.headers["X-Request-Id"] == refused.json["request_id"]


def test_what_a_proxy_tells_of_the_host_is_not_believed(browser):
    browser.get(
        "/devtools/inbox",
        headers={"X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1", "Forwarded": "host=localhost"},
        extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "orders.example.com"},
        status=404,
    )


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server"],
)
def test_what_a_proxy_passed_on_gets_no_answer(browser, header):
    for page in PAGES:
        browser.get(page, headers={header: "127.0.0.1"}, status=404)
        assert browser.get(page, headers={f"Not-{header}": "127.0.0.1"}, status="*").status_int != 404


def test_the_form_takes_nothing_from_elsewhere(browser):
    browser.post(
        "/devtools/sign-in",
        {"email": "jane@shop.example"},
        extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "evil.example"},
        status=404,
    )


INI = """
[DEFAULT]
port = 6543

[app:main]
use = egg:customer-orders
plugins = devtools
app.public_url = http://127.0.0.1:%(port)s
sqlalchemy.url = sqlite:///%(here)s/orders.sqlite
devtools.inbox = %(here)s/inbox.jsonl

"""


@pytest.fixture
def make_from_ini(tmp_path, monkeypatch):
    """Makes the application of an INI with this [server:main], as ``pserve some.ini variable=value`` does."""
    monkeypatch.setenv("JWT_PRIVATE_KEY", secrets.token_urlsafe(64))

    def make(server, **variables):
        ini = tmp_path / "some.ini"
        ini.write_text(INI + server)
        return get_app(str(ini), options=variables)

    return make


LOCAL = [
    "listen = 127.0.0.1:%(port)s",
    "listen = localhost:%(port)s",
    "listen = [::1]:%(port)s 127.0.0.1:%(port)s",
    "host = 127.0.0.1",
    "host = localhost\nport = 80",
    "host = ::1",
]

ELSEWHERE = [
    # waitress listens everywhere unless told
    "threads = 4",
    "port = 6543",
    "listen = 0.0.0.0:%(port)s",
    "listen = *:%(port)s",
    "listen = :%(port)s",
    "listen = %(port)s",
    "listen = [::]:%(port)s",
    "listen = [::1:%(port)s",
    "listen = 192.168.1.7:%(port)s",
    "listen = 127.0.0.1:%(port)s 0.0.0.0:%(port)s",
    "listen = orders.example.com:%(port)s",
    "listen = localhost.evil.example:%(port)s",
    "host = 0.0.0.0",
    "host = orders.example.com",
    "unix_socket = /run/orders.sock",
]


@pytest.mark.parametrize("options", LOCAL)
def test_it_starts_with_a_server_that_listens_to_this_machine(make_from_ini, options):
    assert make_from_ini(f"[server:main]\nuse = egg:customer-orders#waitress\n{options}\n").registry.devtools


@pytest.mark.parametrize("options", ELSEWHERE)
def test_it_refuses_to_start_with_a_server_that_listens_elsewhere(make_from_ini, options):
    with pytest.raises(ConfigurationError, match=r"\[server:main\] listens on .* take devtools out of plugins"):
        make_from_ini(f"[server:main]\nuse = egg:customer-orders#waitress\n{options}\n")


@pytest.mark.parametrize(
    ("public_url", "starts"),
    [
        ("http://localhost:6543", True),
        ("http://[::1]", True),
        ("https://orders.example.com", False),
        ("http://192.0.2.1:6543", False),
        ("http://localhost.evil.example", False),
    ],
)
def test_it_refuses_to_start_where_browsers_come_from_elsewhere(make_app, public_url, starts):
    if starts:
        assert make_app(**{"app.public_url": public_url}).registry.devtools
    else:
        with pytest.raises(
            ConfigurationError, match=f"app.public_url is {re.escape(public_url)}, .* take devtools out"
        ):
            make_app(**{"app.public_url": public_url})


def test_a_public_address_that_is_wrong_is_told_by_the_core(make_app):
    with pytest.raises(ConfigurationError, match=r"^1 setting is wrong:\n  app\.public_url .* write scheme and host"):
        make_app(**{"app.public_url": "orders.example.com"})


def test_it_starts_without_a_server(make_from_ini):
    assert make_from_ini("[server:other]\nlisten = 0.0.0.0:80\n").registry.devtools


def test_a_port_given_on_the_command_line_counts(make_from_ini):
    server = "[server:main]\nuse = egg:customer-orders#waitress\nlisten = %(where)s:%(port)s\n"
    assert make_from_ini(server, where="127.0.0.1", port="8080").registry.devtools
    with pytest.raises(ConfigurationError, match=r"listens on 192\.0\.2\.1:8080"):
        make_from_ini(server, where="192.0.2.1", port="8080")


@pytest.mark.parametrize(("listen", "starts"), [("127.0.0.1:8080", True), ("", True), ("0.0.0.0:8080", False)])
def test_the_variable_that_overrides_where_to_listen_counts(make_from_ini, monkeypatch, listen, starts):
    monkeypatch.setenv("SERVER_LISTEN", listen)
    server = "[server:main]\nuse = egg:customer-orders#waitress\nlisten = 127.0.0.1:%(port)s\n"
    if starts:
        assert make_from_ini(server).registry.devtools
    else:
        with pytest.raises(ConfigurationError, match=r"listens on 0\.0\.0\.0:8080"):
            make_from_ini(server)


def test_a_variable_cannot_excuse_an_ini_that_listens_elsewhere(make_from_ini, monkeypatch):
    monkeypatch.setenv("SERVER_LISTEN", "127.0.0.1:8080")
    with pytest.raises(ConfigurationError, match=r"listens on 0\.0\.0\.0:80"):
        make_from_ini("[server:main]\nuse = egg:waitress\nlisten = 0.0.0.0:80\n")
