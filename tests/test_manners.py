"""How the API behaves whatever is asked of it: what it says of itself, and the methods, types and origins it takes."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from pyramid.interfaces import IRoutesMapper
from sqlalchemy import update
from webtest import TestApp

import factories
from conftest import settings_for
from contract import assert_problem, signed_in
from customer_orders import keyset, main
from customer_orders.api import Operation
from customer_orders.api.fields import Metadata
from customer_orders.auth import api_keys, sessions
from customer_orders.notifications.models import Notification
from customer_orders.settings import InvalidSettings

# What each path takes beside OPTIONS, and HEAD where it takes GET.
METHODS = {
    "/": {"GET"},
    "/api/": {"GET"},
    "/api/api-keys/": {"GET", "POST"},
    "/api/api-keys/{id}": {"GET", "DELETE"},
    "/api/api.json": {"GET"},
    "/api/customers/": {"GET", "POST"},
    "/api/customers/{id}": {"GET", "PUT", "PATCH", "DELETE"},
    "/api/customers/{id}/anonymize": {"POST"},
    "/api/customers/{id}/export": {"GET"},
    "/api/me": {"GET"},
    "/api/me/sessions": {"GET", "DELETE"},
    "/api/me/sessions/{id}": {"DELETE"},
    "/api/notifications/": {"GET"},
    "/api/notifications/resend": {"POST"},
    "/api/notifications/{id}": {"GET"},
    "/api/notifications/{id}/resend": {"POST"},
    "/api/orders/": {"GET", "POST"},
    "/api/audit/": {"GET"},
    "/api/customers/{id}/events": {"GET"},
    "/api/orders/{id}": {"GET", "PUT", "PATCH", "DELETE"},
    "/api/orders/{id}/events": {"GET"},
    "/api/stats": {"GET"},
    "/api/token/refresh": {"POST"},
    "/api/token/revoke": {"POST"},
    "/api/version": {"GET"},
    "/api/{provider}-oauth2/callback/": {"GET"},
    "/api/{provider}-oauth2/redirect/": {"GET"},
    "/livez": {"GET"},
    "/login/": {"GET"},
    "/problems/": {"GET"},
    "/problems/{code}": {"GET"},
    "/readyz": {"GET"},
}

# Routes that the document does not show: pages, their files, and what is for those who run the service.
INTERNAL = {
    "/api/notifications/reports/{notifier}/{secret}",
    "/",
    "/login/",
    "/problems/",
    "/problems/{code}",
    "/livez",
    "/readyz",
}
INTERNAL_FILES = {"static/*subpath", "static/swagger-ui/*subpath"}


@pytest.fixture
def url_of(client, registry):
    """Tells a URL of something that there is, for the path of a service."""
    placed, leaver = factories.order(client), factories.customer(client)["id"]
    with registry.database.transaction() as session:
        begun = sessions.begin(session, client.get("/api/me").json["id"], registry.sections["auth"]).family_id
        key = api_keys.create(session, "Till", "viewer")[0].id

    def url(path):
        ids = {"orders": placed["id"], "customers": placed["customer"], "notifications": placed["notification"]["id"]}
        ids |= {"me": begun, "api-keys": key}
        if path.endswith("/anonymize"):
            ids["customers"] = leaver
        return path.format(id=ids.get("".join(path.split("/")[2:3])), provider="scripted", code="stale")

    return url


# Where providers call back; to everyone else it is a path that leads nowhere (see test_reports).
REPORTS = "/api/notifications/reports/{notifier}/{secret}"


def services(registry):
    """Every service of the application that tells what it takes, by its path."""
    return {service.path: service for service in registry.cornice_services.values() if service.path != REPORTS}


def allowed(path):
    return METHODS[path] | {"OPTIONS"} | ({"HEAD"} if "GET" in METHODS[path] else set())


# -- what it is ---------------------------------------------------------------------------------------------------


def test_the_root_tells_anyone_what_this_is(client, anonymous):
    told = anonymous.get("/api/", status=200)
    assert told.headers["Content-Type"] == "application/json"
    for path in ("/api", "/api/"):
        for caller in (anonymous, client):
            assert caller.get(path, status=200).body == told.body
    assert told.json["name"] == "Customer Orders"
    assert told.json["version"] == version("customer-orders") == anonymous.get("/api/api.json").json["info"]["version"]
    assert set(told.json) == {"name", "version", "capabilities", "limits", "links"}
    assert told.json["capabilities"] == sorted(told.json["capabilities"])
    assert {"idempotency-keys", "conditional-requests"} <= set(told.json["capabilities"])


def test_its_limits_are_those_that_are_kept(client):
    limits = client.get("/api/").json["limits"]
    assert set(limits) == {
        "body_bytes",
        "page_default",
        "page_max",
        "search_rows",
        "idempotency_key_seconds",
        "metadata_keys",
        "metadata_key_length",
        "metadata_value_length",
    }
    assert limits["search_rows"] == keyset.SCANNED
    largest = b'{"username": "Jane", "phone_number": "0713812939"}'.ljust(limits["body_bytes"])
    client.post("/api/customers/", largest, content_type="application/json", status=201)
    client.post("/api/customers/", largest + b" ", content_type="application/json", status=413)
    client.get(f"/api/customers/?limit={limits['page_max']}", status=200)
    client.get(f"/api/customers/?limit={limits['page_max'] + 1}", status=400)
    key, value = "k" * limits["metadata_key_length"], "v" * limits["metadata_value_length"]
    metadata = {f"{number}": "x" for number in range(limits["metadata_keys"] - 1)}
    factories.customer(client, metadata={**metadata, key: value})
    for more in ({f"{key}k": value}, {key: f"{value}v"}, {key: value, "one more": "x"}):
        body = {"username": "Jane", "phone_number": "0713812939", "metadata": {**metadata, **more}}
        assert_problem(client.post_json("/api/customers/", body, status="*"), 400, "invalid", "metadata")
    for _ in range(limits["page_default"]):
        factories.customer(client)
    assert len(client.get("/api/customers/").json) == limits["page_default"]


def test_its_limits_are_those_of_the_deployment(make_app, database_kind):
    app = make_app(database_kind, **{"api.max_body": "2000", "api.idempotency_seconds": "3600"})
    limits = TestApp(app).get("/api/").json["limits"]
    assert (limits["body_bytes"], limits["idempotency_key_seconds"]) == (2000, 3600)
    assert limits["metadata_keys"] == Metadata.keys


def test_its_links_lead_somewhere(anonymous):
    links = anonymous.get("/api/", headers={"Host": "elsewhere.example"}).json["links"]
    assert {"document", "sign_in", "problems", "customers", "orders", "notifications"} <= set(links)
    for name, url in links.items():
        assert url.startswith("http://127.0.0.1:6543/")
        expected = 401 if name in ("customers", "orders", "notifications", "stats", "audit", "version") else 200
        assert anonymous.get(url.removeprefix("http://127.0.0.1:6543"), status="*").status_int == expected, name


def test_the_root_takes_no_query(anonymous):
    assert_problem(anonymous.get("/api/?x=1", status="*"), 400, "invalid", "x")


# -- methods ------------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_document_or_known_to_be_internal(anonymous, registry):
    documented = {f"/api{path}" for path in anonymous.get("/api/api.json").json["paths"]}
    mapper = registry.getUtility(IRoutesMapper)
    served = {route.pattern for route in mapper.get_routes(include_static=True)}
    # a static view is a route without a slash at its beginning
    files = {pattern.removeprefix("/") for pattern in served if "*subpath" in pattern}
    assert files == INTERNAL_FILES
    served = {pattern for pattern in served if "*subpath" not in pattern}
    assert served == documented | INTERNAL
    assert documented & INTERNAL == set()
    # no service is without a route, and none of them is another's
    assert {service.path for service in registry.cornice_services.values()} == served == {*METHODS, REPORTS}


def test_options_tells_anyone_what_a_path_takes(client, anonymous, registry, url_of, subtests):
    for path in services(registry):
        for caller in (anonymous, client):
            with subtests.test(path=path):
                answer = caller.options(url_of(path), status=204)
                assert answer.body == b""
                assert set(answer.headers["Allow"].split(", ")) == allowed(path)
                assert "Access-Control-Allow-Origin" not in answer.headers


def test_what_options_tells_is_what_a_path_takes(anonymous, registry, url_of, subtests):
    for path in services(registry):
        told = set(anonymous.options(url_of(path)).headers["Allow"].split(", "))
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            with subtests.test(path=path, method=method):
                answer = anonymous.request(url_of(path), method=method, status="*")
                assert (answer.status_int == 405) == (method not in told)


def test_both_slash_forms_tell_what_they_take(anonymous):
    for path in ("/api", "/api/customers", "/api/customers/", "/api/orders/1/", "/login", "/api/me/"):
        assert "OPTIONS" in anonymous.options(path, status=204).headers["Allow"]


def test_there_are_no_options_where_nothing_is(anonymous):
    for path in ("/api/nothing", "/nothing", "/api/customers/abc", "/api/nobody-oauth2/redirect/"):
        assert_problem(anonymous.options(path, status="*"), 404, "not-found")


def test_head_answers_as_get_does_without_a_body(client, anonymous, registry, url_of, subtests):
    # the first is never alike, and whoever only looks at the second must not sign anybody in
    changing = {"/api/{provider}-oauth2/redirect/": {"Location", "Set-Cookie", "Content-Length"}}
    # it tells that it was asked for before
    changing["/api/customers/{id}/export"] = {"Content-Length"}
    looked_at = [path for path in services(registry) if "GET" in METHODS[path]]
    looked_at.remove("/api/{provider}-oauth2/callback/")
    for path in looked_at:
        for caller in (client, anonymous):
            for accept in ("application/json", "text/html", "application/xml"):
                with subtests.test(path=path, accept=accept):
                    headers = {"Accept": accept, "X-Request-Id": "case-7"}
                    got = caller.get(url_of(path), headers=headers, status="*")
                    head = caller.head(url_of(path), headers=headers, status="*")
                    assert head.status_int == got.status_int
                    assert head.body == b""
                    assert set(head.headers) == set(got.headers)
                    # both are counted
                    for name in set(got.headers) - changing.get(path, set()) - {"RateLimit"}:
                        assert head.headers[name] == got.headers[name], name


def test_head_of_a_list_tells_its_links_and_its_count(client):
    for _ in range(3):
        factories.order(client)
    url = "/api/orders/?limit=1&count=true"
    head, got = client.head(url), client.get(url)
    assert head.headers["X-Total-Count"] == "3"
    assert head.headers["Link"] == got.headers["Link"]


def test_head_of_a_call_back_does_nothing(anonymous, registry):
    anonymous.get("/api/scripted-oauth2/redirect/", status=302)
    answer = anonymous.head("/api/scripted-oauth2/callback/?state=x&code=y", status=200)
    assert answer.body == b""
    assert registry.plugins.identity_providers["scripted"].asked == []


# -- types --------------------------------------------------------------------------------------------------------

REFRESH = {"refresh": "never-issued"}


@pytest.fixture
def speaking(client, registry, url_of):
    """Every documented operation that answers with a body of JSON: its method, its URL, and a body that it takes."""
    placed = factories.order(client)
    bodies = {
        "customers": {"username": "Jane", "phone_number": "0713812939"},
        "orders": {"item": "Tea", "amount": 1, "customer": placed["customer"]},
        "token": REFRESH,
    }
    bodies["api-keys"] = {"name": "Till", "role": "viewer"}
    own = {"/api/notifications/resend": {"status": ["unknown"]}, "/api/notifications/{id}/resend": {}}
    found = []
    for path, service in services(registry).items():
        for method, _, args in service.definitions:
            (operation,) = [one for one in args["validators"] if isinstance(one, Operation)]
            # Cornice adds the HEAD of each GET by itself
            if service.tags and operation.returns and "callback" not in path and method != "HEAD":
                body = own.get(path, bodies.get(path.split("/")[2])) if operation.body else None
                found.append((method, url_of(path), body))
    assert len(found) == 29
    return found


@pytest.fixture
def undelivered(registry):
    """Makes every message one that can be sent again."""

    def fail():
        with registry.database.transaction() as session:
            session.execute(update(Notification).values(status="failed"))

    return fail


def ask(client, method, url, body, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is None:
        return client.request(url, method=method, headers=named, status="*")
    return getattr(client, f"{method.lower()}_json")(url, body, headers=named, status="*")


@pytest.mark.parametrize(
    "accept",
    [
        "application/xml",
        "text/csv",
        "text/plain",
        "image/*",
        "application/xml, text/csv;q=0.5",
        "application/json;q=0",
        "*/*;q=0",
        "application/problem+json",
        "application/vnd.api+json",
    ],
)
def test_whoever_wants_another_type_than_there_is_gets_none_and_nothing_is_done(client, speaking, undelivered, accept):
    undelivered()
    before = [client.get(url).json for url in ("/api/customers/", "/api/orders/")]
    for method, url, body in speaking:
        refused = ask(client, method, url, body, Accept=accept)
        problem = assert_problem(refused, 406, "not-acceptable")
        assert "application/json" in problem["detail"]
    assert [client.get(url).json for url in ("/api/customers/", "/api/orders/")] == before


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "application/*",
        "Application/JSON",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/xml, application/json;q=0.1",
        "application/xml;q=0.9, */*;q=0.1",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/xml, application/json; charset=utf-8; q=0.5",
        # what cannot be read is as good as none
        "",
        " ",
        ";;;,,,===",
        "application",
        "application/xml;q=x",
        '"',
        "\xff\xfe",
        "a" * 10_000,
    ],
)
def test_whoever_takes_json_or_says_nothing_that_can_be_read_gets_it(client, speaking, undelivered, accept):
    for method, url, body in speaking:
        for headers in ({}, {"Accept": accept}):
            undelivered()
            answer = ask(client, method, url, body, **headers)
            if body == REFRESH:
                assert_problem(answer, 401, "invalid-refresh-token")
            else:
                assert answer.status_int in (200, 201), answer.text
                assert answer.headers["Content-Type"] == "application/json"


def test_what_answers_without_a_body_is_whatever_is_wanted(client, anonymous):
    for headers in ({"Accept": "application/xml"}, {"Accept": "text/csv"}):
        url = f"/api/customers/{factories.customer(client)['id']}"
        assert client.delete(url, headers=headers, status=204).body == b""
        assert client.post_json("/api/token/revoke", REFRESH, headers=headers, status=204).body == b""
        anonymous.get("/api/scripted-oauth2/redirect/", headers=headers, status=302)


def test_a_problem_comes_whatever_is_wanted(client, anonymous):
    wanting = {"Accept": "application/xml"}
    assert_problem(anonymous.get("/api/customers/", headers=wanting, status="*"), 401, "unauthenticated")
    assert_problem(client.get("/api/nothing", headers=wanting, status="*"), 404, "not-found")
    assert_problem(client.put("/api/customers/", b"{}", headers=wanting, status="*"), 405, "method-not-allowed")


def test_every_body_is_json_or_refused(client, registry, url_of, subtests):
    for path, service in services(registry).items():
        for method, _, args in service.definitions:
            (operation,) = [one for one in args["validators"] if isinstance(one, Operation)]
            for content_type in ("text/plain", "application/xml", "application/x-www-form-urlencoded", None):
                if operation.body:
                    with subtests.test(path=path, method=method, content_type=content_type):
                        headers = {"Content-Type": content_type} if content_type else {}
                        answer = client.request(url_of(path), method=method, body=b"{}", headers=headers, status="*")
                        assert_problem(answer, 415, "unsupported-media-type")


# -- origins ------------------------------------------------------------------------------------------------------

SHOP, POS = "https://shop.example", "https://pos.example"
FROM_SHOP = {"Origin": SHOP}
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,if-match"}
SHARING = ("Access-Control-Allow-Origin", "Access-Control-Expose-Headers")


def about_origins(answer):
    """What an answer says to a browser of other origins' pages."""
    return {name for name in answer.headers if name.startswith("Access-Control-")}


