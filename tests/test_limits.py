"""How many requests are taken: by class, of each address and of each caller."""

from __future__ import annotations

import http.client
import re
import secrets
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from sqlalchemy import event, func, select
from webtest import TestApp

import factories
from conftest import settings_for
from contract import assert_problem
from customer_orders import main
from customer_orders.api import Service
from customer_orders.api.counting import Limiter
from customer_orders.auth import sessions
from customer_orders.auth.models import RefreshToken
from customer_orders.auth.services import local_user
from customer_orders.orders.models import Order
from customer_orders.sections.limiting import CLASSES
from customer_orders.settings import InvalidSettings
from serving import ROOT, serving

DAY = 86400
# 01:10:20
BEGIN = 4220
PROXY = "10.0.0.5"
SHOP = "https://shop.example"
REDIRECT, CALLBACK = "/api/scripted-oauth2/redirect/", "/api/scripted-oauth2/callback/"
HTML = {"Accept": "text/html,*/*;q=0.8"}

# Which class each service is in; every other one is in that of its method.
NAMED = {
    "/login/": "sign_in",
    "/api/{provider}-oauth2/redirect/": "sign_in",
    "/api/{provider}-oauth2/callback/": "sign_in",
    "/api/token/refresh": "token",
    "/api/token/revoke": "token",
    "/api/notifications/reports/{notifier}/{secret}": "reports",
    "/livez": None,
    "/readyz": None,
}


class Clock:
    """The time that limits are counted by, as a test moves it; it begins far from where windows turn."""

    def __init__(self):
        self.now = time.time() // DAY * DAY + BEGIN

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    told = Clock()
    monkeypatch.setattr(time, "time", told)
    return told


@pytest.fixture(scope="module")
def limited_app(make_app, database_kind):
    """An application that takes three requests of each class a day, behind a proxy."""
    more = {"app.trusted_proxies": f"{PROXY} 10.1.0.0/16", "auth.default_role": "clerk", "api.cors_origins": SHOP}
    return make_app(database_kind, **{f"limits.{name}": "3/day" for name in CLASSES}, **more)


@pytest.fixture
def limited(limited_app, clock):
    """That, with nothing counted yet; calls from an address: ``limited("192.0.2.1")``."""
    registry = limited_app.registry
    registry.limiter = Limiter(registry.sections["limits"])
    registry.plugins.identity_providers["scripted"].reset()

    def client(address="192.0.2.1", user=None):
        made = TestApp(limited_app, extra_environ={"REMOTE_ADDR": address, "HTTP_HOST": "127.0.0.1:6543"})
        if user is not None:
            made.authorization = ("Bearer", registry.access_tokens.create_token(str(user)))
        return made

    client.registry = registry
    return client


@pytest.fixture
def new_user(limited_app):
    """Makes a user who may do all."""

    def make():
        with limited_app.registry.database.transaction() as session:
            return local_user(session, f"{secrets.token_hex(6)}@shop.example", "admin").id

    return make


def request_of(registry, name):
    """A request of a class: method, path and body. None succeeds, and none needs to."""
    secret = registry.sections["notifications"].report_secrets[0]
    return {
        "read": ("GET", "/api/customers/", b""),
        "write": ("POST", "/api/customers/", b"{}"),
        "sign_in": ("GET", f"{CALLBACK}?state=x&code=y", b""),
        "token": ("POST", "/api/token/refresh", b'{"refresh": "x"}'),
        "reports": ("POST", f"/api/notifications/reports/scripted/{secret}", b""),
    }[name]


def send(client, request, **headers):
    method, path, body = request
    headers = {"Content-Type": "application/json", **headers}
    return client.request(path, method=method, body=body, headers=headers, status="*")


def refused(response):
    """The problem of a request that is too much."""
    problem = assert_problem(response, 429, "too-many-requests")
    assert 1 <= int(response.headers["Retry-After"]) <= DAY
    assert f"Try again in {response.headers['Retry-After']} seconds." in problem["detail"]
    return problem


