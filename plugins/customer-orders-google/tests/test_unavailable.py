"""A provider that is slow, down, or answers nonsense: told as that, no user, and nobody else has to wait."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import factories
from customer_orders.auth.services import local_user
from customer_orders.interfaces import Identity, IdentityProviderUnavailable, IdentityRefused
from loopback import Answer, drip, hang, reset, unused_url

PATHS = ["/.well-known/openid-configuration", "/token", "/keys"]

BROKEN = {
    "hangs": hang,
    "sends a byte at a time": drip(b"HTTP/1.1 200 OK\r\n" + b"X-Drip: drop\r\n" * 90),
    "breaks off": reset,
    "answers HTML": Answer(b"<html>Welcome to this hotel</html>", headers={"Content-Type": "text/html"}),
    "answers HTML and an error": Answer(b"<html>Bad Gateway</html>", 502, {"Content-Type": "text/html"}),
    "answers with an error in JSON": Answer({"error": "backend"}, 503),
    "asks for patience": Answer({"error": "rate_limited"}, 429),
    "redirects": Answer({}, 302, {"Location": "https://127.0.0.1/trap"}),
    "answers with a list": Answer([]),
    "answers with nothing": Answer(b""),
    "answers with something huge": Answer(b"[" * 10_000_000),
    "answers with something deep": Answer(b"[" * 200_000),
    "answers with another charset": Answer(b"\xff\xfe{\x00}\x00"),
    "answers with an empty object": Answer({}),
}


@pytest.fixture
def hurried(make_browser):
    """A browser of a shop that waits for the provider as briefly as can be set."""
    return make_browser(**{"google.connect_timeout": "1", "google.read_timeout": "1"})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", BROKEN)
def test_a_provider_that_does_not_answer_well_is_a_503(hurried, path, how):
    hurried.op.pages[path] = BROKEN[how]
    if path == PATHS[0]:
        # here already
        assert hurried.get("/api/google-oauth2/redirect/", status=503).json["code"] == "unavailable"
        return
    answer = hurried.sign_in()
    assert (answer.status_int, answer.json["code"]) == (503, "unavailable")
    assert answer.json["detail"] == "The identity provider does not answer."
    assert int(answer.headers["Retry-After"]) > 0
    assert hurried.users() == 0


@pytest.mark.parametrize("path", PATHS[:2])
def test_a_person_gets_a_page_that_says_so(hurried, path):
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    if path == PATHS[1]:
        state = hurried.begin()["state"]
    hurried.op.pages[path] = BROKEN["answers HTML"]
    address = "redirect/" if path == PATHS[0] else f"callback/?code=c0de&state={state}"
    page = hurried.get(f"/api/google-oauth2/{address}", headers=html, status=503)
    assert page.content_type == "text/html"
    assert "The identity provider does not answer." in page.text
    assert "hotel" not in page.text


def test_a_provider_that_is_down_is_a_503(make_browser):
    browser = make_browser(**{"google.issuer": unused_url("https")})
    assert browser.get("/api/google-oauth2/redirect/", status=503).json["code"] == "unavailable"


def test_a_certificate_that_is_not_trusted_is_a_503(hurried, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    hurried.get("/api/google-oauth2/redirect/", status=503)


def test_after_it_has_come_back_people_sign_in(hurried):
    for path in PATHS:
        hurried.op.pages[path] = BROKEN["answers HTML"]
    hurried.get("/api/google-oauth2/redirect/", status=503)
    hurried.op.pages.clear()
    assert hurried.sign_in().status_int == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"token_endpoint": None},
        {"token_endpoint": 7},
        {"token_endpoint": "https://[::1/"},
        {"token_endpoint": " https://127.0.0.1/token"},
        {"token_endpoint": "ht\ntps://127.0.0.1/token"},
        {"token_endpoint": "https://127.0.0.1:99999/token"},
        {"token_endpoint": "https://127.0.0.1/token?x=\ud800"},
        {"jwks_uri": "file:///etc/passwd"},
    ],
    ids=str,
)
def test_metadata_that_cannot_be_trusted_is_not_used(hurried, changed):
    state = hurried.begin()["state"]
    kept = hurried.op.metadata
    hurried.app.registry.plugins.identity_providers["google"].discovery._metadata._kept = None
    hurried.op.pages[PATHS[0]] = {**kept, **changed}
    assert hurried.come_back(state).status_int == 503
    assert hurried.users() == 0
    # and once it is mended, nobody waits
    hurried.op.pages.clear()
    assert hurried.sign_in().status_int == 200


@pytest.mark.parametrize("keys", [{"keys": []}, {"keys": {}}, {"keys": None}, {"keys": [{"kty": "new"}, 5]}], ids=str)
def test_a_list_without_a_usable_key_is_no_refusal(hurried, keys):
    hurried.op.pages["/keys"] = keys
    assert hurried.sign_in().status_int == 503
    assert hurried.users() == 0
    hurried.op.pages.clear()
    assert hurried.sign_in().status_int == 200


@pytest.mark.parametrize(("error", "status"), [("invalid_grant", 400), ("invalid_client", 401), ("x\ny", 400)])
def test_a_code_that_the_provider_does_not_take_is_refused(hurried, error, status, caplog):
    hurried.op.pages["/token"] = Answer({"error": error, "error_description": "s3cret"}, status)
    assert hurried.sign_in().json["code"] == "sign-in-refused"
    assert f"the provider does not take the code: {error}".replace("\n", "?") in caplog.text
    assert "s3cret" not in caplog.text


@pytest.fixture
def google(make_google):
    """The plugin's provider by itself."""
    return make_google()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    [
        "access_token",
        "id_token",
        "token_type",
        "expires_in",
        "expires_at",
        "scope",
        "error",
        "error_description",
        "state",
    ]
)


