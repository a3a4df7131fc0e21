"""Where providers call back. No token comes with it: whoever knows a secret of the deployment is believed."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.security import NO_PERMISSION_REQUIRED

from customer_orders.api import Service
from customer_orders.auth.resources import Collection
from customer_orders.errors import DomainError
from customer_orders.interfaces import IDeliveryReports, OptOut, Report
from customer_orders.notifications import reports
from customer_orders.origin import Actor, act_as
from customer_orders.settings import section

log = logging.getLogger(__name__)

# Bytes of a call-back: those of one message have some 200.
LARGEST = 4096
TYPES = ("application/x-www-form-urlencoded", "application/json")


class Caller(Collection):
    """The notifier whose provider calls back; nothing is at the path if it is none, or its secret is not right.

    Whatever is wrong, and whatever the method and the body, the answer is that of any path that leads nowhere.
    """

    def __init__(self, request: Any) -> None:
        self.name = request.matchdict["notifier"]
        self.notifier = request.registry.plugins.notifiers.get(self.name)
        known = section(request.registry, "notifications").report_secrets
        right = _is_one_of(known, request.matchdict["secret"])
        if not right or not IDeliveryReports.providedBy(self.notifier):
            raise HTTPNotFound


def _is_one_of(secrets: Sequence[str], given: str) -> bool:
    """Whether it is one of the secrets. Each is compared, to its end, so that the time tells nothing."""
    matches = [hmac.compare_digest(given.encode(), secret.encode()) for secret in secrets]
    return any(matches)


# not in the document: it is not for those who read that, and nobody should try it there with the secret
callback = Service(
    "delivery_reports", "/api/notifications/reports/{notifier}/{secret}", limited_as="reports", factory=Caller
)


@callback.post(permission=NO_PERMISSION_REQUIRED, query=None)
def receive_reports(request: Any) -> dict[str, int]:
    """Take what a provider tells of messages that it sent."""
    told = _read(request)
    act_as(request.dbsession, Actor("system", name=request.context.name))
    reports.receive(request.dbsession, request.context.name, told)
    return {"received": len(told)}


def _read(request: Any) -> Sequence[Report | OptOut]:
    if len(request.body) > LARGEST:
        raise DomainError(f"A call-back may be {LARGEST} bytes long at most.", code="too-large")
    if request.content_type.lower() not in TYPES:
        raise DomainError(f"The body must be {' or '.join(TYPES)}.", code="unsupported-media-type")
    name = request.context.name
    try:
        told: Sequence[Report | OptOut] = request.context.notifier.parse(dict(request.headers), request.body)
    except Exception as error:  # noqa: BLE001 - a plugin can raise anything; and what it says may quote the body
        log.log(
            logging.WARNING if isinstance(error, ValueError) else logging.ERROR,
            "%s cannot read a call-back of %s bytes: %s (request %s)",
            *(name, len(request.body), type(error).__name__, request.request_id),
        )
        raise DomainError(f"This is nothing that {name} understands.", code="malformed") from None
    return told