# -- by class, address and caller ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_of_an_address_so_many_requests_of_each_class_are_taken(limited, clock, name):
    request = request_of(limited.registry, name)
    taken = [send(limited(), request).status_int for _ in range(3)]
    assert 429 not in taken
    answer = send(limited(), request)
    assert f"of the class {name} are taken of this address in {DAY} seconds" in refused(answer)["detail"]
    # nobody else, and nothing else, is kept out
    assert send(limited("192.0.2.2"), request).status_int == taken[0]
    for other in set(CLASSES) - {name}:
        assert send(limited(), request_of(limited.registry, other)).status_int != 429
    # a second later than told, as it is for whoever waited that long
    clock.now += int(answer.headers["Retry-After"]) - 1
    refused(send(limited(), request))
    clock.now += 2
    assert send(limited(), request).status_int == taken[0]


@pytest.mark.parametrize("name", ["read", "write"])
def test_of_a_caller_so_many_requests_are_taken_wherever_they_come_from(limited, new_user, name):
    request, jane, john = request_of(limited.registry, name), new_user(), new_user()
    for number in range(3):
        assert send(limited(f"192.0.2.{number}", jane), request).status_int in (200, 400)
    answer = send(limited("192.0.2.7", jane), request)
    assert f"of the class {name} are taken of you" in refused(answer)["detail"]
    assert send(limited("192.0.2.8", john), request).status_int in (200, 400)


def test_a_token_is_counted_by_whose_it_is(limited, new_user):
    """Another token of the same user is the same caller; one that is not good is nobody's, but an address's."""
    jane = new_user()
    for number, method in enumerate(("GET", "HEAD", "GET")):
        assert limited(f"192.0.2.{number}", jane).request("/api/me", method=method).status_int == 200
    refused(limited("192.0.2.7", jane).get("/api/me", status="*"))
    stranger = limited("192.0.2.9")
    for number in range(3):
        stranger.authorization = ("Bearer", f"no-token-{number}")
        assert stranger.get("/api/me", status="*").status_int == 401
    refused(stranger.get("/api/me", status="*"))


def test_of_a_user_so_many_refresh_tokens_are_taken_and_one_too_many_is_not_spent(limited, new_user):
    registry, jane = limited.registry, new_user()
    with registry.database.transaction() as session:
        token = sessions.begin(session, jane, registry.sections["auth"]).token
    for number in range(3):
        token = limited(f"192.0.2.{number}").post_json("/api/token/refresh", {"refresh": token}).json["refresh"]
    refused(limited("192.0.2.7").post_json("/api/token/refresh", {"refresh": token}, status="*"))
    registry.limiter = Limiter(registry.sections["limits"])
    limited("192.0.2.7").post_json("/api/token/refresh", {"refresh": token}, status=200)


def test_of_a_user_so_many_sign_ins_are_taken(limited):
    def sign_in(number):
        # each from two addresses: two requests of one sign-in are two of the address
        client = limited(f"192.0.2.{number}")
        begun = client.get(REDIRECT, status=302)
        (state,) = parse_qs(urlsplit(begun.headers["Location"]).query)["state"]
        return client.get(f"{CALLBACK}?{urlencode({'state': state, 'code': 'c0de'})}", status="*")

    assert [sign_in(number).status_int for number in range(3)] == [200] * 3

    def tokens():
        with limited.registry.database.transaction() as session:
            return session.scalar(select(func.count()).select_from(RefreshToken))

    before = tokens()
    refused(sign_in(7))
    assert tokens() == before


def test_where_nobody_is_asked_for_no_token_is_looked_at(limited, new_user, monkeypatch):
    client = limited(user=new_user())
    monkeypatch.setattr(limited.registry.access_tokens, "get_claims", lambda request: 1 / 0)
    for path in ("/api/", "/api/api.json", "/login/"):
        client.get(path, status=200)