def names(answer, header):
    return set(answer.headers[header].split(", "))


@pytest.fixture
def shared(make_app, database_kind):
    """A signed-in client of a deployment that lets pages of two origins call it."""
    return signed_in(make_app(database_kind, **{"api.cors_origins": f"{SHOP} {POS}"}))


def test_unless_a_deployment_names_them_no_origin_is_told_anything(client, anonymous, subtests):
    for path in ("/api/", "/api/customers/", "/api/nothing", "/", "/login/"):
        for method, headers in (("GET", FROM_SHOP), ("OPTIONS", {**FROM_SHOP, **PREFLIGHT}), ("GET", {})):
            with subtests.test(path=path, method=method):
                for caller in (client, anonymous):
                    answer = caller.request(path, method=method, headers=headers, status="*")
                    assert about_origins(answer) == set()
                    assert "Origin" not in answer.headers.get("Vary", "")


@pytest.mark.parametrize("origin", [SHOP, POS])
def test_a_page_of_a_named_origin_may_read_what_it_asked_for(shared, origin):
    placed = factories.order(shared)
    for path in ("/api/", "/api", "/api/orders/", "/api/orders", f"/api/orders/{placed['id']}", "/api/api.json"):
        answer = shared.get(path, headers={"Origin": origin}, status=200)
        assert about_origins(answer) == set(SHARING)
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        exposed = names(answer, "Access-Control-Expose-Headers")
        assert {"ETag", "Link", "Location", "X-Total-Count", "X-Request-Id", "Retry-After"} <= exposed
        assert "Idempotent-Replayed" in exposed
        assert "Origin" in names(answer, "Vary")
    body = {"item": "Tea", "amount": 1, "customer": placed["customer"]}
    made = shared.post_json("/api/orders/", body, headers={"Origin": origin}, status=201)
    assert made.headers["Access-Control-Allow-Origin"] == origin
    url = f"/api/orders/{placed['id']}"
    known = {"Origin": origin, "If-None-Match": shared.get(url).headers["ETag"]}
    answer = shared.get(url, headers=known, status=304)
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    answer = shared.delete(url, headers={"Origin": origin}, status=204)
    assert answer.headers["Access-Control-Allow-Origin"] == origin


