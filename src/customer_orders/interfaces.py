"""The whole plugin contract, on one page. A plugin imports this module and nothing else of the core.

A plugin is a distribution with an entry point::

    [options.entry_points]
    customer_orders.plugins =
        pigeon = customer_orders_pigeon:includeme

and an ``includeme(config)`` that calls one or more of these directives:

``config.plugin_settings(name, Schema)``
    Reads the section ``name.*`` by a colander schema and returns it, attributes named as its nodes (dots become
    underscores). An INI key ``name.api_key`` is overridden by the variable ``NAME_API_KEY``, and by the file named
    in ``NAME_API_KEY_FILE``. Mark a node ``secret=True``, and it is never printed, and no placeholder is taken for
    it. What else speaks against starting,
    ``includeme`` tells by a ``pyramid.exceptions.ConfigurationError``.
``config.add_notifier(name, notifier)``
    Offers an :class:`INotifier`; a deployment chooses it by ``notifications.sms = name``. One that provides
    :class:`IDeliveryReports` too is told what its provider posts to ``/api/notifications/reports/{name}/{secret}``.
``config.add_identity_provider(name, provider)``
    Offers an :class:`IIdentityProvider` at ``/api/{name}-oauth2/redirect/``.
``config.add_dispatcher(name, dispatcher)``
    Offers an :class:`IDispatcher`; a deployment chooses it by ``notifications.dispatcher = name``.
``config.add_readiness_check(name, check)``
    Asked at each ``GET /readyz``, whose answer anyone may read: while it fails the process gets no requests. So it
    is about this process alone, answers at once, and asks nobody by network: "my thread lives", say.
``config.add_doctor_check(name, check)``
    Asked when an operator runs ``customer-orders doctor``; it may ask the provider, within a time-out of its own.
    With ``online=False`` it asks nobody outside the deployment, and runs with ``doctor --offline`` too.

A check (:data:`Check`) is a callable without arguments. It returns a sentence on what it found, or None, and raises
:class:`CheckFailed` if something is not as it should be. It changes nothing, and may be asked at any time, by any
thread. It is shown under the plugin's name and its own: ``pigeon.loft``.

A whole notifier::

    @implementer(INotifier)
    class Pigeon:
        def __init__(self, loft):
            self.loft = loft

        def send(self, message):
            try:
                ring = self.loft.release(message.to, message.text, timeout=10)
            except LoftClosed as error:
                raise Unavailable("the loft is closed") from error
            return Receipt(ring)

    def includeme(config):
        settings = config.plugin_settings("pigeon", PigeonSettings)
        pigeon = Pigeon(Loft(settings.address))
        config.add_notifier("pigeon", pigeon)
        config.add_doctor_check("loft", pigeon.check_loft)

``@implementer`` is ``zope.interface``'s; an object that does not say which interface it meets, or does not meet it,
fails at start. :mod:`customer_orders.testing` holds the tests that every plugin has to pass, to inherit.

``includeme`` runs once for each application and does no network I/O. Objects may be called from many threads.
State, nonce, PKCE, users, tokens, retries, leases, deduplication and phone numbers are the core's work.
"""

# mypy: disable-error-code="empty-body,misc"
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from unicodedata import category

from zope.interface import Attribute, Interface

__all__ = [
    "ChannelDown",
    "Check",
    "CheckFailed",
    "Cost",
    "IDeliveryReports",
    "IDispatcher",
    "IIdentityProvider",
    "INotifier",
    "IOutbox",
    "Identity",
    "IdentityProviderUnavailable",
    "IdentityRefused",
    "Message",
    "NotSent",
    "OptOut",
    "Receipt",
    "Rejected",
    "Report",
    "Unavailable",
    "Uncertain",
]


@dataclass(frozen=True)
class Message:
    """One message to one person.

    :param key: stable for a notification over all its attempts: an idempotency key, for providers that have one.
    :param channel: ``sms``.
    :param to: the address; for ``sms`` an E.164 number, already validated.
    :param text: the words, already rendered.
    :param subject: for channels that have one.
    :param language: BCP 47 tag of the text, if known.
    """

    key: str
    channel: str
    to: str
    text: str
    subject: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Cost:
    """What the provider charges: ``amount`` with up to four decimal places, ``currency`` in ISO 4217."""

    amount: Decimal
    currency: str


@dataclass(frozen=True)
class Receipt:
    """The provider took the message. ``cost`` is None if not told.

    :param reference: the provider's own id of this one message; what it reports later is bound to the message by it.
    """

    reference: str
    cost: Cost | None = None


@dataclass(frozen=True)
class Report:
    """What a delivery report says, in our words.

    :param reference: the provider's own id of the message, as in its :class:`Receipt`.
    :param status: ``sent`` (on its way), or what became of it: ``delivered``, ``failed``, or ``expired`` (given up
        after some time).
    :param reason: why it failed; it is kept and shown to staff: no secret, no text, no number.
    :param to: the recipient, if the report names one; for ``sms`` in E.164. It helps where the reference is not known.

    Raises ``ValueError`` if these could not be kept: each is printable, and at most 255 characters long.
    """

    reference: str
    status: str
    reason: str | None = None
    to: str | None = None

    def __post_init__(self) -> None:
        if self.status not in ("sent", "delivered", "failed", "expired"):
            raise ValueError("a report says sent, delivered, failed or expired")
        for told in (self.reference, *(told for told in (self.reason, self.to) if told is not None)):
            if not isinstance(told, str) or not 1 <= len(told) <= 255 or not told.isprintable():
                raise ValueError("what a report tells is printable, 1 to 255 characters long")


