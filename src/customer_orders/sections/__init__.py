"""The core's settings, section by section: every key, what it means, its unit and its default."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import colander
import phonenumbers
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from customer_orders.addresses import TrustedProxies
from customer_orders.money import CURRENCIES
from customer_orders.sections.access import Auth, Jwt
from customer_orders.sections.limiting import Limits
from customer_orders.sections.listening import addresses
from customer_orders.sections.measuring import Metrics
from customer_orders.sections.messages import Notifications
from customer_orders.sections.retention import Retention
from customer_orders.sections.secret import masked_url, passwords_in
from customer_orders.sections.tracing import Tracing
from customer_orders.settings import InvalidSettings, Number, Sections, Switch, Words, node


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


def _proxies(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    try:
        TrustedProxies(value)
    except ValueError as error:
        raise colander.Invalid(node, str(error)) from None


def _region(node: colander.SchemaNode, value: str) -> None:
    if value not in phonenumbers.SUPPORTED_REGIONS:
        raise colander.Invalid(node, f"is {value!r}; write an ISO 3166-1 code with a phone plan, such as KE")


def _currency(node: colander.SchemaNode, value: str) -> None:
    if value not in CURRENCIES:
        raise colander.Invalid(node, f"is {value!r}; write an ISO 4217 code, such as KES")


def _commit(node: colander.SchemaNode, value: str) -> None:
    if not re.fullmatch("[0-9a-f]{7,64}", value):
        raise colander.Invalid(node, f"is {value!r}; write a commit as `git rev-parse HEAD` prints it")


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
    hsts_seconds = node(
        Number(0, 63072000),
        "Seconds for which browsers shall reach this host by https only (RFC 6797), such as 31536000, a year; they "
        "remember. Sent where app.public_url is https. 0: not sent.",
        missing=0,
    )
    trusted_proxies = node(
        Words(),
        "Addresses or networks of the proxies in front, such as 10.0.0.5 or 10.1.0.0/16, or unix for one that calls by "
        "a Unix socket. These alone are believed about where a request comes from (X-Forwarded-For).",
        missing=(),
        validator=_proxies,
    )
    commit = node(
        colander.String(),
        "The commit that this was built from, for GET /api/version; the build tells it by the variable. Blank: none.",
        missing=None,
        validator=_commit,
    )


class Sqlalchemy(colander.MappingSchema):
    """The database."""

    url = node(
        colander.String(),
        "Address of the database: sqlite:///file or postgresql+psycopg://user:password@host/database.",
        validator=_database_url,
        mask=masked_url,
        secrets_in=passwords_in,
        how="is required: sqlite:///path/to/file or postgresql+psycopg://user:password@host/database",
    )
    pool_size = node(Number(1, 1000), "Connections each process keeps open.", missing=10)
    max_overflow = node(Number(0, 1000), "Connections each process may open beyond the pool.", missing=10)
    pool_timeout = node(Number(1, 300), "Seconds a request waits for a connection before it gets a 503.", missing=10)


class Migrations(colander.MappingSchema):
    """`customer-orders db upgrade` on PostgreSQL, while others use the database."""

    lock_timeout = node(
        Number(1, 3600),
        "Seconds for which it waits for a lock, requests behind it; then it gives way, for as long, and tries again. "
        "Less than sqlalchemy.pool_timeout, or they get a 503 meanwhile.",
        missing=5,
    )
    attempts = node(Number(1, 1000), "Tries before it gives up, with the database as it was.", missing=10)


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


class Server(colander.MappingSchema):
    """The server for production, `customer-orders serve`. What `pserve` runs has [server:main]."""

    listen = node(
        Words(),
        "Address and port to serve at. `pserve` takes several from the variable, with white space between.",
        missing=("127.0.0.1:6543",),
        validator=addresses,
    )
    workers = node(Number(1, 256), "Processes that serve.", missing=1)
    threads = node(Number(1, 256), "Requests that each of them works on at a time.", missing=8)
    backpressure = node(
        Number(1, 65536),
        "Connections that each of them holds at a time, also those that are kept open between two requests; beyond "
        "them, new ones wait until one ends.",
        missing=512,
    )
    backlog = node(Number(128, 65536), "Connections that wait to be taken in.", missing=1024)
    header_seconds = node(
        Number(1, 300),
        "Seconds in which a request's head has to come, the next one of a connection too, or that is closed.",
        missing=15,
    )
    header_bytes = node(Number(8192, 1048576), "Largest head of a request, in bytes.", missing=32768)
    unready_seconds = node(
        Number(0, 3600),
        "Seconds for which, told to stop, it takes requests in while /readyz says that it is draining: as long as the "
        "proxies in front need to notice. A second SIGTERM, or SIGINT, cuts them short.",
        missing=0,
    )
    drain_seconds = node(
        Number(1, 3600), "Seconds that requests under way have to finish when it is told to stop.", missing=30
    )


CORE: dict[str, type[colander.SchemaNode]] = {
    "": Top,
    "app": App,
    "sqlalchemy": Sqlalchemy,
    "migrations": Migrations,
    "jwt": Jwt,
    "auth": Auth,
    "api": Api,
    "limits": Limits,
    "phone": Phone,
    "orders": Orders,
    "notifications": Notifications,
    "retention": Retention,
    "server": Server,
    "tracing": Tracing,
    "metrics": Metrics,
}

# Settings of the libraries underneath that are ours to choose, not the operator's: the code relies on them.
LIBRARIES = {
    # these log whole paths, and there is a path with a secret in it
    "debug_authorization": False,
    "debug_notfound": False,
    "debug_routematch": False,
    "handle_exceptions": False,
    # what users typed is shown as text
    "jinja2.autoescape": True,
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
