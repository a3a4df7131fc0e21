"""The plugin does what every plugin has to do."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from customer_orders.interfaces import Unavailable
from customer_orders.testing import IdentityProviderContract, NotifierContract
from customer_orders_devtools.identity import AnyEmail
from customer_orders_devtools.simulator import Simulator


class TestSimulator(NotifierContract):
    @pytest.fixture
    def notifier(self, inbox):
        return Simulator(str(inbox))

    @pytest.fixture
    def failing(self, tmp_path):
        (tmp_path / "file").touch()
        return [(Simulator(str(tmp_path)), Unavailable), (Simulator(str(tmp_path / "file" / "inbox")), Unavailable)]


class TestAnyEmail(IdentityProviderContract):
    @pytest.fixture
    def provider(self):
        return AnyEmail()

    @pytest.fixture
    def unavailable(self):
        return None

    def consent(self, provider, url):
        asked = dict(parse_qsl(urlsplit(url).query))
        return provider.grant("Jane@Shop.example", asked["redirect_uri"], asked["nonce"], asked["code_challenge"])
