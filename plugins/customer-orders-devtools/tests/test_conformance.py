"""The plugin does what every plugin has to do."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from zope.interface.verify import verifyObject

from customer_orders.interfaces import ChannelDown, IDeliveryReports, Rejected, Unavailable, Uncertain
from customer_orders.testing import IdentityProviderContract, NotifierContract
from customer_orders_devtools.identity import AnyEmail
from customer_orders_devtools.simulator import Simulator


class Redirected:
    """The simulator, with every message for one number."""

    def __init__(self, phone, number):
        self.phone, self.number = phone, number

    def send(self, message):
        return self.phone.send(replace(message, to=self.number))


class TestSimulator(NotifierContract):
    @pytest.fixture
    def notifier(self, inbox):
        return Simulator(str(inbox))

    def test_it_has_reports(self, notifier):
        assert verifyObject(IDeliveryReports, notifier)

    @pytest.fixture
    def failing(self, tmp_path):
        (tmp_path / "file").touch()
        numbers = {
            "+447700900001": Rejected,
            "+447700900002": Rejected,
            "+447700900003": Unavailable,
            "+447700900004": Unavailable,
            "+447700900006": ChannelDown,
            "+447700900007": Uncertain,
            "+447700900008": Uncertain,
        }
        phone = Simulator(str(tmp_path / "inbox"), timeout=0)
        return [
            (Simulator(str(tmp_path)), Unavailable),
            (Simulator(str(tmp_path / "file" / "inbox")), Unavailable),
            *((Redirected(phone, number), expected) for number, expected in numbers.items()),
        ]


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
