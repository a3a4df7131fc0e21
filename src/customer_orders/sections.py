"""The core's settings, section by section: every key, what it means, its unit and its default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import colander
import phonenumbers
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from customer_orders import languages, segments, wording
from customer_orders.money import CURRENCIES
from customer_orders.quiet import QuietHours
from customer_orders.settings import MASK, InvalidSettings, Number, Sections, Switch, Words, node


def _origin(node: colander.SchemaNode, value: str) -> None:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or value != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise colander.Invalid(
            node, f"is {value!r}; write scheme and host without a path, such as https://orders.example.com"
        )


def _origins(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    for word in value:
        _origin(node, word)
        if not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", word):
            raise colander.Invalid(node, f"is {word!r}; write it as browsers do: in small letters, without wildcards")


def _database_url(node: colander.SchemaNode, value: str) -> None:
    try:
        url = make_url(value)
        name = url.drivername
    except (ArgumentError, ValueError):
        name = ""
    if name not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise colander.Invalid(node, "write sqlite:///path/to/file or postgresql+psycopg://user:password@host/database")
    if name.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise colander.Invalid(node, "an in-memory SQLite database keeps no orders; name a file")


def _masked_url(value: str) -> str:
    url = make_url(value)
    # libpq takes its passwords (password, sslpassword) in the query too
    hidden = {name: MASK for name in url.query if name.endswith("password")}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _region(node: colander.SchemaNode, value: str) -> None:
    if value not in phonenumbers.SUPPORTED_REGIONS:
        raise colander.Invalid(node, f"is {value!r}; write an ISO 3166-1 code with a phone plan, such as KE")


def _currency(node: colander.SchemaNode, value: str) -> None:
    if value not in CURRENCIES:
        raise colander.Invalid(node, f"is {value!r}; write an ISO 4217 code, such as KES")


def _grantees(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    odd = [word for word in value if not re.fullmatch(r"[^@\s]*@[^@\s]+", word)]
    if odd:
        raise colander.Invalid(node, f"{' '.join(odd)}: write e-mail addresses, or @domain for a whole domain")


def _check_template(node: colander.SchemaNode, value: str) -> None:
    try:
        wording.check(value)
    except ValueError as error:
        raise colander.Invalid(node, str(error)) from None


class Quiet(colander.SchemaType):
    """Quiet hours, as :class:`~customer_orders.quiet.QuietHours`."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        try:
            return QuietHours.parse(cstruct)
        except ValueError as error:
            message = f"is {cstruct!r}: {error}. Write two times of day and a zone, such as 21:00-08:00 Africa/Nairobi"
            raise colander.Invalid(node, message) from None


def _language(node: colander.SchemaNode, word: str) -> None:
    if not languages.is_tag(word):
        raise colander.Invalid(node, f"{word!r} is no language tag (BCP 47); write one such as sw or sw-KE")


def _template(event: str, when: str, text: str) -> colander.SchemaNode:
    """The setting of the template for an event; with ``.`` and a language tag after its key, that of a language."""
    return node(
        colander.String(allow_empty=True),
        f"Text of the SMS {when} (Jinja2): {', '.join(wording.NAMES)}. Blank: no SMS is sent for it. "
        f"template.{event}.sw, with any language tag, is for customers of that language.",
        name=f"template.{event}",
        missing=text,
        validator=_check_template,
        variant=_language,
    )


# Bytes of key that make a brute force as hard as the hash: RFC 7518, section 3.2.
KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
MAKE_A_KEY = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(64))'"


PLACEHOLDER = re.compile("change.?me|placeholder|example|replace|your.?(key|secret)|insert", re.IGNORECASE)


def _signing_key(node: colander.SchemaNode, value: str) -> None:
    if len(set(value)) < 12 or PLACEHOLDER.search(value):
        raise colander.Invalid(node, f"looks like a placeholder, not a random key. {MAKE_A_KEY}")


MAKE_A_WORD = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


