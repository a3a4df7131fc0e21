"""Headers that keep every answer to itself: of every route, whatever comes of it, and whoever makes it."""

from __future__ import annotations

import re

import colander
import pytest
from pyramid.interfaces import IRoutesMapper
from webtest import TestApp

from conftest import settings_for
from customer_orders import main
from customer_orders.api import operations
from customer_orders.api.pages import ANSWER, PAGE, SWAGGER_UI

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ENVIRON = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"}

# What takes the place of a route's variables: what leads somewhere, and what leads nowhere.
FILLINGS = (
    {"id": "1", "provider": "scripted", "code": "stale", "subpath": "style.css"},
    {"id": "x", "provider": "nobody", "code": "nothing", "subpath": "nothing.css"},
)


@pytest.fixture(scope="module")
def app_of_session(make_app, database_kind, tmp_path_factory):
    """An application with plugins that bring pages."""
    inbox = tmp_path_factory.mktemp("devtools") / "inbox.jsonl"
    return make_app(database_kind, plugins="scripted devtools careless", **{"devtools.inbox": str(inbox)})


def routes(registry):
    """Every route of the application, static files and the plugins' too."""
    return registry.getUtility(IRoutesMapper).get_routes(include_static=True)


def paths(registry):
    """A path for each route, and one that leads nowhere, where it has variables."""
    for route in routes(registry):
        for filling in FILLINGS:
            pattern = re.sub(r"[{*](\w+)}?", lambda name, filling=filling: filling.get(name[1], "x"), route.pattern)
            yield f"/{pattern.lstrip('/')}"


def policy_of(path, answer):
    """The Content-Security-Policy that an answer has to have."""
    if answer.content_type != "text/html" or 300 <= answer.status_int < 400:
        return ANSWER
    return SWAGGER_UI if path == "/" else PAGE


def check(path, answer):
    """All headers are there, once, and as they should be."""
    said = f"{answer.request.method} {path} {answer.status}"
    for name, value in {**HEADERS, "Content-Security-Policy": policy_of(path, answer)}.items():
        assert answer.headers.getall(name) == [value], said
    assert "Strict-Transport-Security" not in answer.headers, said
    is_page = policy_of(path, answer) != ANSWER
    if is_page or "Set-Cookie" in answer.headers or answer.status_int >= 400:
        assert answer.headers.getall("Cache-Control") == ["no-store"], said


@pytest.mark.parametrize("headers", [{}, HTML], ids=["program", "browser"])
def test_every_route_answers_with_them_whatever_the_method(app, client, registry, headers):
    anonymous = TestApp(app, extra_environ=ENVIRON)
    statuses = set()
    for path in sorted(set(paths(registry))):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            for caller in (anonymous, client):
                answer = caller.request(path, method=method, headers=headers, expect_errors=True)
                check(path, answer)
                statuses.add(answer.status_int)
    # all kinds of answers were among them
    assert {200, 204, 302, 400, 401, 404, 405} <= statuses


def test_all_routes_of_plugins_and_all_files_are_among_them(registry):
    patterns = {route.pattern for route in routes(registry)}
    assert {
        "/devtools/inbox",
        "/careless",
        "/devtools/static/*subpath",
        "static/*subpath",
        "/api/customers/",
    } <= patterns
    assert {"/static/style.css", "/static/nothing.css", "/devtools/static/style.css"} <= set(paths(registry))


@pytest.mark.parametrize("headers", [{}, HTML], ids=["program", "browser"])
@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/nothing/here", {}, 404),
        ("/%ff", {}, 400),
        ("/static/%2e%2e/setup.cfg", {}, 404),
        ("/api/customers/?x=%ff", {}, 401),
        ("/login/?x=%ff", {}, 400),
        ("/login/?next=//evil.example", {}, 400),
        ("/api/token/refresh", {"method": "POST", "body": b"x" * 70000}, 413),
        ("/api/token/refresh", {"method": "POST", "body": b"<x>", "content_type": "text/html"}, 415),
        ("/static/swagger-ui/swagger-ui.css", {}, 200),
    ],
)
def test_so_does_what_never_came_to_a_view(anonymous, path, more, status, headers):
    answer = anonymous.request(path, **more, headers=headers, expect_errors=True)
    assert answer.status_int == status
    check(path, answer)


def test_so_does_a_file_that_the_browser_has_already(anonymous):
    first = anonymous.get("/static/style.css", status=200)
    again = anonymous.get(
        "/static/style.css", headers={"If-Modified-Since": first.headers["Last-Modified"]}, status=304
    )
    check("/static/style.css", again)


@pytest.mark.parametrize("headers", [{}, HTML], ids=["program", "browser"])
def test_so_does_a_defect(anonymous, registry, monkeypatch, headers):
    def defect():
        raise RuntimeError("a defect")

    monkeypatch.setattr(registry, "swagger", defect)
    answer = anonymous.get("/api/api.json", headers=headers, status=500 if not headers else "*")
    check("/api/api.json", answer)


def test_a_plugins_page_cannot_loosen_them(anonymous):
    check("/careless", anonymous.get("/careless", status=200))


def test_the_policies_let_nothing_inline_run_and_nobody_frame_us():
    for policy in (ANSWER, PAGE, SWAGGER_UI):
        assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "http" not in policy
        assert "form-action" in policy
    assert {"sandbox", "form-action 'none'"} <= set(ANSWER.split("; "))
    assert {"script-src 'self'", "require-trusted-types-for 'script'", "trusted-types 'none'"} <= set(PAGE.split("; "))


# Names of fields that hold what lets somebody in.
SECRETS = {"access", "refresh", "token", "key", "secret"}


def _names(schema):
    """The names of all fields of an answer."""
    nodes = schema.children if isinstance(schema, colander.SchemaNode) else schema().children
    for node in nodes:
        yield node.name
        yield from _names(node)


def test_every_operation_that_answers_with_a_token_is_kept_by_no_cache(registry):
    told = {
        operation.operation_id: operation.secret
        for _, operation in operations(registry)
        for schema in [operation.returns[0] if isinstance(operation.returns, list) else operation.returns]
        if schema is not None and SECRETS & set(_names(schema))
    }
    assert {"sign_in_callback", "token_refresh_post"} <= told.keys()
    assert set(told.values()) == {True}


# -- HSTS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "seconds", "told"),
    [
        ("https://orders.example.com", "31536000", ["max-age=31536000"]),
        ("https://orders.example.com", "0", []),
        ("https://orders.example.com", "", []),
        # a browser would not believe it, and a laptop must not promise it
        ("http://127.0.0.1:6543", "31536000", []),
    ],
)
def test_hsts_is_sent_if_it_is_set_and_the_service_is_reached_by_https(url, seconds, told):
    settings = settings_for("sqlite:////nowhere/at/all", **{"app.public_url": url, "app.hsts_seconds": seconds})
    client = TestApp(main({}, **settings))
    for path in ("/livez", "/login/", "/nothing", "/static/style.css"):
        answer = client.get(path, expect_errors=True)
        assert answer.headers.getall("Strict-Transport-Security") == told
