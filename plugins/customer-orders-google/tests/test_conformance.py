"""The plugin does what every identity provider has to do."""

from __future__ import annotations

import base64
import hashlib
import secrets
from urllib.parse import parse_qsl, urlsplit

import pytest

from customer_orders.testing import IdentityProviderContract
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