# the provider is the same for all examples, and keeps nothing of them
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.dictionaries(fields, anything, max_size=6) | anything, status=st.sampled_from([200, 400, 401, 500]))
def test_whatever_the_provider_answers_is_an_identity_or_told_in_the_words_of_the_contract(google, op, answer, status):
    op.pages["/token"] = Answer(answer, status)
    with pytest.raises((IdentityRefused, IdentityProviderUnavailable)):
        google.identify("https://shop.example/", "code", "nonce", "verifier")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changed=st.dictionaries(
        st.sampled_from(
            ["iss", "aud", "azp", "sub", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "hd", "name", "email"]
        ),
        anything,
        min_size=1,
        max_size=3,
    )
)
def test_whatever_the_token_claims_is_an_identity_or_a_refusal(google, op, changed):
    op.nonce = "nonce"
    op.sign = lambda op: signed(op, {**op.claims(), **changed})
    try:
        told = google.identify("https://shop.example/", "code", "nonce", "verifier")
    except IdentityRefused:
        return
    assert isinstance(told, Identity)
    assert told.email_verified is True


def signed(op, claims):
    """Signed without PyJWT's own look at the claims."""
    payload = json.dumps(claims).encode("utf-8", "surrogatepass")
    return jwt.PyJWS().encode(payload, op.key.private, algorithm="RS256", headers={"kid": op.key.kid})


# -- meanwhile ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS[1:])
def test_no_transaction_is_open_while_the_provider_is_slow(make_browser, path):
    browser = make_browser()
    waiting, go_on = threading.Event(), threading.Event()
    state = browser.begin()["state"]

    def slow(handler):
        waiting.set()
        assert go_on.wait(30)
        del browser.op.pages[path]
        browser.op.answer(browser.op.server.asked[-1])(handler)

    browser.op.pages[path] = slow
    database = browser.app.registry.database
    with database.transaction() as session:
        owner = local_user(session, "owner@shop.example", "admin").id
    before = browser.users()
    with ThreadPoolExecutor(1) as pool:
        signing_in = pool.submit(browser.come_back, state)
        try:
            assert waiting.wait(30)
            assert database.engine.pool.checkedout() == 0
            # SQLite has one writer: were a transaction open, this one would wait for it, and fail
            other = type(browser)(browser.app, browser.op)
            other.authorization = ("Bearer", browser.app.registry.access_tokens.create_token(str(owner)))
            assert factories.order(other)["id"] == 1
            assert browser.users() == before
        finally:
            go_on.set()
        assert signing_in.result(30).status_int == 200
    assert browser.users() == before + 1


def test_many_who_sign_in_while_the_provider_is_down_do_not_wait_for_each_other(make_google, op):
    google = make_google(read_timeout=0.5)
    op.pages[PATHS[0]] = hang
    begun = threading.Barrier(8)
    asked_before = []

    def sign_in(_):
        begun.wait(30)
        with pytest.raises(IdentityProviderUnavailable):
            google.identify("https://shop.example/", "code", "nonce", "verifier")
        asked_before.append(len(op.server.asked))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sign_in, range(8)))
    # each had asked before the first of them gave up
    assert asked_before[0] == 8