@pytest.mark.parametrize("name", ["sign_in", "token", "reports"])
def test_what_is_too_much_costs_neither_a_statement_nor_a_call(limited, name, monkeypatch):
    registry = limited.registry
    request = request_of(registry, name)
    for _ in range(3):
        send(limited(), request)
    done = []
    listen = (registry.database.engine, "before_cursor_execute", lambda *args: done.append(args))
    monkeypatch.setattr(registry.access_tokens, "get_claims", lambda request: done.append(request) or {})
    event.listen(*listen)
    try:
        refused(send(limited(), request, Authorization="Bearer x"))
    finally:
        event.remove(*listen)
    assert done == []


def test_a_secret_of_reports_cannot_be_tried_without_end(limited):
    wrong = f"/api/notifications/reports/scripted/{secrets.token_urlsafe(32)}"
    assert [send(limited(), ("POST", wrong, b"")).status_int for _ in range(4)] == [404, 404, 404, 429]
    refused(send(limited(), request_of(limited.registry, "reports")))


def test_what_leads_nowhere_is_counted_too(limited):
    paths = ["/api/nothing", "/.env", "/static/nothing", "/api/customers/x", "/"]
    assert [limited().get(path, status="*").status_int for path in paths] == [404, 404, 404, 429, 429]


def test_probes_are_not_counted(limited):
    for _ in range(5):
        for path in ("/livez", "/readyz"):
            answer = limited().get(path, status=200)
            assert "RateLimit" not in answer.headers


def test_other_methods_and_forms_open_nothing(limited):
    client = limited()
    for method in ("GET", "HEAD", "OPTIONS"):
        assert client.request("/api/customers", method=method, status="*").status_int != 429
    for method in ("GET", "HEAD", "OPTIONS"):
        for path in ("/api/customers", "/api/customers/", "/api/customers/?limit=1"):
            for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
                answer = client.request(path, method=method, headers={header: "DELETE"}, status="*")
                assert answer.status_int == 429
    for method in ("POST", "TRACE", "PUT"):
        headers = {"X-HTTP-Method-Override": "GET"}
        assert client.request("/api/customers/", method=method, headers=headers, status="*").status_int != 429
    # the fourth of those that are no reading ones
    for method in ("PUT", "PATCH", "DELETE", "POST", "TRACE"):
        refused(client.request("/api/customers/", method=method, headers={"X-HTTP-Method": "GET"}, status="*"))


def test_every_service_is_in_one_class(limited_app):
    services = limited_app.registry.cornice_services.values()
    assert NAMED.keys() <= {service.path for service in services}
    for service in services:
        for method in ("GET", "HEAD", "OPTIONS"):
            assert service.limit_class(method) == NAMED.get(service.path, "read")
        for method in ("POST", "PUT", "PATCH", "DELETE", "BREW"):
            assert service.limit_class(method) == NAMED.get(service.path, "write")


def test_a_service_in_a_class_that_there_is_not_cannot_be_made():
    with pytest.raises(TypeError, match="'reed' is no class of limits; there are read, write, sign_in, token, reports"):
        Service("birds", "/birds", limited_as="reed")


def test_a_repeat_is_counted_and_a_key_that_was_refused_stays_good(limited, new_user, clock):
    jane = new_user()
    client = limited(user=jane)
    customer = factories.customer(client)["id"]
    body, key = {"item": "Tea", "amount": 1, "customer": customer}, {"Idempotency-Key": "k"}
    made = client.post_json("/api/orders/", body, headers=key, status=201)
    assert client.post_json("/api/orders/", body, headers=key, status=201).headers["Idempotent-Replayed"] == "true"
    answer = client.post_json("/api/orders/", body, headers=key, status="*")
    refused(answer)
    refused(client.post_json("/api/orders/", body, headers={"Idempotency-Key": "new"}, status="*"))
    clock.now += int(answer.headers["Retry-After"]) + 1
    assert client.post_json("/api/orders/", body, headers=key, status=201).json == made.json
    # one comes free each third of a day from there on
    clock.now += 3 * DAY
    client.post_json("/api/orders/", body, headers={"Idempotency-Key": "new"}, status=201)
    with limited.registry.database.transaction() as session:
        orders = select(func.count()).select_from(Order).where(Order.customer_id == customer)
        assert session.scalar(orders) == 2


