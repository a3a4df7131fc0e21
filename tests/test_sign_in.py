"""Signing in: the login page, the redirect, the call-back, and the role that comes of it."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import replace
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from customer_orders.auth import sign_in
from customer_orders.auth.models import ExternalIdentity, RefreshToken, User
from customer_orders.auth.services import disable, grant, local_user, role_of
from customer_orders.auth.services import sign_in as sign_in_user
from customer_orders.interfaces import Identity, IdentityProviderUnavailable, IdentityRefused
from customer_orders.sections import Auth
from customer_orders.settings import read
from serving import wait_for

REDIRECT = "/api/scripted-oauth2/redirect/"
CALLBACK = "/api/scripted-oauth2/callback/"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def app_of_session(make_app, database_kind):
    """An application in which Jane, who is whom the scripted provider signs in unless told, is a clerk."""
    return make_app(
        database_kind,
        **{"auth.admins": "boss@shop.example", "auth.clerks": "jane@shop.example", "auth.default_role": "none"},
    )


@pytest.fixture
def provider(registry):
    return registry.plugins.identity_providers["scripted"]


def begin(client, path=REDIRECT):
    """Ask for the redirect; what the provider was told, by name."""
    query = parse_qs(urlsplit(client.get(path, status=302).headers["Location"]).query)
    return {name: values[0] for name, values in query.items()}


def come_back(client, state, *, headers=None, status="*", **more):
    return client.get(
        f"{CALLBACK}?{urlencode({'code': 'c0de', 'state': state, **more})}", headers=headers, status=status
    )


def signed_in(client, **kw):
    """A whole sign-in; the answer to the call-back."""
    return come_back(client, begin(client)["state"], **kw)


def users(session):
    session.expire_all()
    found = session.query(User).order_by(User.id).all()
    session.rollback()
    return found


# -- the login page and the redirect ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login/", "/login"])
def test_the_login_page_has_a_button_for_each_provider(anonymous, path):
    page = anonymous.get(path, headers=HTML)
    assert page.content_type == "text/html"
    assert [(link["href"], link.text) for link in page.html.select("main a")] == [
        (f"http://127.0.0.1:6543{REDIRECT}", "Sign in with Scripted")
    ]


def test_the_redirect_tells_the_provider_where_to_come_back_and_binds_the_state_to_a_cookie(anonymous, provider):
    answer = anonymous.get(REDIRECT, status=302)
    assert answer.headers["Location"].startswith("https://provider.example/authorize?")
    assert answer.headers["Cache-Control"] == "no-store"
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/api/")
    assert morsel["max-age"] == "600"
    assert not morsel["secure"]


def test_the_cookie_is_secure_where_the_service_is_reached_by_https(make_app):
    app = make_app("sqlite", **{"app.public_url": "https://orders.shop.example"})
    answer = TestApp(app).get(REDIRECT, status=302)
    assert "secure" in [part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")]
    told = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert told["redirect_uri"] == [f"https://orders.shop.example{CALLBACK}"]


def test_state_nonce_and_challenge_are_fresh_each_time(anonymous):
    first, second = begin(anonymous), begin(anonymous)
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 43
        assert first[name] != second[name]


def test_the_challenge_fits_the_verifier_that_redeems_the_code(anonymous, provider):
    told = begin(anonymous)
    come_back(anonymous, told["state"], status=200)
    (asked,) = provider.asked
    digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
    assert told["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert 43 <= len(asked["code_verifier"]) <= 128
    assert asked["nonce"] == told["nonce"]
    assert asked["redirect_uri"] == told["redirect_uri"] == f"http://127.0.0.1:6543{CALLBACK}"
    assert asked["code"] == "c0de"


def test_the_host_header_does_not_choose_where_the_provider_sends_people(anonymous):
    answer = anonymous.get(REDIRECT, headers={"Host": "evil.example"}, status=302)
    assert "evil" not in answer.headers["Location"]


@pytest.mark.parametrize("path", ["/api/nobody-oauth2/redirect/", "/api/nobody-oauth2/callback/?code=c&state=s"])
def test_an_unknown_provider_is_not_there(anonymous, path):
    assert anonymous.get(path, status=404).json["code"] == "not-found"


def test_a_provider_that_does_not_answer_the_redirect_is_a_503(anonymous, provider, monkeypatch):
    def away(**_):
        raise IdentityProviderUnavailable("no discovery document")

    monkeypatch.setattr(provider, "authorization_url", away)
    assert anonymous.get(REDIRECT, status=503).json["code"] == "unavailable"


# -- the call-back ------------------------------------------------------------------------------------------------


def test_the_call_back_gives_a_program_two_tokens(anonymous):
    answer = signed_in(anonymous, status=200)
    assert answer.content_type == "application/json"
    assert set(answer.json) == {"tokens"}
    assert set(answer.json["tokens"]) == {"access", "refresh"}
    me = anonymous.get("/api/me", headers={"Authorization": f"Bearer {answer.json['tokens']['access']}"}).json
    assert (me["email"], me["name"], me["role"]) == ("jane@shop.example", "Jane", "clerk")
    anonymous.post_json("/api/token/refresh", {"refresh": answer.json["tokens"]["refresh"]}, status=200)


def test_the_call_back_gives_a_browser_a_page_with_two_inputs_that_cannot_be_typed_into(anonymous):
    page = signed_in(anonymous, headers=HTML, status=200)
    assert page.content_type == "text/html"
    inputs = page.html.find_all("input")
    assert [found["id"] for found in inputs] == ["access", "refresh"]
    assert all(found.has_attr("readonly") for found in inputs)
    access = inputs[0]["value"]
    anonymous.get("/api/me", headers={"Authorization": f"Bearer {access}"}, status=200)
    assert page.html.find("a", id="go")["href"] == "/"
    assert "'unsafe-inline'" not in page.headers["Content-Security-Policy"]
    assert all(script.get("src", "").startswith("/static/") for script in page.html.find_all("script"))


@pytest.mark.parametrize("headers", [{}, HTML])
def test_tokens_are_kept_by_no_cache_and_travel_in_no_header(anonymous, headers):
    answer = signed_in(anonymous, headers=headers, status=200)
    assert answer.headers["Cache-Control"] == "no-store"
    if headers:
        tokens = [found["value"] for found in answer.html.find_all("input")]
    else:
        tokens = list(answer.json["tokens"].values())
    assert len(tokens) == 2
    told = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    assert not any(token in told for token in tokens)
    assert not any(token in link["href"] for token in tokens for link in (answer.html.find_all("a") if headers else ()))


def test_the_cookie_is_taken_back_by_the_call_back(anonymous):
    answer = signed_in(anonymous, status=200)
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel.key, morsel.value, morsel["max-age"], morsel["path"]) == (sign_in.COOKIE, "", "0", "/api/")


def _another_state(client):
    return come_back(client, "x" * 43)


def _no_state(client):
    begin(client)
    return client.get(f"{CALLBACK}?code=c0de", status="*")


def _no_cookie(client):
    state = begin(client)["state"]
    client.reset()
    return come_back(client, state)


def _cookie_of_another_browser(client):
    mine = begin(client)["state"]
    client.reset()
    begin(client)
    return come_back(client, mine)


def _tampered_cookie(client):
    state = begin(client)["state"]
    value = client.cookies[sign_in.COOKIE]
    # a character in the middle: the last one of base64 may hold no information
    middle = len(value) // 2
    other = "A" if value[middle] != "A" else "B"
    return _with_cookie(client, state, value[:middle] + other + value[middle + 1 :])


def _cookie_that_is_nonsense(client):
    return _with_cookie(client, "s", "not*a*cookie")


def _expired(client):
    return _crafted(client, sign_in.begin("scripted", -1))


def _of_another_provider(client):
    return _crafted(client, sign_in.begin("google", 600))


def _not_ascii(client):
    begin(client)
    return come_back(client, "\u00e9\u0661")


def _with_cookie(client, state, value):
    client.reset()
    return client.get(
        f"{CALLBACK}?code=c0de&state={state}", headers={"Cookie": f"{sign_in.COOKIE}={value}"}, status="*"
    )


def _crafted(client, state):
    """A call-back with a genuine cookie, signed as the application signs them, of the given state."""
    request = Request.blank("/", base_url="http://127.0.0.1:6543")
    request.registry = client.app.registry
    response = Response()
    sign_in.keep(request, response, state)
    (morsel,) = SimpleCookie(response.headers["Set-Cookie"]).values()
    return _with_cookie(client, state.state, morsel.value)


def test_a_genuine_cookie_is_let_pass(anonymous):
    assert _crafted(anonymous, sign_in.begin("scripted", 600)).status_int == 200


@pytest.mark.parametrize(
    "attack",
    [
        _another_state,
        _no_state,
        _no_cookie,
        _cookie_of_another_browser,
        _tampered_cookie,
        _cookie_that_is_nonsense,
        _expired,
        _of_another_provider,
        _not_ascii,
    ],
)
def test_a_call_back_that_belongs_to_no_sign_in_of_this_browser_is_refused(anonymous, provider, session, attack):
    answer = attack(anonymous)
    assert answer.status_int == 400
    assert answer.content_type == "application/problem+json"
    assert answer.json["code"] == "sign-in-expired"
    assert provider.asked == []
    assert users(session) == []


def test_a_call_back_cannot_be_repeated(anonymous, provider):
    state = begin(anonymous)["state"]
    come_back(anonymous, state, status=200)
    assert come_back(anonymous, state, status=400).json["code"] == "sign-in-expired"
    assert len(provider.asked) == 1


def test_a_stray_call_back_does_not_end_a_sign_in_under_way(anonymous):
    state = begin(anonymous)["state"]
    come_back(anonymous, "another", status=400)
    come_back(anonymous, state, status=200)


def test_whoever_only_looks_spends_nothing(anonymous, provider, session):
    state = begin(anonymous)["state"]
    assert anonymous.head(f"{CALLBACK}?code=c0de&state={state}", status=200).body == b""
    assert provider.asked == []
    assert users(session) == []
    come_back(anonymous, state, status=200)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("when", ["statement", "commit"])
def test_another_try_at_the_transaction_does_not_redeem_the_code_again(anonymous, provider, failing, when):
    tried = failing(when, 1, table="refresh_tokens")
    assert signed_in(anonymous, status=200).json["tokens"]
    assert tried() == 2
    assert len(provider.asked) == 1


@pytest.mark.parametrize("query", ["error=access_denied", "", "code="])
@pytest.mark.parametrize("headers", [{}, HTML])
def test_a_provider_that_sends_no_code_ends_the_sign_in(anonymous, provider, session, query, headers):
    state = begin(anonymous)["state"]
    answer = anonymous.get(f"{CALLBACK}?state={state}&{query}", headers=headers, status=403)
    assert "sign-in-refused" in answer.text
    assert answer.content_type == ("text/html" if headers else "application/problem+json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert provider.asked == []
    assert users(session) == []
    come_back(anonymous, state, status=400)


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (IdentityRefused("the nonce is another's: s3cret"), 403, "sign-in-refused"),
        (IdentityProviderUnavailable("timed out: s3cret"), 503, "unavailable"),
    ],
)
@pytest.mark.parametrize("headers", [{}, HTML])
def test_a_provider_that_says_no_or_nothing_makes_no_user(anonymous, provider, session, raised, status, code, headers):
    provider.identity = raised
    answer = signed_in(anonymous, headers=headers, status=status)
    assert code in answer.text
    assert "s3cret" not in answer.text
    assert answer.content_type == ("text/html" if headers else "application/problem+json")
    assert users(session) == []


def test_a_query_that_is_not_utf_8_is_malformed(anonymous):
    begin(anonymous)
    assert anonymous.get(f"{CALLBACK}?code=%ff&state=s", status=400).json["code"] == "malformed"


@pytest.mark.parametrize(
    "details",
    [
        {"subject": ""},
        {"subject": "s" * 256},
        {"subject": 17},
        {"subject": "nul\0"},
        {"name": "Jane\x00"},
        {"email": "jane\ud800@shop.example"},
    ],
)
def test_an_identity_that_no_account_can_be_kept_by_is_refused(details):
    sound = {"subject": "s", "email": "jane@shop.example", "email_verified": True, "name": "Jane"}
    assert Identity(**sound).subject == "s"
    with pytest.raises(IdentityRefused):
        Identity(**{**sound, **details})


def test_no_transaction_is_open_while_the_provider_is_asked(anonymous, registry, provider, monkeypatch):
    seen = []
    answers = provider.identify

    def identify(**asked):
        seen.append(registry.database.engine.pool.checkedout())
        # on SQLite this would wait, in vain, for the lock of a transaction that waits for us
        with registry.database.transaction() as other:
            local_user(other, "other@shop.example", "viewer")
        return answers(**asked)

    monkeypatch.setattr(provider, "identify", identify)
    signed_in(anonymous, status=200)
    assert seen == [0]


# -- users and roles ----------------------------------------------------------------------------------------------

STRANGER = Identity("subject-9", "stranger@else.example", True, "A stranger")
BOSS = Identity("subject-1", "boss@shop.example", True, "Jane, promoted")


@pytest.mark.parametrize(
    ("settings", "identity", "role"),
    [
        ({}, {}, None),
        ({"default_role": "viewer"}, {}, "viewer"),
        ({"admins": "jane@shop.example"}, {}, "admin"),
        ({"admins": "Jane@Shop.example"}, {"email": "JANE@shop.example"}, "admin"),
        ({"clerks": "jane@shop.example"}, {}, "clerk"),
        ({"admins": "a@b.example, jane@shop.example", "clerks": "@shop.example"}, {}, "admin"),
        ({"admins": "jane@shop.example"}, {"email_verified": False}, None),
        ({"admins": "jane@shop.example"}, {"email_verified": "true"}, None),
        ({"admins": "jane@shop.example"}, {"email": "jane@shop.example.evil.example"}, None),
        ({"clerks": "@shop.example"}, {}, "clerk"),
        ({"clerks": "@Shop.example"}, {"domain": "SHOP.example"}, "clerk"),
        ({"clerks": "@shop.example"}, {"email_verified": False}, "clerk"),
        ({"clerks": "@shop.example"}, {"domain": None}, None),
        ({"clerks": "@shop.example"}, {"domain": "other.example"}, None),
        ({"clerks": "@shop.example"}, {"domain": "sub.shop.example"}, None),
        ({"clerks": "@shop.example"}, {"email": "@shop.example", "domain": None}, None),
        # the Kelvin sign, of which lower() makes a k
        ({"admins": "kate@shop.example"}, {"email": "\u212aate@shop.example"}, None),
        ({"admins": "jane@shop.example", "default_role": "viewer"}, {"email_verified": False}, "viewer"),
    ],
)
def test_the_role_that_the_settings_give(settings, identity, role):
    told = {"email": "jane@shop.example", "email_verified": True, "domain": "shop.example", **identity}
    section = read("auth", Auth, {f"auth.{key}": value for key, value in settings.items()}, {})
    assert role_of(Identity(subject="1", name="Jane", **told), section) == role


def me(client, tokens):
    return client.get("/api/me", headers={"Authorization": f"Bearer {tokens['access']}"}).json


@pytest.mark.parametrize("headers", [{}, HTML])
def test_nobody_gets_in_without_a_role_but_is_kept_to_be_granted_one(anonymous, provider, session, headers):
    provider.identity = STRANGER
    answer = signed_in(anonymous, headers=headers, status=403)
    assert "no-role" in answer.text
    assert "stranger@else.example" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    (user,) = users(session)
    assert (user.email, user.role, user.granted_role) == ("stranger@else.example", None, None)
    assert session.query(RefreshToken).count() == 0
    grant(session, "Stranger@else.example", "clerk")
    session.commit()
    told = me(anonymous, signed_in(anonymous, status=200).json["tokens"])
    assert (told["id"], told["role"]) == (user.id, "clerk")


def test_a_granted_role_wins_over_the_settings_until_it_is_taken_back(anonymous, session):
    signed_in(anonymous, status=200)
    for granted, role in (("viewer", "viewer"), ("admin", "admin"), (None, "clerk")):
        grant(session, "jane@shop.example", granted)
        session.commit()
        assert me(anonymous, signed_in(anonymous, status=200).json["tokens"])["role"] == role


def test_role_name_and_address_are_as_of_the_last_sign_in(anonymous, session, provider):
    tokens = signed_in(anonymous, status=200).json["tokens"]
    assert me(anonymous, tokens)["role"] == "clerk"
    provider.identity = BOSS
    signed_in(anonymous, status=200)
    told = me(anonymous, tokens)
    assert (told["role"], told["email"], told["name"]) == ("admin", "boss@shop.example", "Jane, promoted")
    provider.identity = replace(BOSS, email_verified=False)
    signed_in(anonymous, status=403)
    anonymous.get("/api/me", headers={"Authorization": f"Bearer {tokens['access']}"}, status=403)
    assert len(users(session)) == 1


def test_a_user_is_found_by_the_providers_subject_and_never_by_e_mail(anonymous, session, provider):
    signed_in(anonymous, status=200)
    provider.identity = Identity("subject-2", "jane@shop.example", True, "Another Jane")
    signed_in(anonymous, status=200)
    first, second = users(session)
    assert first.email == second.email == "jane@shop.example"
    found = session.query(ExternalIdentity).order_by(ExternalIdentity.id).all()
    assert [(one.user_id, one.provider, one.subject) for one in found] == [
        (first.id, "scripted", "subject-1"),
        (second.id, "scripted", "subject-2"),
    ]


def test_whoever_signs_in_does_not_become_the_command_lines_user_of_that_address(
    anonymous, registry, provider, session
):
    with registry.database.transaction() as writing:
        local_user(writing, STRANGER.email, "admin")
    provider.identity = replace(STRANGER, subject=STRANGER.email)
    signed_in(anonymous, status=403)
    assert [user.effective_role for user in users(session)] == ["admin", None]


@pytest.mark.parametrize("headers", [{}, HTML])
def test_a_disabled_user_is_refused_at_the_door(anonymous, session, headers):
    signed_in(anonymous, status=200)
    disable(session, "jane@shop.example", disabled=True)
    session.commit()
    answer = signed_in(anonymous, headers=headers, status=403)
    assert "shut out" in answer.text
    assert "<input" not in answer.text
    assert session.query(RefreshToken).count() == 1


def test_two_first_sign_ins_of_one_person_at_one_moment_make_one_user(app, registry, provider, session):
    statuses = []
    second = threading.Thread(target=lambda: statuses.append(signed_in(TestApp(app)).status_int))

    def waits_for_the_first():
        if registry.database.engine.name == "sqlite":
            # where a writer waits cannot be seen; that it came back from the provider can
            return provider.asked
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        found = session.execute(text(waiting)).all()
        session.rollback()
        return found

    with registry.database.transaction() as first:
        sign_in_user(first, "scripted", provider.identity, registry.sections["auth"])
        second.start()
        wait_for(waits_for_the_first, "the second sign-in waits for the first")
    second.join()
    assert statuses == [200]
    assert len(users(session)) == 1