def test_a_page_may_read_what_went_wrong(shared):
    stranger = TestApp(shared.app)
    for answer, status, code in (
        (stranger.get("/api/orders/", headers=FROM_SHOP, status="*"), 401, "unauthenticated"),
        (shared.get("/api/nothing", headers=FROM_SHOP, status="*"), 404, "not-found"),
        (shared.get("/api/orders/1234567", headers=FROM_SHOP, status="*"), 404, "not-found"),
        (shared.put("/api/orders/", b"{}", headers=FROM_SHOP, status="*"), 405, "method-not-allowed"),
        (shared.get("/api/orders/", headers={**FROM_SHOP, "Accept": "text/csv"}, status="*"), 406, "not-acceptable"),
        (shared.post("/api/orders/", b"x" * 70_000, headers=FROM_SHOP, status="*"), 413, "too-large"),
        (shared.get("/api/%ff", headers=FROM_SHOP, status="*"), 400, "malformed"),
    ):
        assert (answer.status_int, answer.json["code"]) == (status, code)
        assert about_origins(answer) == set(SHARING)
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
        assert "Origin" in names(answer, "Vary")
    refused = shared.get("/api/orders/?x=1", headers=FROM_SHOP, status=400)
    assert refused.headers["Access-Control-Allow-Origin"] == SHOP


