"""The conformance kits for plugin authors: they pass what is sound, and find what is not."""

from __future__ import annotations

import pytest

from customer_orders.interfaces import Identity, IdentityRefused, OptOut, Report

pytest_plugins = ["pytester"]

HEAD = """
import threading
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from zope.interface import implementer

from customer_orders.interfaces import *
from customer_orders.testing import (
    CheckContract,
    DeliveryReportsContract,
    IdentityProviderContract,
    NotifierContract,
)
"""

NOTIFIER = (
    HEAD
    + """
@implementer(INotifier)
class Pigeon:
    def __init__(self, failure=None):
        self.failure, self.sent, self.lock = failure, 0, threading.Lock()

    def send(self, message):
        if self.failure:
            raise self.failure
        with self.lock:
            self.sent += 1
            return Receipt(f"pigeon-{self.sent}", Cost(Decimal("0.5"), "KES"))


class TestPigeon(NotifierContract):
    @pytest.fixture
    def notifier(self):
        return Pigeon()

    @pytest.fixture
    def failing(self):
        return [(Pigeon(Unavailable("too windy")), Unavailable)]
"""
)

REPORTS = (
    HEAD
    + """
import json

@implementer(INotifier, IDeliveryReports)
class Pigeon:
    def __init__(self):
        self.seen = []

    def send(self, message):
        return Receipt("pigeon-1")

    def parse(self, headers, body):
        if headers.get("Content-Type") != "application/json":
            raise ValueError("no pigeon writes so")
        try:
            told = json.loads(body)
        except RecursionError:
            raise ValueError("no pigeon nests so deep")
        if not isinstance(told, dict):
            raise ValueError("no pigeon says so")
        if told.get("shot"):
            return [OptOut(told["shot"])]
        return [Report(told.get("ring"), "delivered" if told.get("home") else "sent")]


class TestPigeon(DeliveryReportsContract):
    @pytest.fixture
    def notifier(self):
        return Pigeon()

    @pytest.fixture
    def callbacks(self):
        headers = {"Content-Type": "application/json"}
        return [
            (headers, b'{"ring": "pigeon-1"}', [Report("pigeon-1", "sent")]),
            (headers, b'{"ring": "pigeon-1", "home": true}', [Report("pigeon-1", "delivered")]),
            (headers, b'{"shot": "+254700000001"}', [OptOut("+254700000001")]),
        ]
"""
)

PROVIDER = (
    HEAD
    + """
import base64
import hashlib
from urllib.parse import parse_qs, urlsplit


@implementer(IIdentityProvider)
class Gatekeeper:
    title = "the gate"

    def __init__(self, down=False):
        self.down, self.codes = down, {}

    def authorization_url(self, redirect_uri, state, nonce, code_challenge):
        query = {"redirect_uri": redirect_uri, "state": state, "nonce": nonce, "code_challenge": code_challenge}
        return "https://gate.example/?" + urlencode({**query, "code_challenge_method": "S256"})

    def identify(self, redirect_uri, code, nonce, code_verifier):
        if self.down:
            raise IdentityProviderUnavailable("nobody opens")
        asked = self.codes.pop(code, None)
        if asked is None:
            raise IdentityRefused("unknown code")
        if asked["nonce"] != [nonce]:
            raise IdentityRefused("nonce")
        digest = base64.urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).decode().rstrip("=")
        if asked["code_challenge"] != [digest]:
            raise IdentityRefused("verifier")
        return Identity("1", "jane@shop.example", True, "Jane")


class TestGatekeeper(IdentityProviderContract):
    @pytest.fixture
    def provider(self):
        return Gatekeeper()

    @pytest.fixture
    def unavailable(self):
        return Gatekeeper(down=True)

    def consent(self, provider, url):
        code = str(len(provider.codes)) + url[-20:]
        provider.codes[code] = parse_qs(urlsplit(url).query)
        return code
"""
)


def outcomes(pytester, module):
    pytester.makepyfile(module)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "ignore")
    return result, result.parseoutcomes()


@pytest.mark.parametrize("cost", ['Cost(Decimal("0.5"), "KES")', "None"])
def test_a_sound_notifier_passes(pytester, cost):
    _, told = outcomes(pytester, NOTIFIER.replace('Cost(Decimal("0.5"), "KES")', cost))
    assert told == {"passed": 8}


