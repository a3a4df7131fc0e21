"""Tokens that prove nothing, and call-backs that belong to nobody: refused, all alike, and no user is made."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

REFUSED = {
    "type": "http://127.0.0.1:6543/problems/sign-in-refused",
    "title": "The sign-in was refused",
    "status": 403,
    "detail": "The identity provider did not confirm who you are.",
    "code": "sign-in-refused",
}
EXPIRED = {
    "type": "http://127.0.0.1:6543/problems/sign-in-expired",
    "title": "This sign-in cannot go on",
    "status": 400,
    "detail": "The sign-in took too long, was begun in another browser or tab, or was finished already.",
    "code": "sign-in-expired",
}

ANOTHER = rsa.generate_private_key(65537, 2048)


def assert_refused(browser, answer, problem=REFUSED):
    told = answer.json
    assert told.pop("request_id") == answer.headers["X-Request-Id"]
    assert told == problem
    assert browser.users() == 0


def encoded(part):
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def assembled(op, header, signature=b""):
    return f"{encoded(header)}.{encoded(op.claims())}.{encoded(signature)}"


def signed_by_another(**headers):
    return lambda op: op.token(key=ANOTHER, headers=headers)


def with_headers(**headers):
    """By the right key; only the header is odd."""
    return lambda op: op.token(headers=headers)


def with_claims(**changed):
    return lambda op: op.token(op.claims(**changed))


def leading_to_its_own_keys(name, path="/trap"):
    """Signed by another key, which the header offers at an address, or brings along."""

    def sign(op):
        public = jwt.algorithms.RSAAlgorithm.to_jwk(ANOTHER.public_key(), as_dict=True)
        mine = {**public, "kid": "mine"}
        op.pages[path] = {"keys": [mine]}
        value = mine if name == "jwk" else f"{op.issuer}{path}"
        return op.token(key=ANOTHER, headers={name: value, "kid": "mine"})

    return sign


def hmac_with_the_public_key(encoding, form):
    def sign(op):
        secret = op.key.private.public_key().public_bytes(encoding, form)
        unsigned = assembled(op, {"alg": "HS256", "typ": "JWT", "kid": op.key.kid}).rstrip(".")
        digest = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
        return f"{unsigned}.{encoded(digest)}"

    return sign


def by_another_algorithm(algorithm):
    """By a key of its own that is published."""

    def sign(op):
        if algorithm == "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
            public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            key, public = op.key.private, op.key.public
        op.pages["/keys"] = {"keys": [{**public, "kid": "other", "use": "sig", "alg": algorithm}]}
        return op.token(key=key, algorithm=algorithm, headers={"kid": "other"})

    return sign


def signed_by_hand(op, header, key):
    """RS256 without a library's opinion of the header."""
    unsigned = assembled(op, {"alg": "RS256", **header}).rstrip(".")
    return f"{unsigned}.{encoded(key.sign(unsigned.encode(), PKCS1v15(), SHA256()))}"


def by_a_short_key(op):
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 (that it is short is the point)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    op.pages["/keys"] = {"keys": [{**public, "kid": "short", "alg": "RS256"}]}
    return signed_by_hand(op, {"kid": "short"}, key)


def changed_after_signing(op):
    header, _, signature = op.token().split(".")
    return f"{header}.{encoded(op.claims(sub='somebody-else'))}.{signature}"