def test_a_browser_that_asks_first_is_told_what_a_page_may_send(shared, subtests):
    stranger = TestApp(shared.app)
    for path, service in services(shared.app.registry).items():
        if path.startswith("/api/") and "provider" not in path:
            with subtests.test(path=service.path):
                answer = stranger.options(path.format(id=1), headers={**FROM_SHOP, **PREFLIGHT}, status=204)
                assert answer.body == b""
                assert answer.headers["Access-Control-Allow-Origin"] == SHOP
                assert names(answer, "Access-Control-Allow-Methods") == allowed(path)
                sent = names(answer, "Access-Control-Allow-Headers")
                assert {"Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key"} <= sent
                assert int(answer.headers["Access-Control-Max-Age"]) > 0
                assert "Origin" in names(answer, "Vary")
                # tokens are sent by hand: a page gets nothing by being where a cookie is
                assert "Access-Control-Allow-Credentials" not in answer.headers


def test_an_origin_that_only_asks_what_a_path_takes_has_asked_nothing_first(shared):
    answer = shared.options("/api/orders/", headers=FROM_SHOP, status=204)
    assert about_origins(answer) == set(SHARING)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "*",
        "https://elsewhere.example",
        "http://shop.example",
        "https://shop.example:8443",
        "https://shop.example/",
        "https://shop.example.evil.example",
        "https://evil-shop.example",
        "https://www.shop.example",
        "HTTPS://SHOP.EXAMPLE",
        f"{SHOP} {POS}",
        f"{SHOP}, {POS}",
        "shop.example",
        "\xff\xfe",
    ],
)
def test_another_origin_is_told_nothing_but_that_it_matters(shared, origin):
    headers = {} if origin is None else {"Origin": origin}
    for answer in (
        shared.get("/api/orders/", headers=headers, status=200),
        shared.get("/api/nothing", headers=headers, status=404),
        shared.options("/api/orders/", headers={**headers, **PREFLIGHT}, status=204),
    ):
        assert about_origins(answer) == set()
        assert "Origin" in names(answer, "Vary")


