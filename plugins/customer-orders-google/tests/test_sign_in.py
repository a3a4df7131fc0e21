"""Signing in with tokens that are good, through the real application."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

import customer_orders_google.discovery
from customer_orders_google.id_token import GOOGLE, at_hash, verify


def test_whoever_the_provider_vouches_for_is_signed_in(browser):
    answer = browser.sign_in()
    assert answer.status_int == 200, answer.text
    browser.authorization = ("Bearer", answer.json["tokens"]["access"])
    me = browser.get("/api/me").json
    assert (me["email"], me["name"], me["role"]) == ("jane@shop.example", "Jane", "clerk")


def test_the_browser_is_sent_with_what_google_asks_for(browser):
    location = browser.get("/api/google-oauth2/redirect/", status=302).headers["Location"]
    assert location.startswith(f"{browser.op.issuer}/authorize?")
    told = parse_qs(urlsplit(location).query)
    assert told["client_id"] == [browser.op.client_id]
    assert told["response_type"] == ["code"]
    assert told["redirect_uri"] == ["http://127.0.0.1:6543/api/google-oauth2/callback/"]
    assert told["scope"] == [
        "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile"
    ]
    assert told["prompt"] == ["select_account"]
    assert told["code_challenge_method"] == ["S256"]
    assert "hd" not in told


@pytest.mark.parametrize(("domains", "hd"), [("shop.example", "shop.example"), ("shop.example, b.example", "*")])
def test_google_is_told_whose_accounts_to_offer(make_browser, domains, hd):
    assert make_browser(**{"google.hosted_domains": domains}).begin()["hd"] == hd


def test_the_code_is_redeemed_with_its_verifier_and_our_secret(browser):
    told = browser.begin()
    browser.come_back(told["state"], code="c0de")
    (asked,) = browser.op.asked("/token")
    form = asked.form
    assert (form["grant_type"], form["code"]) == ("authorization_code", "c0de")
    assert form["redirect_uri"] == told["redirect_uri"]
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == told["code_challenge"]
    given = base64.b64decode(asked.headers["Authorization"].removeprefix("Basic ")).decode()
    assert given == f"{browser.op.client_id}:{browser.op.client_secret}"
    assert "client_secret" not in form


def test_an_id_or_secret_with_unusual_characters_is_form_encoded_first(op, make_google):
    op.nonce = "n"
    google = make_google(client_id="a:b c", client_secret="100%/é")
    op.sign = lambda op: op.token(op.claims(aud="a:b c", azp=None))
    assert google.identify("https://shop.example/", "code", "n", "verifier").subject == "subject-1"
    given = base64.b64decode(op.asked("/token")[0].headers["Authorization"].removeprefix("Basic ")).decode()
    assert given == "a%3Ab%20c:100%25%2F%C3%A9"


@pytest.mark.parametrize(
    "changed",
    [
        {"azp": None},
        {"hd": None},
        {"name": None},
        # clocks differ a little
        {"iat": 20},
        {"exp": -20},
    ],
    ids=str,
)
def test_a_token_that_is_good_in_another_way_signs_in(browser, changed):
    now = browser.op.claims()["iat"]
    changed = {name: now + value if name in ("iat", "exp") else value for name, value in changed.items()}
    browser.op.sign = lambda op: op.token(op.claims(**changed))
    assert browser.sign_in().status_int == 200


def test_an_audience_may_be_written_as_a_list(browser):
    browser.op.sign = lambda op: op.token(op.claims(aud=[op.client_id]))
    assert browser.sign_in().status_int == 200


def test_who_has_no_name_is_called_by_their_address(browser):
    browser.op.sign = lambda op: op.token(op.claims(name=None))
    browser.authorization = ("Bearer", browser.sign_in().json["tokens"]["access"])
    assert browser.get("/api/me").json["name"] == "jane@shop.example"


def test_an_at_hash_that_fits_is_let_pass(browser):
    browser.op.sign = lambda op: op.token(op.claims(at_hash=at_hash(op.access_token)))
    assert browser.sign_in().status_int == 200


def test_the_left_half_of_the_hash_is_as_the_specification_has_it():
    # OpenID Connect Core 1.0, appendix A.3
    assert at_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y") == "77QmUPtjPfzWtF2AnpK9RQ"


@pytest.mark.parametrize("domains", ["shop.example", "other.example shop.example", "SHOP.example"])
def test_a_member_of_a_hosted_domain_is_signed_in(make_browser, domains):
    assert make_browser(**{"google.hosted_domains": domains}).sign_in().status_int == 200


def test_a_role_by_domain_goes_by_what_google_vouches_for(make_browser):
    browser = make_browser(**{"auth.default_role": "none", "auth.admins": "@shop.example"})
    browser.op.sign = lambda op: op.token(op.claims(email="jane@elsewhere.example"))
    browser.authorization = ("Bearer", browser.sign_in().json["tokens"]["access"])
    assert browser.get("/api/me").json["role"] == "admin"


def test_an_address_of_a_domain_is_no_membership(make_browser):
    browser = make_browser(**{"auth.default_role": "none", "auth.admins": "@shop.example"})
    browser.op.sign = lambda op: op.token(op.claims(hd=None))
    assert browser.sign_in().json["code"] == "no-role"


@pytest.mark.parametrize("iss", ["https://accounts.google.com", "accounts.google.com"])
def test_google_writes_its_name_in_two_ways(op, iss):
    token = op.token(op.claims(iss=iss, nonce="n"))

    def key(kid, *, refresh):
        return {op.key.kid: jwt.PyJWK(op.key.public)}[kid]

    claims = verify(token, key, issuer=GOOGLE, client_id=op.client_id, nonce="n", access_token=None)
    assert claims["sub"] == "subject-1"


# -- what is published --------------------------------------------------------------------------------------------


def test_nothing_is_asked_of_the_provider_before_somebody_signs_in(browser):
    browser.get("/login/", status=200)
    assert browser.op.server.asked == []


def test_what_is_published_is_asked_for_once(browser):
    for _ in range(3):
        assert browser.sign_in().status_int == 200
    assert [len(browser.op.asked(path)) for path in ("/.well-known/openid-configuration", "/keys")] == [1, 1]


def test_what_is_published_is_believed_for_a_while_only(browser, monkeypatch):
    monkeypatch.setattr(customer_orders_google.discovery, "LIFETIME", 0)
    browser.sign_in()
    browser.sign_in()
    assert len(browser.op.asked("/keys")) == 2


@pytest.mark.parametrize("same_kid", [False, True])
def test_keys_that_change_lock_nobody_out(browser, same_kid):
    assert browser.sign_in().status_int == 200
    kid = browser.op.key.kid
    browser.op.change_key(kid if same_kid else None)
    assert browser.sign_in().status_int == 200
    assert browser.sign_in().status_int == 200
    assert len(browser.op.asked("/keys")) == 2


def test_keys_of_other_kinds_beside_the_one_do_not_matter(browser):
    others = [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, {"kty": "new", "kid": "b"}, "nonsense", {"kty": "RSA"}]
    browser.op.pages["/keys"] = {"keys": [*others, browser.op.key.public]}
    assert browser.sign_in().status_int == 200
