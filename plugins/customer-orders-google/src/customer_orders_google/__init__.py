"""Signing in with Google, or with another OpenID provider that ``google.issuer`` names (OpenID Connect Core 1.0)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import colander

from customer_orders_google.checks import Checks
from customer_orders_google.id_token import GOOGLE
from customer_orders_google.provider import Google


def _issuer(node: colander.SchemaNode, value: str) -> None:
    try:
        parts = urlsplit(value)
        sound = bool(re.fullmatch("https://[!-~]+", value) and parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    # Discovery, section 3: scheme, host, optionally port and path, and nothing else
    if not sound or re.search("[?#@]", value) or value == f"{GOOGLE}/":
        raise colander.Invalid(node, f"is {value!r}; write the provider's issuer, such as {GOOGLE}")


def _domains(value: Any) -> Any:
    return tuple(value.lower().replace(",", " ").split()) if isinstance(value, str) else value


def _are_domains(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    odd = [word for word in value if not re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]+", word)]
    # a list that came out empty must not let everybody in
    if odd or not value:
        raise colander.Invalid(
            node, f"{' '.join(odd) or 'names none'}: write domains, such as shop.example, without @ or *"
        )


def _seconds(title: str, default: int) -> colander.SchemaNode:
    return colander.SchemaNode(colander.Integer(), title=title, missing=default, validator=colander.Range(1, 60))


class GoogleSettings(colander.MappingSchema):
    """Settings of the sign-in with Google."""

    client_id = colander.SchemaNode(
        colander.String(),
        title="The OAuth client's id.",
        how="is required: the id of an OAuth client of type Web application, from the Google Cloud console",
    )
    client_secret = colander.SchemaNode(
        colander.String(),
        title="The OAuth client's secret.",
        secret=True,
        how="is required: the secret of that OAuth client; set the variable, or mount a file",
    )
    hosted_domains = colander.SchemaNode(
        colander.String(),
        title="Google Workspace domains whose members alone may sign in; blank: anyone with a Google account may try.",
        missing=(),
        preparer=_domains,
        validator=_are_domains,
    )
    issuer = colander.SchemaNode(
        colander.String(),
        title="The OpenID provider: Google, or another one that knows Google's scopes.",
        missing=GOOGLE,
        validator=_issuer,
    )
    connect_timeout = _seconds("Seconds to reach the provider.", 5)
    read_timeout = _seconds("Seconds for each whole answer of the provider.", 5)


def includeme(config: Any) -> None:
    """Register the identity provider. Google is not asked before somebody signs in."""
    settings = config.plugin_settings("google", GoogleSettings)
    google = Google(
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        hosted_domains=settings.hosted_domains,
        issuer=settings.issuer,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
    )
    config.add_identity_provider("google", google)
    checks = Checks(google)
    config.add_doctor_check("discovery", checks.discovery)
    config.add_doctor_check("clock", checks.clock)
    config.add_doctor_check("client", checks.client)