FORGED = {
    "another key": signed_by_another(),
    "an unknown kid": signed_by_another(kid="unknown"),
    "an unknown kid, the right key": with_headers(kid="unknown"),
    "a kid with a path": signed_by_another(kid="../../../../dev/null"),
    "a kid that is an address": signed_by_another(kid="https://127.0.0.1/keys"),
    "a kid of another type": lambda op: assembled(op, {"alg": "RS256", "kid": ["a"]}, b"x" * 256),
    "no kid": lambda op: assembled(op, {"alg": "RS256"}, b"x" * 256),
    "jku": leading_to_its_own_keys("jku"),
    "x5u": leading_to_its_own_keys("x5u"),
    "jwk": leading_to_its_own_keys("jwk"),
    "jku, the right key": with_headers(jku="https://127.0.0.1/trap"),
    "x5u, the right key": with_headers(x5u="https://127.0.0.1/trap"),
    "x5c, the right key": with_headers(x5c=["MIIB"]),
    "crit": with_headers(crit=["exp"]),
    "crit of what PyJWT knows": lambda op: signed_by_hand(
        op, {"kid": op.key.kid, "crit": ["b64"], "b64": True}, op.key.private
    ),
    "alg=none": lambda op: jwt.encode(op.claims(), None, algorithm="none", headers={"kid": op.key.kid}),
    "alg=nOnE": lambda op: assembled(op, {"alg": "nOnE", "kid": op.key.kid}),
    "no alg": lambda op: assembled(op, {"kid": op.key.kid}),
    "HS256 with the public key (PEM)": hmac_with_the_public_key(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "HS256 with the public key (PKCS 1)": hmac_with_the_public_key(Encoding.PEM, PublicFormat.PKCS1),
    "HS256 with the public key (DER)": hmac_with_the_public_key(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "RS512": by_another_algorithm("RS512"),
    "PS256": by_another_algorithm("PS256"),
    "ES256": by_another_algorithm("ES256"),
    "a key of 1024 bits": by_a_short_key,
    "changed after signing": changed_after_signing,
    "another aud": with_claims(aud="somebody-else"),
    "no aud": with_claims(aud=None),
    "aud empty": with_claims(aud=[]),
    "aud list with a foreign azp": lambda op: op.token(
        op.claims(aud=[op.client_id, "somebody-else"], azp="somebody-else")
    ),
    "aud list with others": lambda op: op.token(op.claims(aud=[op.client_id, "somebody-else"])),
    "aud list without azp": lambda op: op.token(op.claims(aud=[op.client_id, "somebody-else"], azp=None)),
    "another azp": with_claims(azp="somebody-else"),
    "another iss": with_claims(iss="https://evil.example"),
    "Google's iss from an issuer that is not Google": with_claims(iss="https://accounts.google.com"),
    "Google's short iss from an issuer that is not Google": with_claims(iss="accounts.google.com"),
    "iss without scheme from an issuer that is not Google": lambda op: op.token(
        op.claims(iss=op.issuer.removeprefix("https://"))
    ),
    "iss with a slash more": lambda op: op.token(op.claims(iss=f"{op.issuer}/")),
    "no iss": with_claims(iss=None),
    "iss empty": with_claims(iss=""),
    "expired": lambda op: op.token(op.claims(exp=op.claims()["iat"] - 60)),
    "no exp": with_claims(exp=None),
    "exp of another type": with_claims(exp="soon"),
    "iat in the future": lambda op: op.token(op.claims(iat=op.claims()["iat"] + 120)),
    "no iat": with_claims(iat=None),
    "nbf in the future": lambda op: op.token(op.claims(nbf=op.claims()["iat"] + 120)),
    "no nonce": with_claims(nonce=None),
    "another nonce": with_claims(nonce="another"),
    "nonce of another type": with_claims(nonce=["n"]),
    "nonce that is half a character": with_claims(nonce="\ud800"),
    "at_hash that is half a character": with_claims(at_hash="\ud800"),
    "another at_hash": with_claims(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "at_hash of another type": with_claims(at_hash=7),
    "no sub": with_claims(sub=None),
    "sub empty": with_claims(sub=""),
    "sub too long": with_claims(sub="s" * 256),
    "no email": with_claims(email=None),
    "email of another type": with_claims(email=["jane@shop.example"]),
    "name with control characters": with_claims(name="Jane\x00"),
    "email_verified false": with_claims(email_verified=False),
    "email_verified absent": with_claims(email_verified=None),
    'email_verified the string "true"': with_claims(email_verified="true"),
    "email_verified 1": with_claims(email_verified=1),
    "no token": lambda op: None,
    "an empty token": lambda op: "",
    "a token that is none": lambda op: "not.a.token",
    "a token of another type": lambda op: {"alg": "RS256"},
    "a token nested too deeply": lambda op: f"{encoded(b'[' * 100_000)}.{encoded({})}.",
}


@pytest.fixture
def strict(make_browser):
    """A browser of a shop that lets in one domain, and gives everybody in it a role."""
    return make_browser(**{"google.hosted_domains": "shop.example", "auth.admins": "jane@shop.example"})


def test_what_is_not_forged_is_let_pass(strict):
    assert strict.sign_in().status_int == 200
    assert strict.users() == 1


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(strict, name):
    strict.op.sign = FORGED[name]
    assert_refused(strict, strict.sign_in())
    assert len(strict.op.asked("/token")) == 1
    assert strict.op.asked("/trap") == []


@pytest.mark.parametrize(
    "hd", [None, "", "other.example", "sub.shop.example", "notshop.example", True, ["shop.example"]]
)
def test_who_is_of_no_hosted_domain_is_refused(strict, hd):
    strict.op.sign = with_claims(hd=hd)
    assert_refused(strict, strict.sign_in())


@pytest.mark.parametrize("email_verified", [False, None, "true"])
def test_an_address_that_nobody_vouches_for_gives_no_role(make_browser, email_verified):
    browser = make_browser(**{"auth.default_role": "none", "auth.admins": "jane@shop.example"})
    browser.op.sign = with_claims(email_verified=email_verified)
    assert_refused(browser, browser.sign_in())


def test_a_token_of_an_earlier_sign_in_is_refused(browser):
    browser.begin()
    earlier = browser.op.token()
    browser.op.sign = lambda op: earlier
    assert_refused(browser, browser.sign_in())


# -- call-backs ---------------------------------------------------------------------------------------------------


def test_a_code_that_is_replayed_is_refused(browser):
    browser.op.codes = {"c0de"}
    told = browser.begin()
    with pytest.MonkeyPatch.context() as patch:
        # the first one to come is somebody else
        patch.setattr(browser.op, "codes", set())
        assert_refused(browser, browser.come_back(told["state"], code="c0de"))


def test_a_code_is_redeemed_once(browser):
    browser.op.codes = {"c0de"}
    assert browser.sign_in(code="c0de").status_int == 200
    answer = browser.sign_in(code="c0de")
    assert answer.json["code"] == "sign-in-refused"
    assert len(browser.op.asked("/token")) == 2


@pytest.mark.parametrize("error", ["access_denied", "server_error", "<script>alert(1)</script>"])
def test_a_call_back_with_an_error_is_refused(browser, error):
    state = browser.begin()["state"]
    answer = browser.get("/api/google-oauth2/callback/", {"error": error, "state": state}, status="*")
    assert_refused(browser, answer)
    assert browser.op.asked("/token") == []


def _swapped_state(browser):
    browser.begin()
    return browser.come_back("x" * 43)


def _no_cookie(browser):
    state = browser.begin()["state"]
    browser.reset()
    return browser.come_back(state)


def _second_tab(browser):
    first = browser.begin()["state"]
    browser.begin()
    return browser.come_back(first)


def _of_another_browser(browser):
    theirs = browser.begin()["state"]
    browser.reset()
    browser.begin()
    return browser.come_back(theirs)


@pytest.mark.parametrize("attack", [_swapped_state, _no_cookie, _second_tab, _of_another_browser])
def test_a_call_back_of_no_sign_in_of_this_browser_is_refused(browser, attack):
    assert_refused(browser, attack(browser), EXPIRED)
    # the code was spared
    assert browser.op.asked("/token") == []


def test_the_second_tab_itself_goes_on(browser):
    _second_tab(browser)
    assert browser.sign_in().status_int == 200
