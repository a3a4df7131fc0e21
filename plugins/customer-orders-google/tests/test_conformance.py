"""The plugin does what every identity provider has to do."""

from __future__ import annotations

import base64
import hashlib
import secrets
from urllib.parse import parse_qsl, urlsplit

import pytest

from customer_orders.testing import CheckContract, IdentityProviderContract
from customer_orders_google.checks import Checks
from loopback import Answer, unused_url


class TestGoogle(IdentityProviderContract):
    @pytest.fixture
    def provider(self, make_google, op):
        """At a provider that keeps, for each code, the nonce and the challenge that it was asked with."""
        self.granted = {}

        def redeem(handler):
            form = handler.asked.form
            nonce, challenge = self.granted.pop(form["code"], ("", ""))
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != challenge:
                Answer({"error": "invalid_grant"}, 400)(handler)
                return
            token = op.token(op.claims(nonce=nonce))
            Answer({"access_token": secrets.token_hex(16), "token_type": "Bearer", "id_token": token})(handler)

        op.pages["/token"] = redeem
        return make_google()

    @pytest.fixture
    def unavailable(self, make_google):
        return make_google(issuer=unused_url("https"))

    def consent(self, provider, url):
        asked = dict(parse_qsl(urlsplit(url).query))
        code = secrets.token_hex(16)
        self.granted[code] = (asked["nonce"], asked["code_challenge"])
        return code


class OfGoogle(CheckContract):
    """What all checks have in common: nothing answers, or somebody else does, and no secret is told."""

    name = ""

    @pytest.fixture
    def check(self, make_google, op):
        op.pages["/token"] = Answer({"error": "invalid_grant"}, 400)
        return getattr(Checks(make_google()), self.name)

    @pytest.fixture
    def failing(self, make_google):
        return [getattr(Checks(make_google(issuer=unused_url("https"))), self.name)]

    @pytest.fixture
    def untold(self, op):
        return [op.client_secret]


class TestDiscovery(OfGoogle):
    name = "discovery"


class TestClock(OfGoogle):
    name = "clock"


class TestClient(OfGoogle):
    name = "client"


def test_the_provider_is_told_who_asks_and_a_code_that_it_never_gave(make_google, op):
    asked = []

    def refuse(handler):
        asked.append(handler.asked)
        Answer({"error": "invalid_grant"}, 400)(handler)

    op.pages["/token"] = refuse
    assert Checks(make_google()).client() == "The provider knows the client."
    credentials = base64.b64encode(f"{op.client_id}:{op.client_secret}".encode()).decode()
    assert asked[0].headers["Authorization"] == f"Basic {credentials}"


def test_a_provider_without_a_date_is_none_to_go_by(make_google, op):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    op.pages["/.well-known/openid-configuration"] = answer
    assert Checks(make_google()).clock() == "The provider tells no time (Date)."
