"""The kits themselves; see :mod:`customer_orders.testing`."""

from __future__ import annotations

import base64
import builtins
import hashlib
import re
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from zope.interface.verify import verifyObject

from customer_orders.interfaces import (
    ChannelDown,
    Check,
    CheckFailed,
    Cost,
    IDeliveryReports,
    Identity,
    IdentityProviderUnavailable,
    IdentityRefused,
    IIdentityProvider,
    INotifier,
    Message,
    NotSent,
    OptOut,
    Receipt,
    Rejected,
    Report,
    Unavailable,
    Uncertain,
)

THREADS = 8
MESSAGE = Message(key="notification-1", channel="sms", to="+254700000001", text="Your order has been created.")
REDIRECT_URI = "https://orders.example/api/kit-oauth2/callback/"


def _at_once(act: Callable[[int], Any]) -> list[Any]:
    """What ``act`` returns in each of several threads that begin together."""
    together = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        together.wait(30)
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


class NotifierContract:
    """What every :class:`INotifier` has to do."""

    @pytest.fixture
    def notifier(self) -> Any:
        """The notifier, with a provider that takes every message."""
        raise NotImplementedError("Return your notifier, with a stubbed provider that takes every message.")

    @pytest.fixture
    def failing(self) -> Sequence[tuple[Any, type[NotSent]]]:
        """A notifier for each way in which its provider can fail, and what it has to raise then."""
        raise NotImplementedError("Return pairs: your notifier with a provider that fails, and the exception expected.")

    def test_it_meets_the_interface(self, notifier: Any) -> None:
        assert verifyObject(INotifier, notifier)

    @pytest.mark.parametrize("text", ["Thank you!", "Ñandú: 茶 🫖", "two\nlines", "<b>&amp;", "long " * 100])
    def test_a_message_that_is_taken_gives_a_receipt(self, notifier: Any, text: str) -> None:
        receipt = notifier.send(replace(MESSAGE, text=text))
        assert isinstance(receipt, Receipt)
        assert receipt.reference, "the provider's own id, by which its reports are matched"
        assert receipt.reference.isprintable()
        assert len(receipt.reference) <= 255
        if receipt.cost is not None:
            assert isinstance(receipt.cost, Cost)
            assert receipt.cost.amount >= 0
            assert receipt.cost.amount == round(receipt.cost.amount, 4), "at most four decimal places"
            assert re.fullmatch("[A-Z]{3}", receipt.cost.currency), "ISO 4217"

    def test_several_threads_may_send_at_once(self, notifier: Any) -> None:
        receipts = _at_once(lambda number: notifier.send(replace(MESSAGE, key=f"notification-{number}")))
        assert len({receipt.reference for receipt in receipts}) == THREADS, "each message has a reference of its own"

    def test_a_failure_is_told_in_the_words_of_the_contract(self, failing: Sequence[tuple[Any, type[NotSent]]]) -> None:
        assert failing, "every provider can fail"
        for notifier, expected in failing:
            assert expected in (Rejected, Unavailable, ChannelDown, Uncertain)
            with pytest.raises(expected) as told:
                notifier.send(MESSAGE)
            assert told.value.reason, "the reason is kept with the attempt"
            assert MESSAGE.text not in told.value.reason, "reasons end up in logs, what customers are told must not"


# What nobody's provider posts; a few of them look like forms and JSON until one reads on.
GARBAGE = (
    b"",
    b" ",
    b"hello",
    b"=&=&=",
    b"%ff=%00",
    b"\x00\xff\xfe",
    b"null",
    b"true",
    b"0",
    b'"text"',
    b"[0]",
    b"[[]]",
    b"[{}]",
    b"{}",
    b'{"": {}}',
    b'{"a":' * 800,
    b"[" * 4096,
    b"9" * 4096,
    b"<report/>",
)
TYPES = ("application/x-www-form-urlencoded", "application/json", "text/plain", "")


