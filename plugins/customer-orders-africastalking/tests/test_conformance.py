"""The plugin does what every plugin has to do."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from urllib.parse import urlencode

import pytest

from customer_orders.interfaces import ChannelDown, OptOut, Rejected, Report, Unavailable, Uncertain
from customer_orders.testing import DeliveryReportsContract, NotifierContract
from customer_orders_africastalking.notifier import AfricasTalking
from loopback import Answer, hang, provider, reset, unused_url


def by(url):
    return AfricasTalking(username="shop", api_key=secrets.token_hex(32), endpoint=url, read_timeout=0.5)


def told(code):
    return Answer({"SMSMessageData": {"Message": "", "Recipients": [{"statusCode": code, "status": "told"}]}}, 201)


class TestAfricasTalking(NotifierContract):
    @pytest.fixture
    def notifier(self, make_notifier):
        return make_notifier()

    @pytest.fixture
    def failing(self):
        ways = [
            (told(403), Rejected),
            (told(406), Rejected),
            (told(407), Unavailable),
            (told(500), Unavailable),
            (told(405), ChannelDown),
            (told(999), Uncertain),
            (Answer(status=400), Rejected),
            (Answer(status=401), ChannelDown),
            (Answer(status=404), ChannelDown),
            (Answer(status=429), Unavailable),
            (Answer(status=500), Uncertain),
            (Answer(status=503), Unavailable),
            (Answer(b"<html>"), Uncertain),
            (hang, Uncertain),
            (reset, Uncertain),
        ]
        with ExitStack() as running:
            pairs = [(by(unused_url()), Unavailable)]
            for answer, expected in ways:
                server = running.enter_context(provider())
                server.answer = lambda asked, answer=answer: answer
                pairs.append((by(server.url), expected))
            yield pairs


class TestAfricasTalkingReports(DeliveryReportsContract):
    @pytest.fixture
    def notifier(self):
        return by(unused_url())

    @pytest.fixture
    def callbacks(self):
        number = "+254700000001"
        report = {"id": "ATXid_1", "phoneNumber": number, "networkCode": "63902", "retryCount": "0"}
        said = [
            (report | {"status": "Success"}, Report("ATXid_1", "delivered", None, number)),
            (report | {"status": "Buffered"}, Report("ATXid_1", "sent", None, number)),
            (
                report | {"status": "Rejected", "failureReason": "UserInBlackList"},
                Report("ATXid_1", "failed", "UserInBlackList", number),
            ),
            ({"senderId": "Duka", "phoneNumber": number}, OptOut(number)),
        ]
        headers = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "okhttp"}
        return [(headers, urlencode(form).encode(), [told]) for form, told in said]