def test_a_notifier_with_sound_reports_passes(pytester):
    _, told = outcomes(pytester, REPORTS)
    assert told == {"passed": 81}


def test_a_sound_identity_provider_passes(pytester):
    _, told = outcomes(pytester, PROVIDER)
    assert told == {"passed": 9}


@pytest.mark.parametrize(
    ("sound", "unsound"),
    [
        ("@implementer(INotifier)", ""),
        ('Receipt(f"pigeon-{self.sent}", ', 'Receipt("", '),
        ('Receipt(f"pigeon-{self.sent}", ', 'Receipt("always the same", '),
        ('return Receipt(f"pigeon-{self.sent}", Cost(Decimal("0.5"), "KES"))', "return True"),
        ('Decimal("0.5")', 'Decimal("-1")'),
        ('Decimal("0.5")', 'Decimal("0.00001")'),
        ('"KES"', '"KSh"'),
        ("raise self.failure", "raise ConnectionError"),
        ("raise self.failure", 'raise Unavailable("")'),
        ("raise self.failure", "raise Unavailable(message.text)"),
        ('[(Pigeon(Unavailable("too windy")), Unavailable)]', "[]"),
    ],
)
def test_an_unsound_notifier_is_found(pytester, sound, unsound):
    assert sound in NOTIFIER
    _, told = outcomes(pytester, NOTIFIER.replace(sound, unsound))
    assert told["failed"]


@pytest.mark.parametrize(
    ("sound", "unsound"),
    [
        ("@implementer(INotifier, IDeliveryReports)", "@implementer(INotifier)"),
        ("def parse(self, headers, body):", "def parse(self, body, headers=None):"),
        ('if headers.get("Content-Type") !=', 'if headers["Content-Type"] !='),
        ("except RecursionError", "except KeyboardInterrupt"),
        ("if not isinstance(told, dict):", "if False:"),
        ("return [Report(told.get", "return [] if told == {} else [Report(told.get"),
        ('"delivered" if', '"failed" if'),
        ('[OptOut(told["shot"])]', '[told["shot"]]'),
        ("told = json.loads(body)", "told = json.loads(body); open(__file__).close()"),
        ("told = json.loads(body)", "told = json.loads(body); self.seen.append(told); told |= self.seen[0]"),
        ("told = json.loads(body)", "told = json.loads(body); body in self.seen and 1 / 0; self.seen.append(body)"),
        ('if told.get("shot"):', "self.seen.append(1)\n        if len(self.seen) > 6:"),
    ],
)
def test_unsound_reports_are_found(pytester, sound, unsound):
    assert sound in REPORTS
    _, told = outcomes(pytester, REPORTS.replace(sound, unsound))
    assert told["failed"]


@pytest.mark.parametrize(
    ("sound", "unsound"),
    [
        ("@implementer(IIdentityProvider)", ""),
        ('title = "the gate"', 'title = " "'),
        ('"https://gate.example/?"', '"/gate?"'),
        ('"state": state, ', ""),
        ('"redirect_uri": redirect_uri', '"redirect_uri": "https://elsewhere.example/"'),
        ('"code_challenge": code_challenge', '"code_challenge": "none"'),
        ('"S256"', '"plain"'),
        ("self.codes.pop(code, None)", "self.codes.get(code)"),
        ("if asked is None:\n            raise IdentityRefused", "if asked is None:\n            raise KeyError"),
        ('if asked["nonce"] != [nonce]:', "if False:"),
        ('if asked["code_challenge"] != [digest]:', "if False:"),
        ('Identity("1"', "Identity(nonce"),
        ('Identity("1"', 'Identity(""'),
        ('"jane@shop.example"', '"Jane"'),
        ("True, ", '"yes", '),
        ("raise IdentityProviderUnavailable", "raise IdentityRefused"),
    ],
)
def test_an_unsound_identity_provider_is_found(pytester, sound, unsound):
    assert sound in PROVIDER
    _, told = outcomes(pytester, PROVIDER.replace(sound, unsound))
    assert told["failed"]