@dataclass(frozen=True)
class OptOut:
    """A person wants no more messages, and told the provider so (by STOP, for example). ``to``: in E.164.

    Raises ``ValueError`` if it is not.
    """

    to: str

    def __post_init__(self) -> None:
        if not isinstance(self.to, str) or not re.fullmatch(r"\+[1-9][0-9]{6,14}", self.to):
            raise ValueError("an opt-out names a number in E.164")


@dataclass(frozen=True)
class Identity:
    """Who signed in.

    :param subject: the provider's stable id of the person, 1 to 255 characters; never an e-mail address that can
        change hands.
    :param email_verified: exactly what the provider says; roles by e-mail need it to be true.
    :param domain: the organisation that the provider vouches for (Google's ``hd``), never cut out of the e-mail
        by guesswork.

    Raises :class:`IdentityRefused` if no account could be kept by it.
    """

    subject: str
    email: str
    email_verified: bool
    name: str
    domain: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.subject, str) or not 1 <= len(self.subject) <= 255:
            raise IdentityRefused("the provider names no subject of 1 to 255 characters")
        for what in ("email", "name"):
            if not isinstance(getattr(self, what), str):
                raise IdentityRefused(f"the provider tells no {what} of the person; was it asked for that scope?")
        # Cc: NUL and the other control characters; Cs: lone surrogates. No database takes them all.
        if any(category(character) in ("Cc", "Cs") for character in self.subject + self.email + self.name):
            raise IdentityRefused("what the provider says of the person holds control characters")


class NotSent(Exception):
    """Base of what :meth:`INotifier.send` may raise. ``reason`` is kept with the attempt: no secret, no text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Rejected(NotSent):
    """Permanent for this recipient: never retried. ``suppressed``: the provider blocklists the recipient."""

    def __init__(self, reason: str, *, suppressed: bool = False) -> None:
        super().__init__(reason)
        self.suppressed = suppressed


class Unavailable(NotSent):
    """Certainly not sent; worth another try. ``retry_after``: seconds the provider asks for, if it does."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ChannelDown(NotSent):
    """The account or the provider is down: nobody's message would pass. Burns no attempt."""


class Uncertain(NotSent):
    """May or may not have been sent: becomes ``unknown`` and is never silently sent again."""


class IdentityRefused(Exception):
    """The provider's answer proves no identity. The text goes to the log, not to the person."""


class IdentityProviderUnavailable(Exception):
    """The provider does not answer in time, or answers nonsense; signing in later may work."""


class CheckFailed(Exception):
    """A check found something that is not as it should be.

    :param reason: what is wrong, in a sentence. Operators read it, and of a readiness check anyone: no secret, nobody's
        name or number, nothing of another exception's text.
    :param remedy: what to do about it.
    :param warning: whether all works in spite of it, for now.
    """

    def __init__(self, reason: str, *, remedy: str | None = None, warning: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.warning = reason, remedy, warning


# What is found, in a sentence, or None; raises CheckFailed.
Check = Callable[[], str | None]


class INotifier(Interface):
    """Sends messages.

    It may have an attribute ``timeout``: the seconds that one :meth:`send` takes at most. The core then checks at start
    that they are within a third of ``notifications.lease``.
    """

    def send(message: Message) -> Receipt:
        """Send, within a time-out of the notifier's own.

        Raises :class:`Rejected`, :class:`Unavailable`, :class:`ChannelDown` or :class:`Uncertain`; anything else
        counts as :class:`Uncertain`, since nothing says that the message was not sent. Called from several threads,
        and never inside a database transaction.
        """


class IDeliveryReports(Interface):
    """Optional, for a notifier whose provider calls back: the same object provides both.

    The core alone checks who calls, and decides what a report changes: they may come twice, in any order, and before
    :meth:`INotifier.send` has returned.
    """

    def parse(headers: Mapping[str, str], body: bytes) -> Sequence[Report | OptOut]:
        """Read a call-back: a form or JSON, of at most 4 KiB.

        ``headers``: names are written as in ``Content-Type``. Empty if it is understood and of no interest.
        Pure: no I/O, and the same again for the same. Raises ``ValueError``, and nothing else, for what is not a
        call-back of the provider's.
        """


class IIdentityProvider(Interface):
    """Signs people in by a redirect and a call-back (OAuth 2.0 authorization code with PKCE, RFC 7636)."""

    title = Attribute("What the button says, as in «Sign in with {title}».")

    def authorization_url(redirect_uri: str, state: str, nonce: str, code_challenge: str) -> str:
        """The address to send the browser to. ``code_challenge`` is S256."""

    def identify(redirect_uri: str, code: str, nonce: str, code_verifier: str) -> Identity:
        """Redeem the code, within a time-out of the provider's own, and check the nonce.

        Raises :class:`IdentityRefused` or :class:`IdentityProviderUnavailable`.
        """


class IOutbox(Interface):
    """What a dispatcher is given. The guarantees are in the rows: any number of dispatchers may work on them."""

    def due(limit: int) -> Sequence[int]:
        """Ids of notifications to deliver now, oldest first, at most ``limit``."""

    def deliver(notification_id: int) -> None:
        """Claim, send and record one. Does nothing if another got there first."""

    def sweep() -> None:
        """Delete what was kept long enough. For a dispatcher to call every minute or so; calling it less only costs
        space.
        """


class IDispatcher(Interface):
    """Decides when and where :meth:`IOutbox.deliver` is called."""

    def start(outbox: IOutbox) -> None:
        """Begin, in a process that serves. Called after any fork, at most once a process."""

    def hint(ids: Sequence[int]) -> None:
        """These were just committed. Must return at once; a lost hint may cost time, never a message."""

    def stop() -> None:
        """Finish what is in flight and return."""
