"""The plugin does what every plugin has to do."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from customer_orders.interfaces import ChannelDown, OptOut, Rejected, Report, Unavailable, Uncertain
from customer_orders.testing import DeliveryReportsContract, IdentityProviderContract, NotifierContract
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


class TestReports(DeliveryReportsContract):
    @pytest.fixture
    def notifier(self, inbox):
        return Simulator(str(inbox))

    @pytest.fixture
    def callbacks(self):
        failed = {"reference": "simulated-1", "status": "failed", "reason": "the phone is off", "to": "+447700900102"}
        delivered = {"reference": "simulated-2", "status": "delivered", "reason": None, "to": "+447700900101"}
        json_headers = {"Content-Type": "application/json"}
        return [
            (json_headers, json.dumps(failed).encode(), [Report(**failed)]),
            (json_headers, json.dumps(delivered).encode(), [Report(**delivered)]),
            (json_headers, b'{"opt_out": "+447700900110"}', [OptOut("+447700900110")]),
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
