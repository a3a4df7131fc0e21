"""Sends SMS by Africa's Talking (https://africastalking.com), by its own SDK on bounded connections."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

import colander

from customer_orders_africastalking.account import Account
from customer_orders_africastalking.notifier import AfricasTalking

ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[0-9]{1,5})?", re.IGNORECASE)

# Ranges of characters, in words: any header and any form takes them as they are.
ALLOWED = {
    "!-~": "ASCII letters, digits and punctuation, without spaces",
    " -~": "ASCII letters, digits, punctuation and spaces",
}


class Whole(colander.SchemaType):
    """A whole number from 1, of at most nine ASCII digits."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if not re.fullmatch("[1-9][0-9]{0,8}", cstruct):
            raise colander.Invalid(node, f"is {cstruct!r}; write a whole number, such as 500")
        return int(cstruct)


class Seconds(colander.SchemaType):
    """A whole number of seconds from 1 to ``most``, written in ASCII digits."""

    def __init__(self, most: int) -> None:
        self.most = most

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if not re.fullmatch("[0-9]{1,9}", cstruct) or not 1 <= int(cstruct) <= self.most:
            raise colander.Invalid(node, f"is {cstruct!r}; write a whole number of seconds from 1 to {self.most}")
        return int(cstruct)


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _endpoint(node: colander.SchemaNode, value: str) -> None:
    try:
        parts = urlsplit(value)
        sound = bool(ORIGIN.fullmatch(value)) and parts.port != 0
    except ValueError:
        sound = False
    # not repeated: there may be a password in it
    if not sound:
        raise colander.Invalid(
            node,
            "is not the address of a server; write scheme and host, optionally a port, and nothing after it, "
            "such as https://api.africastalking.com",
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise colander.Invalid(
            node, f"would send the API key unencrypted; write https://{parts.netloc}, or leave it blank"
        )


def _plain(what: str, allowed: str = "!-~") -> Any:
    """A validator: nothing but characters of one of the ranges that are :data:`ALLOWED`."""

    def validate(node: colander.SchemaNode, value: str) -> None:
        # not repeated: it may be a secret
        if not re.fullmatch(f"[{allowed}]{{1,255}}", value):
            raise colander.Invalid(node, f"holds what no {what} has; write {ALLOWED[allowed]}, at most 255 characters")

    return validate


class AfricasTalkingSettings(colander.MappingSchema):
    """The account at Africa's Talking, and how long to wait for it."""

    username = colander.SchemaNode(
        colander.String(),
        title="User name of the app at Africa's Talking; sandbox sends to the simulator only.",
        validator=_plain("user name"),
        how="is required: the user name of your app at Africa's Talking, or sandbox to send to its simulator",
    )
    api_key = colander.SchemaNode(
        colander.String(),
        title="The app's API key.",
        validator=_plain("API key"),
        secret=True,
        how="is required: the API key from the app's page Settings > API Key; set the variable, or mount a file",
    )
    sender_id = colander.SchemaNode(
        colander.String(),
        title="Sender id or short code that is registered for the app. Blank: Africa's Talking's own.",
        validator=_plain("sender id", " -~"),
        missing=None,
    )
    endpoint = colander.SchemaNode(
        colander.String(),
        title="Scheme and host of the API, before /version1. Blank: what the user name calls for.",
        validator=_endpoint,
        missing=None,
    )
    connect_timeout = colander.SchemaNode(
        Seconds(10), title="Seconds to reach an address of the API, and again for the TLS handshake.", missing=2
    )
    read_timeout = colander.SchemaNode(
        Seconds(30),
        title="Seconds for the whole answer; with three times connect_timeout within a third of notifications.lease.",
        missing=14,
    )
    low_balance = colander.SchemaNode(
        Whole(),
        title="Balance, in the account's currency, below which `customer-orders doctor` warns. Blank: it never does.",
        missing=None,
    )


def includeme(config: Any) -> None:
    """Register the notifier. Africa's Talking is not asked before the first message."""
    settings = config.plugin_settings("africastalking", AfricasTalkingSettings)
    notifier = AfricasTalking(
        username=settings.username,
        api_key=settings.api_key,
        sender_id=settings.sender_id,
        endpoint=settings.endpoint,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
    )
    config.add_notifier("africastalking", notifier)
    account = Account(notifier.account, settings.low_balance, sandbox=settings.username == "sandbox")
    config.add_doctor_check("account", account.check)
