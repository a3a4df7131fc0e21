"""Signing in as anyone, through the core's own sign-in."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from webtest import TestApp

from customer_orders.interfaces import IdentityRefused
from customer_orders_devtools import identity
from customer_orders_devtools.identity import AnyEmail

CALLBACK = "http://127.0.0.1:6543/api/devtools-oauth2/callback/"
FIELDS = {"redirect_uri": CALLBACK, "state": "some-state", "nonce": "some-nonce", "code_challenge": "some-challenge"}


def sign_in(browser, email):
    """The whole way, as a browser walks it; the answer of the call-back."""
    form = browser.get("/login/").click("Sign in with any e-mail").follow().form
    form["email"] = email
    return form.submit().follow(headers={"Accept": "application/json"})


def test_anyone_may_sign_in(browser):
    tokens = sign_in(browser, "Jane@shop.example").json["tokens"]
    assert set(tokens) == {"access", "refresh"}
    browser.authorization = ("Bearer", tokens["access"])
    assert browser.get("/api/me").json["email"] == "Jane@shop.example"
    browser.post_json("/api/customers/", {"username": "Amina", "phone_number": "0700000001"}, status=201)


def test_the_same_address_is_the_same_person(browser):
    ids = set()
    for email in ("jane@shop.example", "JANE@Shop.Example", "joe@shop.example"):
        browser.authorization = ("Bearer", sign_in(browser, email).json["tokens"]["access"])
        ids.add(browser.get("/api/me").json["id"])
        browser.authorization = None
    assert len(ids) == 2


def test_the_form_keeps_what_protects_the_sign_in(browser):
    page = browser.get("/devtools/sign-in", FIELDS)
    assert {name: page.form[name].value for name in FIELDS} == FIELDS
    answer = page.form.submit(status=303)
    query = parse_qs(urlsplit(answer.location).query)
    assert answer.location.startswith(f"{CALLBACK}?")
    assert query["state"] == ["some-state"]
    assert query["code"]


@pytest.mark.parametrize(
    "email",
    [
        "",
        " ",
        "jane",
        "@shop.example",
        "jane@",
        "jane@shop@example",
        "jane doe@shop.example",
        "jane@shop.example\nBcc: all@shop.example",
        "jane\x00@shop.example",
        "jane\u2028@shop.example",
        "j" * 250 + "@shop.example",
    ],
)
def test_what_is_no_address_is_asked_for_again(browser, email):
    page = browser.post("/devtools/sign-in", {**FIELDS, "email": email}, status=400)
    assert "That is not an e-mail address." in page.text
    assert page.form["state"].value == "some-state"


@pytest.mark.parametrize("field", sorted(FIELDS))
@pytest.mark.parametrize("value", [None, ""])
def test_a_field_that_is_missing_is_refused(browser, field, value):
    fields = {name: given for name, given in {**FIELDS, field: value}.items() if given is not None}
    assert browser.get("/devtools/sign-in", fields, status=400).json["code"] == "malformed"
    browser.post("/devtools/sign-in", {**fields, "email": "jane@shop.example"}, status=400)


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://evil.example/api/devtools-oauth2/callback/",
        "http://127.0.0.1:6543@evil.example/api/devtools-oauth2/callback/",
        "http://127.0.0.1:6544/api/devtools-oauth2/callback/",
        "http://127.0.0.1:6543/elsewhere",
        "//127.0.0.1:6543/api/devtools-oauth2/callback/",
        "javascript://127.0.0.1:6543/api/devtools-oauth2/callback/",
        f"{CALLBACK}?more",
        f"{CALLBACK}#fragment",
        f"{CALLBACK}\r\nSet-Cookie: a=b",
        "http://[::1/",
        "é",
    ],
)
def test_a_code_goes_to_the_core_alone(browser, redirect_uri):
    fields = {**FIELDS, "redirect_uri": redirect_uri}
    browser.get("/devtools/sign-in", fields, status=400)
    browser.post("/devtools/sign-in", {**fields, "email": "jane@shop.example"}, status=400)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("body", [b"email=%ff", b"email=\xff", b"--x\r\nContent-Disposition: nonsense\r\n\r\n--x--"])
def test_a_form_that_cannot_be_read_is_refused(browser, content_type, body):
    path = f"/devtools/sign-in?{urlencode(FIELDS)}"
    answer = browser.request(path, method="POST", body=body, content_type=content_type, status=400)
    assert "Location" not in answer.headers


@pytest.mark.parametrize("charset", ["bogus", "utf-16", "latin-1", "base64", "\xff"])
def test_a_form_in_another_charset_is_refused(browser, charset):
    content_type = f"application/x-www-form-urlencoded; charset={charset}"
    body = urlencode({**FIELDS, "email": "jane@shop.example"}).encode()
    answer = browser.request("/devtools/sign-in", method="POST", body=body, content_type=content_type, status=400)
    assert answer.json["code"] == "malformed"


@pytest.mark.parametrize(
    ("path", "methods", "allowed"),
    [
        ("/devtools/sign-in", ["PUT", "PATCH", "DELETE", "OPTIONS"], "GET, HEAD, POST"),
        ("/devtools/inbox", ["POST", "PUT", "DELETE", "OPTIONS"], "GET, HEAD"),
        ("/devtools/static/inbox.css", ["POST", "PUT", "DELETE"], "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_there_are(browser, path, methods, allowed):
    for method in methods:
        answer = browser.request(path, method=method, status=405)
        assert (answer.headers["Allow"], answer.json["code"]) == (allowed, "method-not-allowed")
        browser.request(path, method=method, headers={"Via": "1.1 proxy"}, status=404)


def test_a_query_that_cannot_be_read_is_refused(browser):
    browser.get("/devtools/sign-in?redirect_uri=%ff", status=400)


def test_a_file_is_no_address(browser):
    browser.post("/devtools/sign-in", FIELDS, upload_files=[("email", "jane@shop.example", b"x")], status=400)


def test_markup_in_a_field_is_text(browser):
    evil = '"><script>alert(1)</script>'
    page = browser.get("/devtools/sign-in", {**FIELDS, "state": evil})
    assert "<script>alert" not in page.text
    assert page.form["state"].value == evil
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_a_code_belongs_to_its_redirect_uri():
    provider = AnyEmail()
    code = provider.grant("jane@shop.example", CALLBACK, "nonce", "challenge")
    with pytest.raises(IdentityRefused, match="another sign-in"):
        provider.identify(f"{CALLBACK}other/", code, "nonce", "verifier")


def test_a_code_expires(monkeypatch):
    provider = AnyEmail()
    monkeypatch.setattr(identity, "CODE_LIFETIME", 0)
    code = provider.grant("jane@shop.example", CALLBACK, "nonce", "challenge")
    with pytest.raises(IdentityRefused, match="expired"):
        provider.identify(CALLBACK, code, "nonce", "verifier")


def test_codes_do_not_pile_up(monkeypatch):
    provider = AnyEmail()
    monkeypatch.setattr(identity, "MOST_CODES", 3)
    for _ in range(10):
        provider.grant("jane@shop.example", CALLBACK, "nonce", "challenge")
    assert len(provider._grants) <= 4


def test_the_domain_of_the_address_is_vouched_for(make_app):
    app = make_app(**{"auth.default_role": "none", "auth.clerks": "@shop.example"})
    browser = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
    assert sign_in(browser, "jane@SHOP.example").json["tokens"]
    form = browser.get("/login/").click("Sign in with any e-mail").follow().form
    form["email"] = "eve@evil.example"
    assert form.submit().follow(headers={"Accept": "application/json"}, status=403).json["code"] == "no-role"