class DeliveryReportsContract:
    """What every :class:`IDeliveryReports` has to do."""

    @pytest.fixture
    def notifier(self) -> Any:
        """The notifier; its provider is not asked for anything."""
        raise NotImplementedError("Return your notifier.")

    @pytest.fixture
    def callbacks(self) -> Sequence[tuple[Mapping[str, str], bytes, Sequence[Report | OptOut]]]:
        """Headers and body of a call-back of each kind, as the provider sends them, and what each says."""
        raise NotImplementedError("Return triples: headers and body of a call-back, and the reports that it brings.")

    def test_it_meets_both_interfaces(self, notifier: Any) -> None:
        assert verifyObject(INotifier, notifier)
        assert verifyObject(IDeliveryReports, notifier)

    def test_a_call_back_is_read(self, notifier: Any, callbacks: Any) -> None:
        assert callbacks, "every provider that calls back has something to say"
        for headers, body, expected in callbacks:
            told = notifier.parse(headers, body)
            assert all(isinstance(one, Report | OptOut) for one in told)
            assert list(told) == list(expected)

    def test_the_same_again_says_the_same(self, notifier: Any, callbacks: Any) -> None:
        first = [list(notifier.parse(headers, body)) for headers, body, _ in callbacks]
        again = [list(notifier.parse(headers, body)) for headers, body, _ in reversed(callbacks)]
        assert again[::-1] == first, "nothing is remembered from one call-back to the next"

    def test_several_threads_may_read_at_once(self, notifier: Any, callbacks: Any) -> None:
        expected = [list(reports) for _, _, reports in callbacks]
        told = _at_once(lambda _: [list(notifier.parse(headers, body)) for headers, body, _ in callbacks])
        assert told == [expected] * THREADS

    def test_reading_opens_nothing(self, notifier: Any, callbacks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[object] = []
        with monkeypatch.context() as patched:
            for where, what in ((socket, "socket"), (socket, "getaddrinfo"), (builtins, "open")):
                patched.setattr(where, what, lambda *given, **_: opened.append(given))
            for headers, body, _ in callbacks:
                with suppress(Exception):
                    notifier.parse(headers, body)
        assert opened == [], "no file and no connection: a call-back is read in the transaction of a request"

    @pytest.mark.parametrize("content_type", TYPES)
    @pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:20]))
    def test_what_is_no_call_back_is_a_value_error(self, notifier: Any, content_type: str, body: bytes) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            notifier.parse(headers, body)


class _SignIn:
    """One sign-in, as the core begins it."""

    def __init__(self) -> None:
        self.state, self.nonce, self.verifier = (secrets.token_urlsafe(32) for _ in range(3))
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def url(self, provider: Any) -> str:
        """Where the browser is sent."""
        return str(provider.authorization_url(REDIRECT_URI, self.state, self.nonce, self.challenge))