def test_pages_of_our_own_are_shared_with_nobody(shared):
    for path in ("/", "/login/", "/login", "/problems/", "/livez", "/static/style.css", "/nothing"):
        for method, headers in (("GET", FROM_SHOP), ("OPTIONS", {**FROM_SHOP, **PREFLIGHT})):
            answer = shared.request(path, method=method, headers=headers, status="*")
            assert about_origins(answer) == set()
            assert "Origin" not in answer.headers.get("Vary", "")
            # reading a file's answer closes the file
            assert answer.body is not None


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "null",
        "shop.example",
        "https://",
        "https://*.shop.example",
        "https://shop.example/",
        "https://shop.example/path",
        "https://shop.example?x=1",
        "https://shop.example#x",
        "https://user@shop.example",
        "https://SHOP.example",
        "HTTPS://shop.example",
        "ftp://shop.example",
        "https://shop.example:port",
        "https://shop.example https://pos.example/path",
        "https://shop.example, *",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(origins):
    with pytest.raises(InvalidSettings) as caught:
        main({}, **settings_for("sqlite:///nowhere/orders.sqlite", **{"api.cors_origins": origins}))
    assert [error.key for error in caught.value.errors] == ["api.cors_origins"]
    assert re.search(r"api\.cors_origins .*API_CORS_ORIGINS", str(caught.value))