# SQLite has one writer at a time: nothing is tried again there.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_request_that_the_database_has_tried_again_is_one(client, failing):
    def left(answer):
        return [int(number) for number in re.findall(r";r=(\d+)", answer.headers["RateLimit"])]

    body = {"username": "Jane", "phone_number": "0713812939"}
    before = left(client.post_json("/api/customers/", body, status=201))
    tried = failing("commit", 2)
    after = left(client.post_json("/api/customers/", body, status=201))
    assert tried() == 3
    assert [one - other for one, other in zip(before, after, strict=True)] == [1, 1]


# -- what an answer tells -----------------------------------------------------------------------------------------


def test_each_answer_tells_what_is_left(limited, new_user):
    jane = new_user()
    told = []
    for _ in range(3):
        answer = limited(user=jane).get("/api/me")
        assert answer.headers["RateLimit-Policy"] == (
            f'"read-address-{DAY}";q=3;w={DAY}, "read-caller-{DAY}";q=3;w={DAY}'
        )
        told.append(answer.headers["RateLimit"])
    reset = DAY - BEGIN
    assert told == [f'"read-address-{DAY}";r={n};t={reset}, "read-caller-{DAY}";r={n};t={reset}' for n in (2, 1, 0)]
    answer = limited(user=jane).get("/api/me", status=429)
    assert answer.headers["RateLimit"] == f'"read-address-{DAY}";r=0;t={reset}'
    assert answer.headers["Retry-After"] == str(reset)
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_page_of_another_origin_may_read_it(limited):
    for status in (200, 200, 200, 429):
        answer = limited().get("/api/", headers={"Origin": SHOP}, status=status)
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)


def test_a_browser_gets_a_page(limited):
    for _ in range(3):
        limited().get("/login/", headers=HTML, status=200)
    for path in ("/login/", REDIRECT):
        page = limited().get(path, headers=HTML, status=429)
        assert page.content_type == "text/html"
        assert "Too many requests" in page.html.find("h1").get_text()
        assert f"Try again in {page.headers['Retry-After']} seconds." in page.html.get_text()


def test_what_is_refused_is_logged_without_the_address(limited, caplog):
    for _ in range(4):
        answer = limited("198.51.100.77").get("/api/", headers={"X-Request-Id": "case-7"}, status="*")
    refused(answer)
    caplog.clear()
    with caplog.at_level("INFO", "customer_orders"):
        limited("198.51.100.77").get("/api/", headers={"X-Request-Id": "case-7"}, status=429)
    told = [record.getMessage() for record in caplog.records if record.name != "customer_orders.access"]
    assert told == [f"limit read-address-{DAY} reached (request case-7)"]
    assert "198.51.100.77" not in caplog.text


