"""Access tokens, made and refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time

import jwt
import pytest
from pyramid.scripting import prepare
from pyramid.security import forget, remember
from webtest import TestApp

from customer_orders.auth.services import disable, grant, local_user

HOUR = 3600


@pytest.fixture
def user_id(registry):
    """The id of an admin."""
    with registry.database.transaction() as session:
        return local_user(session, "jane@shop.example", "admin").id


@pytest.fixture
def signing_key(registry):
    return registry.sections["jwt"].private_key


def asks(client, authorization, **kw):
    return client.get("/api/me", headers={"Authorization": authorization}, **kw)


# -- access tokens ------------------------------------------------------------------------------------------------


def test_an_access_token_says_what_it_is_who_made_it_and_for_whom(registry, signing_key, user_id):
    token = registry.access_tokens.create_token(str(user_id))
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt"
    assert header["alg"] == "HS512"
    assert re.fullmatch("[0-9a-f]{16}", header["kid"])
    claims = jwt.decode(
        token, signing_key, algorithms=["HS512"], audience="customer-orders", issuer="http://127.0.0.1:6543"
    )
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti"}
    assert claims["sub"] == str(user_id)
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert abs(claims["iat"] - time.time()) < 60


def test_no_two_access_tokens_are_the_same(registry, user_id):
    first, second = (registry.access_tokens.create_token(str(user_id)) for _ in range(2))
    assert first != second


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_is_read_in_any_case(anonymous, registry, user_id, scheme):
    token = registry.access_tokens.create_token(str(user_id))
    assert asks(anonymous, f"{scheme} {token}", status=200).json["id"] == user_id


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_algorithm_makes_tokens_that_it_reads(make_app, algorithm):
    app = make_app("sqlite", **{"jwt.algorithm": algorithm, "jwt.expiration": "60"})
    with app.registry.database.transaction() as session:
        user_id = local_user(session, "jane@shop.example", "viewer").id
    token = app.registry.access_tokens.create_token(str(user_id))
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert asks(TestApp(app), f"Bearer {token}", status=200).json["role"] == "viewer"


FORGERIES = {
    "expired": {"claims": {"exp": -1}},
    "not yet valid": {"claims": {"nbf": HOUR}},
    "issued in the future": {"claims": {"iat": HOUR}},
    "foreign issuer": {"claims": {"iss": "https://evil.example"}},
    "foreign audience": {"claims": {"aud": "another-service"}},
    **{f"without {name}": {"claims": {name: None}} for name in ("iss", "aud", "sub", "exp", "iat", "jti")},
    "integer sub": {"claims": {"sub": 1}},
    "sub of nobody": {"claims": {"sub": "4611686018427387904"}},
    "sub beyond the database": {"claims": {"sub": "9" * 19}},
    "sub with a zero before": {"claims": {"sub": "01"}},
    "sub of other digits": {"claims": {"sub": "\u0661"}},
    "sub that is empty": {"claims": {"sub": ""}},
    "another key": {"key": secrets.token_urlsafe(64)},
    "another algorithm": {"algorithm": "HS256"},
    "no algorithm": {"algorithm": "none", "key": ""},
    "typ JWT": {"headers": {"typ": "JWT"}},
    "no typ": {"headers": {"typ": None}},
    "another kid": {"headers": {"kid": "0" * 16}},
    "kid that is a number": {"headers": {"kid": 1}},
    "sid that is a number": {"claims": {"sid": 1}},
    "sid of no session": {"claims": {"sid": "4611686018427387904"}},
    "sid with a zero before": {"claims": {"sid": "01"}},
    "no kid": {"headers": {"kid": None}},
    "critical header": {"headers": {"crit": ["exp"], "exp": 1}},
}


def forged(registry, user_id, *, claims=None, headers=None, key=None, algorithm="HS512"):
    """A token as the application makes them, but for what is told; None leaves a claim or header out."""
    now = int(time.time())
    key = registry.sections["jwt"].private_key if key is None else key
    wanted = {
        "iss": registry.sections["app"].public_url,
        "aud": "customer-orders",
        "sub": str(user_id),
        "iat": now,
        "exp": now + HOUR,
        "jti": secrets.token_hex(16),
        **{
            name: now + value if name in ("exp", "nbf", "iat") and value is not None else value
            for name, value in (claims or {}).items()
        },
    }
    given = {"typ": "at+jwt", "kid": registry.access_tokens.kid, **(headers or {})}
    if given["kid"] is None:
        del given["kid"]
    payload = {name: value for name, value in wanted.items() if value is not None}
    if isinstance(payload.get("sub"), int) or isinstance(given.get("kid"), int):
        # PyJWT would not make it
        return signed({"alg": algorithm, **given}, payload, key)
    return jwt.encode(payload, key, algorithm=algorithm, headers=given)


def signed(header, payload, key):
    """A JWT put together by hand: HMAC with SHA-512."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = hmac.new(key.encode(), b".".join(parts), hashlib.sha512).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_token_made_by_hand_with_all_in_order_is_taken(anonymous, registry, signing_key, user_id):
    asks(anonymous, f"Bearer {forged(registry, user_id)}", status=200)
    payload = jwt.decode(forged(registry, user_id), options={"verify_signature": False})
    header = {"typ": "at+jwt", "alg": "HS512", "kid": registry.access_tokens.kid}
    asks(anonymous, f"Bearer {signed(header, payload, signing_key)}", status=200)


