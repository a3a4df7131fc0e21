"""Checks of the public address: that it is one, and that it leads here."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from customer_orders.addresses import is_loopback
from customer_orders.checks import Skipped
from customer_orders.doctor.deployment import Deployment
from customer_orders.interfaces import CheckFailed, IDeliveryReports

# Seconds to connect, and again for each part of an answer.
TIMEOUT = 5
# Bytes of an answer: ours are shorter.
MOST = 64 * 1024
MEND = "Mend app.public_url, the name's DNS, or the proxy in front."


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


def check_address(deployment: Deployment) -> str:
    """Tokens and secrets travel encrypted."""
    url = deployment.section("app").public_url
    parts = urlsplit(url)
    if parts.scheme == "https":
        return f"{url} is https."
    if is_loopback(parts.hostname or ""):
        return f"{url} is this machine only."
    raise CheckFailed(
        f"app.public_url is {url}: tokens, and what providers report, travel in the clear.",
        remedy="Have a proxy in front speak https, and write app.public_url so.",
    )


def check_reachable(deployment: Deployment) -> str:
    """Who calls the public address gets to this very deployment, in this version."""
    url = deployment.section("app").public_url
    answer = _get(url, "/api/", url)
    told = _object(answer)
    if not told:
        raise CheckFailed(f"{url}/api/ answers with {answer.status}, and with nothing of ours.", remedy=MEND)
    links = told.get("links")
    here = f"{url}/api/api.json"
    if told.get("name") != "Customer Orders" or not isinstance(links, dict):
        raise CheckFailed(f"{url}/api/ is something else than Customer Orders.", remedy=MEND)
    if links.get("document") != here:
        raise CheckFailed(
            f"{url} leads to another deployment, which calls itself {str(links.get('document'))[:100]}.", remedy=MEND
        )
    ours = version("customer-orders")
    if told.get("version") != ours:
        raise CheckFailed(
            f"{url} runs version {str(told.get('version'))[:20]}, and this is {ours}.",
            remedy="Restart what serves there, unless this is just being rolled out.",
            warning=True,
        )
    return f"{url} leads here, and runs {ours}."


def check_ready(deployment: Deployment) -> str:
    """The process that serves says that it is ready; nobody else knows of its threads."""
    url = deployment.section("app").public_url
    answer = _get(url, "/readyz", f"{url}/readyz")
    if answer.status not in (200, 503):
        raise Skipped(f"{url}/readyz is kept from the public, or leads elsewhere: it answers with {answer.status}.")
    told = _object(answer).get("checks")
    checks = told if isinstance(told, dict) else {}
    wrong = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    if answer.status == 503 or wrong:
        said = "\n".join([f"{url}/readyz answers with {answer.status}.", *wrong])
        raise CheckFailed(said, remedy="Mend that, or restart the process.", warning=answer.status == 200)
    return f"Well, by its own account: {', '.join(checks)}."


def check_report_url(deployment: Deployment) -> str:
    """The address to which the provider reports leads here, with each of the secrets."""
    url, settings = deployment.section("app").public_url, deployment.section("notifications")
    notifier = deployment.plugins.notifiers.get(settings.sms)
    if not settings.report_secrets or not IDeliveryReports.providedBy(notifier):
        raise Skipped("No delivery reports are taken.")
    try:
        check_address(deployment)
        check_reachable(deployment)
    except CheckFailed as told:
        if not told.warning:
            raise CheckFailed(
                f"Not tried, since somebody else would get to know the secret. {told.reason}", remedy=told.remedy
            ) from told
    path = f"/api/notifications/reports/{settings.sms}"
    # as masking shows it
    shown = f"{url}{path}/{{secret}}"
    for secret in settings.report_secrets:
        # reads nothing and changes nothing: a secret that is good gets "not this method", any other "not found"
        status = _get(url, f"{path}/{secret}", shown).status
        if status != 405:
            raise CheckFailed(
                f"{shown} answers with {status}, as if the secret were wrong.",
                remedy="Restart what serves there, with the same notifications.report_secrets; and have the proxy pass "
                "the path on.",
            )
    return f"{shown} leads here."


def _get(url: str, path: str, shown: str) -> Answer:
    """What a path answers; no redirect is followed. Raises ``CheckFailed``.

    :param shown: the address as it may be told.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    # a label that is too long is a UnicodeError
    except (OSError, UnicodeError) as error:
        raise CheckFailed(f"No address is known of {host}.", remedy=MEND) from error
    made = (
        HTTPSConnection(host, parts.port, timeout=TIMEOUT, context=ssl.create_default_context())
        if parts.scheme == "https"
        else HTTPConnection(host, parts.port, timeout=TIMEOUT)
    )
    try:
        with closing(made) as connection:
            connection.request(
                "GET", path, headers={"Accept": "application/json", "User-Agent": "customer-orders-doctor"}
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(MOST))
    except ssl.SSLCertVerificationError as error:
        raise CheckFailed(f"The certificate of {url} is not good: {error.verify_message}.", remedy=MEND) from error
    except (OSError, HTTPException) as error:
        kind = type(error).__name__
        raise CheckFailed(f"{shown} does not answer from here: {kind}.", remedy=f"Is it serving? {MEND}") from error


def _object(answer: Answer) -> dict[str, Any]:
    """The JSON object that an answer is; an empty one if it is none."""
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