class IdentityProviderContract:
    """What every :class:`IIdentityProvider` has to do."""

    @pytest.fixture
    def provider(self) -> Any:
        """The identity provider."""
        raise NotImplementedError("Return your identity provider; what it talks to is stubbed.")

    @pytest.fixture
    def unavailable(self) -> Any:
        """The identity provider while what it talks to does not answer; None if it talks to nothing."""
        raise NotImplementedError("Return your identity provider with a service that does not answer, or None.")

    def consent(self, provider: Any, url: str) -> str:
        """Do as a person does, always the same one, who is sent to ``url`` and agrees."""
        raise NotImplementedError("Return the code that the stubbed service hands out to a browser sent to this URL.")

    def test_it_meets_the_interface(self, provider: Any) -> None:
        assert verifyObject(IIdentityProvider, provider)
        assert provider.title.strip(), "the button says «Sign in with ...»"

    def test_the_authorization_url_is_absolute_and_carries_what_protects_the_sign_in(self, provider: Any) -> None:
        sign_in = _SignIn()
        parts = urlsplit(sign_in.url(provider))
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        query = parse_qs(parts.query)
        assert query["redirect_uri"] == [REDIRECT_URI]
        assert query["state"] == [sign_in.state]
        assert query["code_challenge"] == [sign_in.challenge]
        assert query["code_challenge_method"] == ["S256"], "without it RFC 7636 means plain"

    def test_whoever_consents_is_identified(self, provider: Any) -> None:
        first, second = self._identify(provider), self._identify(provider)
        assert isinstance(first, Identity)
        assert first.subject
        assert first.subject == second.subject, "the subject is how the core knows the person again"
        assert "@" in first.email
        assert isinstance(first.email_verified, bool)

    def test_several_people_may_sign_in_at_once(self, provider: Any) -> None:
        assert len(set(_at_once(lambda _: self._identify(provider)))) == 1

    def test_a_code_is_good_once(self, provider: Any) -> None:
        sign_in = _SignIn()
        code = self.consent(provider, sign_in.url(provider))
        self._redeem(provider, sign_in, code=code)
        with pytest.raises(IdentityRefused):
            self._redeem(provider, sign_in, code=code)

    @pytest.mark.parametrize("wrong", ["code", "nonce", "code_verifier"])
    def test_what_belongs_to_another_sign_in_is_refused(self, provider: Any, wrong: str) -> None:
        sign_in = _SignIn()
        code = self.consent(provider, sign_in.url(provider))
        with pytest.raises(IdentityRefused):
            self._redeem(provider, sign_in, **{"code": code, wrong: secrets.token_urlsafe(32)})

    def test_a_service_that_does_not_answer_is_told_apart_from_a_refusal(self, unavailable: Any) -> None:
        if unavailable is None:
            pytest.skip("this identity provider talks to nothing")
        with pytest.raises(IdentityProviderUnavailable):
            self._redeem(unavailable, _SignIn(), code="any")

    def _identify(self, provider: Any) -> Identity:
        sign_in = _SignIn()
        return self._redeem(provider, sign_in, code=self.consent(provider, sign_in.url(provider)))

    def _redeem(self, provider: Any, sign_in: _SignIn, **given: str) -> Identity:
        given = {"nonce": sign_in.nonce, "code_verifier": sign_in.verifier, **given}
        identity: Identity = provider.identify(redirect_uri=REDIRECT_URI, **given)
        return identity


class CheckContract:
    """What every check has to do, of readiness or of the doctor (see :data:`customer_orders.interfaces.Check`)."""

    @pytest.fixture
    def check(self) -> Check:
        """The check, of something that is as it should be."""
        raise NotImplementedError("Return your check, of something that is as it should be.")

    @pytest.fixture
    def failing(self) -> Sequence[Check]:
        """The check, of each thing that can be wrong."""
        raise NotImplementedError("Return your check of each thing that can be wrong; each has to raise CheckFailed.")

    @pytest.fixture
    def untold(self) -> Sequence[str]:
        """What the check knows and must not tell: keys, secrets, names."""
        return ()

    def _failures(self, failing: Sequence[Check]) -> list[CheckFailed]:
        assert failing, "there is something that can be wrong, or there is no need for a check"
        found = []
        for check in failing:
            with pytest.raises(CheckFailed) as caught:
                check()
            found.append(caught.value)
        return found

    def test_it_says_a_sentence_or_nothing(self, check: Check) -> None:
        found = check()
        assert found is None or (isinstance(found, str) and found.strip())

    def test_it_may_be_asked_by_many_threads_and_again(self, check: Check) -> None:
        assert len(_at_once(lambda _: check())) == THREADS
        check()

    def test_what_is_wrong_is_told_in_words(self, failing: Sequence[Check]) -> None:
        for told in self._failures(failing):
            assert isinstance(told.reason, str)
            assert told.reason.strip()
            assert told.remedy is None or told.remedy.strip()

    def test_it_tells_no_secret(self, check: Check, failing: Sequence[Check], untold: Sequence[str]) -> None:
        words = [check() or ""]
        for told in self._failures(failing):
            words += [told.reason, told.remedy or ""]
        assert [word for word in untold if any(word in said for said in words)] == []
