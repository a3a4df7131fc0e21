"""A plugin for tests, installed as any other: it repeats all that it is told, in logs and in errors."""

from __future__ import annotations

import itertools
import json
import logging

from zope.interface import implementer

from customer_orders.api import NO_PERMISSION_REQUIRED, Service
from customer_orders.interfaces import (
    ChannelDown,
    IDeliveryReports,
    IdentityRefused,
    IIdentityProvider,
    INotifier,
    Receipt,
    Rejected,
    Report,
    Unavailable,
    Uncertain,
)

log = logging.getLogger(__name__)

talk = Service("talk", "/api/talk/")


@talk.post(permission=NO_PERMISSION_REQUIRED, query=None)
def talk_about_it(request):
    """A view with a defect, which logs before it whatever came."""
    log.info("got %s from %s", request.text, dict(request.headers))
    log.debug("at %s", request.url)
    raise RuntimeError(f"{request.text} {dict(request.headers)} {request.url}")


@implementer(INotifier, IDeliveryReports)
class Gossip:
    """Fails in every way in turn, each with number and words."""

    def __init__(self):
        self._turns = itertools.count()

    def send(self, message):
        said = f"to {message.to} ({message.to[1:]}): {message.text}"
        log.warning("sending %s", said)
        ways = (Rejected, Unavailable, Uncertain, ChannelDown, RuntimeError, None)
        way = ways[next(self._turns) % len(ways)]
        if way is None:
            return Receipt(f"gossip-{message.key}")
        raise way(said)

    def parse(self, headers, body):
        log.info("a call-back: %s %s", headers, body)
        told = json.loads(body)
        if told.get("bad"):
            raise ValueError(f"cannot be read: {body!r}")
        return [Report(**told)]


@implementer(IIdentityProvider)
class GossipProvider:
    """Refuses everybody, and says with what they came."""

    title = "Gossip"

    def authorization_url(self, redirect_uri, state, nonce, code_challenge):
        log.info("state=%s&nonce=%s", state, nonce)
        return f"https://provider.example/authorize?state={state}"

    def identify(self, redirect_uri, code, nonce, code_verifier):
        raise IdentityRefused(f"POST /token?code={code}&nonce={nonce}&code_verifier={code_verifier}")


def includeme(config):
    config.add_notifier("gossip", Gossip())
    config.add_identity_provider("gossip", GossipProvider())
    config.scan("gossip")