def test_the_document_tells_of_it_at_every_operation(limited):
    document = limited().get("/api/api.json").json
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            answer = operation["responses"]["429"]
            assert "too-many-requests" in answer["description"], path
            assert set(answer["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
            assert answer["schema"] == {"$ref": "#/definitions/Problem"}
            for response in operation["responses"].values():
                assert {"RateLimit", "RateLimit-Policy"} <= set(response["headers"])


# -- whose address it is ------------------------------------------------------------------------------------------


def test_a_forged_header_changes_nothing(limited):
    def ask(number):
        forged = {
            "X-Forwarded-For": f"198.51.100.{number}, {PROXY}",
            "Forwarded": f"for=198.51.100.{number}",
            "X-Real-IP": f"198.51.100.{number}",
            "Client-IP": f"198.51.100.{number}",
            "True-Client-IP": f"198.51.100.{number}",
        }
        return limited("192.0.2.1").get("/api/", headers=forged, status="*")

    assert [ask(number).status_int for number in range(5)] == [200, 200, 200, 429, 429]
    # those that were named are not charged for it, and neither is the proxy
    assert limited("198.51.100.1").get("/api/", status="*").status_int == 200
    assert limited(PROXY).get("/api/", headers={"X-Forwarded-For": "198.51.100.1"}, status="*").status_int == 200


def test_behind_proxies_each_client_is_one(limited):
    def ask(forwarded, proxy=PROXY):
        return limited(proxy).get("/api/", headers={"X-Forwarded-For": forwarded}, status="*").status_int

    # what the client itself claims stands left of what the first proxy says
    assert [ask(f"198.51.100.{number}, 192.0.2.1") for number in range(3)] == [200] * 3
    assert ask("192.0.2.1") == 429
    assert ask("192.0.2.1:4711, 10.1.2.3", "10.1.9.9") == 429
    assert ask("192.0.2.2, 10.1.2.3", "10.1.9.9") == 200


def test_a_network_of_ipv6_is_one_address(limited):
    answers = [limited(f"2001:db8:0:1::{number}").get("/api/", status="*").status_int for number in range(1, 5)]
    assert answers == [200, 200, 200, 429]
    assert limited("2001:db8:0:2::1").get("/api/", status="*").status_int == 200


def test_who_has_no_address_shares_what_one_has(limited):
    # such as the peer on a Unix socket
    answers = [limited(peer).get("/api/", status="*").status_int for peer in ("", "localhost", "@", "")]
    assert answers == [200, 200, 200, 429]


@pytest.mark.parametrize("production", [False, True])
def test_a_server_hands_on_what_proxies_say(tmp_path, new_database, production):
    """The real ones: waitress, unless it is told, would take the headers away."""
    ini = tmp_path / "untold.ini"
    text = (ROOT / "development.ini").read_text()
    ini.write_text(text.replace("clear_untrusted_proxy_headers = false\n", ""))
    assert "clear_untrusted" not in ini.read_text()
    more = {"APP_TRUSTED_PROXIES": "127.0.0.1", "LIMITS_READ": "2/day", "PLUGINS": "devtools"}
    with serving(tmp_path, new_database("sqlite"), ini, production=production, **more) as server:

        def ask(*lines):
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
            connection.putrequest("GET", "/api/")
            for line in lines:
                connection.putheader("X-Forwarded-For", line)
            connection.endheaders()
            status = connection.getresponse().status
            connection.close()
            return status

        assert [ask("198.51.100.1", f"192.0.2.{number}") for number in (1, 1, 1, 2)] == [200, 200, 429, 200]
        # the last line counts, and in it the last address
        assert ask("192.0.2.2", "198.51.100.1, 192.0.2.1") == 429


def test_a_server_hands_on_what_is_no_proxys_and_it_changes_nothing(tmp_path, new_database):
    with serving(tmp_path, new_database("sqlite"), LIMITS_READ="2/day") as server:
        statuses = []
        for number in range(3):
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
            connection.request("GET", "/api/", headers={"X-Forwarded-For": f"192.0.2.{number}"})
            statuses.append(connection.getresponse().status)
            connection.close()
    assert statuses == [200, 200, 429]


# -- settings -----------------------------------------------------------------------------------------------------


def test_a_blank_limit_is_none(make_app, clock):
    app = make_app("sqlite", **{"limits.read": " ", "limits.write": "1/day"})
    client = TestApp(app)
    for _ in range(5):
        answer = client.get("/api/", status=200)
        assert "RateLimit" not in answer.headers
        assert "RateLimit-Policy" not in answer.headers
    assert client.post("/api/customers/", status="*").status_int == 401
    refused(client.post("/api/customers/", status="*"))


def test_a_window_that_begins_this_very_moment_ends_with_it(make_app, clock):
    clock.now = clock.now // DAY * DAY
    client = TestApp(make_app("sqlite", **{"limits.read": "1/day"}))
    assert client.get("/api/").headers["RateLimit"] == f'"read-address-{DAY}";r=0;t={DAY}'
    assert client.get("/api/", status=429).headers["Retry-After"] == str(DAY)


def test_a_class_may_have_several_rates(make_app, clock):
    client = TestApp(make_app("sqlite", **{"limits.read": "2/minute; 3 per hour"}))
    first = client.get("/api/")
    assert first.headers["RateLimit-Policy"] == '"read-address-60";q=2;w=60, "read-address-3600";q=3;w=3600'
    assert first.headers["RateLimit"] == '"read-address-60";r=1;t=40, "read-address-3600";r=2;t=2980'
    client.get("/api/")
    answer = client.get("/api/", status=429)
    assert answer.headers["Retry-After"] == "40"
    clock.now += 120
    client.get("/api/", status=200)
    answer = client.get("/api/", status=429)
    assert '"read-address-3600";r=0' in answer.headers["RateLimit"]
    assert answer.headers["Retry-After"] == str(2980 - 120)


def test_limits_unless_told_are_those_that_the_settings_tell(new_database):
    settings = settings_for(new_database("sqlite", migrated=True))
    settings = {key: value for key, value in settings.items() if not key.startswith("limits.")}
    registry = main({}, **settings).registry
    told = {each.key: each.display() for each in registry.sections["limits"]}
    assert told == {
        "limits.storage": "memory://",
        "limits.read": "1200/minute",
        "limits.write": "600/minute",
        "limits.sign_in": "60/minute",
        "limits.token": "120/minute",
        "limits.reports": "6000/minute",
    }
    assert "each process counts for itself" in registry.sections["limits"]["storage"].node.title


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("limits.read", "many", "is 'many'. Write a number and a time, such as 600/minute"),
        ("limits.read", "600", "is '600'. Write a number and a time"),
        ("limits.read", "600/fortnight", "is '600/fortnight'. Write a number and a time"),
        ("limits.read", "-1/minute", "is '-1/minute'. Write a number and a time"),
        ("limits.read", "0/minute", "is '0/minute', and would let nobody in"),
        ("limits.sign_in", "5/minute; x", "is '5/minute; x'. Write a number and a time"),
        ("limits.storage", "memory", "write memory://, redis://user:password@host:6379/0"),
        ("limits.storage", "memcached://127.0.0.1", "write memory://, redis://"),
        ("limits.storage", "redis://127.0.0.1:port", "is no address of a Redis; write memory://"),
        ("limits.storage", "redis://127.0.0.1/0?no_such_option=1", "is no address of a Redis; write memory://"),
        ("limits.reed", "1/minute", "is not a setting. Did you mean limits.read?"),
        ("app.trusted_proxies", "10.0.0.0/8 proxy.example", "is 'proxy.example'; write addresses or networks"),
        ("app.trusted_proxies", "0.0.0.0/0", "anybody could claim any address"),
    ],
)
def test_a_setting_that_will_not_do_says_how_to_write_it(key, value, says):
    with pytest.raises(InvalidSettings) as caught:
        main({}, **{**settings_for("sqlite:///nowhere.sqlite"), key: value})
    (error,) = caught.value.errors
    assert error.key == key
    assert says in error.message


def test_a_storage_that_will_not_do_is_told_without_its_password():
    password = secrets.token_urlsafe(16)
    with pytest.raises(InvalidSettings) as caught:
        main({}, **{**settings_for("sqlite:///nowhere.sqlite"), "limits.storage": f"redis://:{password}@host:port"})
    assert password not in str(caught.value)