def _report_secrets(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    if len(value) > 2:
        raise colander.Invalid(node, "holds more than two; two are good at once, while you change it")
    for number, word in enumerate(value, 1):
        # not repeated: it may be a good one but for a slip
        which = f"number {number} " if len(value) > 1 else ""
        if not re.fullmatch("[A-Za-z0-9_-]+", word):
            raise colander.Invalid(node, f"{which}holds what an address cannot; write letters, digits, - and _ only")
        # 128 bits: a letter of base64 has six, of hexadecimal four
        least = 32 if re.fullmatch("[0-9A-Fa-f]+", word) else 22
        if not least <= len(word) <= 255:
            raise colander.Invalid(node, f"{which}is not {least} to 255 characters long. {MAKE_A_WORD}")
        if len(set(word)) < 8 or PLACEHOLDER.search(word):
            raise colander.Invalid(node, f"{which}looks like a placeholder, not a random secret. {MAKE_A_WORD}")


class Top(colander.MappingSchema):
    """Settings without a section."""

    plugins = node(
        Words(), "Names of the plugins to switch on; an installed plugin not named here is inert.", missing=()
    )


class App(colander.MappingSchema):
    """The deployment as the world sees it."""

    public_url = node(
        colander.String(),
        "Scheme and host at which browsers and providers reach this service; every absolute URL is built from it.",
        validator=_origin,
        how="is required: the address at which browsers reach this service, such as https://orders.example.com",
    )


class Sqlalchemy(colander.MappingSchema):
    """The database."""

    url = node(
        colander.String(),
        "Address of the database: sqlite:///file or postgresql+psycopg://user:password@host/database.",
        validator=_database_url,
        mask=_masked_url,
        how="is required: sqlite:///path/to/file or postgresql+psycopg://user:password@host/database",
    )
    pool_size = node(Number(1, 1000), "Connections each process keeps open.", missing=10)
    max_overflow = node(Number(0, 1000), "Connections each process may open beyond the pool.", missing=10)
    pool_timeout = node(Number(1, 300), "Seconds a request waits for a connection before it gets a 503.", missing=10)


class Jwt(colander.MappingSchema):
    """Access tokens."""

    private_key = node(
        colander.String(),
        "The key that signs access tokens: random, at least as long as the algorithm's hash.",
        validator=_signing_key,
        secret=True,
        how=f"is required: the key that signs access tokens. {MAKE_A_KEY}",
    )
    algorithm = node(
        colander.String(),
        "HS256, HS384 or HS512.",
        missing="HS512",
        validator=colander.OneOf(list(KEY_BYTES)),
    )
    expiration = node(Number(10, 86400), "Seconds for which an access token is good.", missing=900)

    def check(self, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """The key is at least as long as the algorithm's hash. ``values``: those that are valid by themselves."""
        if {"private_key", "algorithm"} <= values.keys():
            needed = KEY_BYTES[values["algorithm"]]
            if len(values["private_key"].encode()) < needed:
                yield "private_key", f"is shorter than the {needed} bytes of {values['algorithm']}. {MAKE_A_KEY}"


class Auth(colander.MappingSchema):
    """Who may do what."""

    admins = node(Words(), "E-mail addresses, or @domains, whose owners are admins.", missing=(), validator=_grantees)
    clerks = node(Words(), "E-mail addresses, or @domains, whose owners are clerks.", missing=(), validator=_grantees)
    default_role = node(
        colander.String(),
        "Role of whoever signs in and is named nowhere: viewer, clerk, admin, or none to refuse them.",
        missing="none",
        validator=colander.OneOf(["none", "viewer", "clerk", "admin"]),
    )
    sign_in_seconds = node(Number(30, 3600), "Seconds a person has to finish signing in.", missing=600)
    refresh_seconds = node(
        Number(60, 31536000), "Seconds for which an unused refresh token is good.", missing=30 * 86400
    )


class Api(colander.MappingSchema):
    """The HTTP surface."""

    max_body = node(Number(1024, 10485760), "Largest request body, in bytes.", missing=65536)
    idempotency_seconds = node(
        Number(60, 31536000),
        "Seconds for which an Idempotency-Key and its answer are kept.",
        missing=86400,
    )
    require_if_match = node(
        Switch(),
        "Whether PUT, PATCH and DELETE have to say by If-Match which version they change.",
        missing=False,
    )
    cors_origins = node(
        Words(),
        "Origins whose pages may call the API from a browser, such as https://shop.example.com.",
        missing=(),
        validator=_origins,
    )


class Phone(colander.MappingSchema):
    """Phone numbers."""

    default_region = node(
        colander.String(),
        "Region (ISO 3166-1) in which a number without a country code is read.",
        missing="KE",
        validator=_region,
    )


class Orders(colander.MappingSchema):
    """Orders."""

    currency = node(
        colander.String(),
        "Currency (ISO 4217) of an order that names none.",
        missing="KES",
        validator=_currency,
    )


class Notifications(colander.MappingSchema):
    """Messages to customers."""

    sms = node(
        colander.String(),
        "The notifier that sends SMS: the name of a plugin. Blank: no SMS is sent, and each order says so.",
        missing=None,
        refers_to="notifiers",
    )
    dispatcher = node(
        colander.String(),
        "What delivers: embedded (threads in each web process), worker (processes of their own), or a plugin's.",
        missing="embedded",
        refers_to="dispatchers",
    )
    template_order_placed = _template(
        "order_placed", "for a new order", "Your order has been created. Thank you for shopping with us!"
    )
    template_order_confirmed = _template(
        "order_confirmed", "when an order is confirmed", "Your order no. {{ order.id }} has been confirmed."
    )
    template_order_fulfilled = _template(
        "order_fulfilled",
        "when an order is fulfilled",
        "Your order no. {{ order.id }} has been fulfilled. Thank you for shopping with us!",
    )
    template_order_cancelled = _template(
        "order_cancelled", "when an order is cancelled", "Your order no. {{ order.id }} has been cancelled."
    )
    max_segments = node(
        Number(1, 255),
        "Segments of 153 characters (67, if some are not in GSM's alphabet) that a message may take; one that would "
        "take more has failed.",
        missing=6,
    )
    quiet_hours = node(
        Quiet(),
        "Hours of each day in which no SMS is sent, such as 21:00-08:00 Africa/Nairobi; what is queued in them is "
        "sent afterwards. Blank: there are none.",
        missing=None,
    )
    poll_interval = node(Number(1, 3600), "Seconds between two looks for messages that are due.", missing=2)
    lease = node(Number(5, 3600), "Seconds after which an unfinished attempt counts as abandoned.", missing=60)
    max_attempts = node(Number(1, 100), "Attempts after which a message has failed.", missing=10)
    retry_base = node(Number(1, 3600), "Seconds of the first wait between attempts, doubled each time.", missing=5)
    retry_cap = node(Number(1, 86400), "Longest wait between two attempts, in seconds.", missing=3600)
    deadline = node(
        Number(60, 2592000), "Seconds after which a message that could not be sent has failed.", missing=72 * 3600
    )
    unknown_after = node(
        Number(60, 2592000),
        "Seconds that a message which may or may not have been sent waits for its delivery report.",
        missing=86400,
    )
    retry_unknown = node(
        colander.String(),
        "What happens then: never (it stays unknown), or once (it is sent again, perhaps for the second time).",
        missing="never",
        validator=colander.OneOf(["never", "once"]),
    )
    pause_base = node(
        Number(1, 3600),
        "Seconds of the first pause of a notifier whose provider is down, doubled each time.",
        missing=5,
    )
    pause_cap = node(Number(1, 86400), "Longest such pause, in seconds.", missing=300)
    concurrency = node(Number(1, 1000), "Messages that one process sends at a time.", missing=4)
    report_secrets = node(
        Words(),
        "The secret in the address to which a provider sends delivery reports, "
        "app.public_url and /api/notifications/reports/{notifier}/{secret}; two while you change it, both are good. "
        f"Blank: no report is taken, and no message expires for want of one. {MAKE_A_WORD}.",
        missing=(),
        validator=_report_secrets,
        secret=True,
    )
    report_deadline = node(
        Number(60, 30 * 86400),
        "Seconds after which a message counts as expired if no report says what became of it.",
        missing=72 * 3600,
    )

    def check(self, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """A text that is always the same is not too long. ``values``: those that are valid by themselves."""
        # one that is wrong itself is told already
        most = values.get("max_segments", 255)
        for name, source in values.items():
            text = wording.fixed(source) if name.startswith("template.") else None
            if text is not None and (takes := segments.size(text)).segments > most:
                said = f"takes {takes.segments} segments in {takes.encoding}, and notifications.max_segments is {most}"
                yield name, f"{said}. Shorten the text, or raise that"


CORE: dict[str, type[colander.SchemaNode]] = {
    "": Top,
    "app": App,
    "sqlalchemy": Sqlalchemy,
    "jwt": Jwt,
    "auth": Auth,
    "api": Api,
    "phone": Phone,
    "orders": Orders,
    "notifications": Notifications,
}

# Settings of the libraries underneath that are ours to choose, not the operator's: the code relies on them.
LIBRARIES = {
    # these log whole paths, and there is a path with a secret in it
    "debug_authorization": False,
    "debug_notfound": False,
    "debug_routematch": False,
    "handle_exceptions": False,
    "tm.annotate_user": False,
    "tm.commit_veto": "pyramid_tm.default_commit_veto",
    "tm.manager_hook": "pyramid_tm.explicit_manager",
    "retry.attempts": 3,
}


def includeme(config: Any) -> None:
    """Read the core's sections; what is wrong is told together with what is wrong in the plugins'."""
    settings = config.get_settings()
    settings.update(LIBRARIES)
    sections = config.registry.sections = Sections(dict(settings), os.environ)
    for name, schema in CORE.items():
        # a plugin that claims the same section is a conflict
        config.action(("settings", name), None)
        with suppress(InvalidSettings):
            sections.add(name, schema)
