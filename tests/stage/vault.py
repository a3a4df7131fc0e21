"""A plugin for tests, installed as any other: it makes secrets, each of which is shown once."""

from __future__ import annotations

import secrets

from customer_orders.api import Service
from customer_orders.auth.policy import Permission
from customer_orders.auth.resources import Collection

vault = Service("vault", "/api/vault/", factory=Collection)


@vault.post(permission=Permission.ORDERS_WRITE, status=201, secret=True)
def make_secret(request):
    """Make a secret."""
    request.response.status_int = 201
    return {"secret": secrets.token_urlsafe(32)}


def includeme(config):
    config.scan("vault")