CHECK = (
    HEAD
    + """
class Loft:
    def __init__(self, pigeons):
        self.pigeons = pigeons

    def check(self):
        if not self.pigeons:
            raise CheckFailed("No pigeon is at home.", remedy="Feed them.")
        return f"{self.pigeons} pigeons are at home."


class TestLoft(CheckContract):
    @pytest.fixture
    def check(self):
        return Loft(3).check

    @pytest.fixture
    def failing(self):
        return [Loft(0).check]

    @pytest.fixture
    def untold(self):
        return ["coordinates"]
"""
)


def test_a_sound_check_passes(pytester):
    _, told = outcomes(pytester, CHECK)
    assert told == {"passed": 4}


@pytest.mark.parametrize(
    ("sound", "unsound"),
    [
        ('return f"{self.pigeons} pigeons are at home."', "return self.pigeons"),
        ('return f"{self.pigeons} pigeons are at home."', "self.pigeons -= 1"),
        ('raise CheckFailed("No pigeon is at home.", remedy="Feed them.")', "return 'none'"),
        ('raise CheckFailed("No pigeon is at home.", remedy="Feed them.")', "raise ValueError"),
        ('"No pigeon is at home."', '""'),
        ('"No pigeon is at home."', "None"),
        ('remedy="Feed them."', 'remedy=""'),
        ('"No pigeon is at home."', '"No pigeon is at its coordinates."'),
        ("pigeons are at home", "pigeons are at their coordinates"),
        ("return [Loft(0).check]", "return []"),
    ],
)
def test_an_unsound_check_is_found(pytester, sound, unsound):
    assert sound in CHECK
    _, told = outcomes(pytester, CHECK.replace(sound, unsound))
    assert told["failed"]


def test_what_is_not_told_is_asked_for_in_a_sentence(pytester):
    result, told = outcomes(
        pytester,
        HEAD
        + "class TestNotifier(NotifierContract): pass\n"
        + "class TestReports(DeliveryReportsContract): pass\n"
        + "class TestProvider(IdentityProviderContract): pass\n"
        + "class TestConsent(IdentityProviderContract):\n"
        + "    provider = pytest.fixture(lambda self: Gate())\n"
        + "class Gate:\n"
        + "    def authorization_url(self, *given): return 'https://gate.example/'\n",
    )
    assert "passed" not in told
    result.stdout.fnmatch_lines_random(
        [
            "*NotImplementedError: Return your notifier, *",
            "*NotImplementedError: Return pairs: *",
            "*NotImplementedError: Return your notifier.",
            "*NotImplementedError: Return your identity provider; *",
            "*NotImplementedError: Return your identity provider with a service *",
            "*NotImplementedError: Return the code *",
        ]
    )


def test_a_failure_shows_what_was_compared(pytester):
    result, _ = outcomes(pytester, NOTIFIER.replace('"KES"', '"KSh"'))
    result.stdout.fnmatch_lines(["*where None = *fullmatch*"])


@pytest.mark.parametrize(
    "told",
    [
        {"reference": ""},
        {"reference": "x" * 256},
        {"reference": "x\x00"},
        {"reference": None},
        {"status": "unknown"},
        {"status": ""},
        {"status": None},
        {"reason": ""},
        {"reason": "two\nlines"},
        {"reason": "x" * 256},
        {"reason": 5},
        {"to": ""},
        {"to": "\ud800"},
    ],
)
def test_a_report_that_could_not_be_kept_is_none(told):
    whole = {"reference": "x" * 255, "status": "failed", "reason": "é" * 255, "to": "+254700000001"}
    assert Report(**whole)
    assert Report("x", "sent").to is None
    with pytest.raises(ValueError, match="a report"):
        Report(**whole | told)


@pytest.mark.parametrize(
    "to", ["", "254700000001", "+0700000001", "+25470", "+254700000001\n", "+\u0662547000000", None]
)
def test_an_opt_out_names_a_number(to):
    assert OptOut("+254700000001").to == "+254700000001"
    with pytest.raises(ValueError, match=r"in E\.164"):
        OptOut(to)


@pytest.mark.parametrize("what", ["email", "name"])
def test_an_identity_of_which_the_provider_tells_too_little_is_refused_with_what_is_missing(what):
    told = {"subject": "1", "email": "jane@shop.example", "email_verified": True, "name": "Jane"}
    assert Identity(**told)
    with pytest.raises(IdentityRefused, match=f"tells no {what} of the person"):
        Identity(**told | {what: None})