@pytest.mark.parametrize("flaw", FORGERIES)
def test_a_token_with_one_flaw_is_refused(anonymous, registry, user_id, flaw):
    token = forged(registry, user_id, **FORGERIES[flaw])
    answer = asks(anonymous, f"Bearer {token}", status=401)
    assert answer.json["code"] == "unauthenticated"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="customer-orders", error="invalid_token"'
    assert token not in answer.text


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer ", "Bearer x", "Bearer a.b.c", "Bearer \u00e9.\u00e9.\u00e9", "Bearer {token} {token}",
     "Basic {token}", "{token}", "Token {token}", "Bearer{token}", "Bearer {token}x", "Bearer " + "a" * 5000],
)  # fmt: skip
def test_what_is_no_bearer_token_is_refused(anonymous, registry, user_id, authorization):
    token = registry.access_tokens.create_token(str(user_id))
    given = authorization.replace("{token}", token).encode().decode("latin-1")
    assert asks(anonymous, given, status=401).json["code"] == "unauthenticated"


def test_without_a_token_the_caller_is_told_how_to_sign_in(anonymous):
    answer = anonymous.get("/api/me", status=401)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="customer-orders"'
    assert answer.content_type == "application/problem+json"


def test_an_access_token_of_another_deployment_with_the_same_key_is_refused(anonymous, make_app, user_id):
    other = make_app("sqlite", **{"app.public_url": "https://other.example"})
    token = other.registry.access_tokens.create_token(str(user_id))
    asks(anonymous, f"Bearer {token}", status=401)


def test_what_an_operator_takes_away_is_gone_at_once(anonymous, registry, user_id):
    token = registry.access_tokens.create_token(str(user_id))
    for change, status in (
        (lambda session: disable(session, str(user_id), disabled=True), 401),
        (lambda session: disable(session, str(user_id), disabled=False), 200),
        (lambda session: grant(session, str(user_id), None), 403),
    ):
        with registry.database.transaction() as session:
            change(session)
        asks(anonymous, f"Bearer {token}", status=status)


def test_pyramid_is_told_who_calls_and_that_nothing_is_remembered_in_cookies(registry, user_id):
    with prepare(registry=registry) as environment:
        request = environment["request"]
        request.headers["Authorization"] = f"Bearer {registry.access_tokens.create_token(str(user_id))}"
        with request.tm:
            assert request.authenticated_userid == str(user_id)
            assert remember(request, str(user_id)) == forget(request) == []
        nobody = request.blank("/")
        nobody.registry = registry
        assert nobody.authenticated_userid is None
