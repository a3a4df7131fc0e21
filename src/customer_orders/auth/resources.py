"""Contexts: what a request is about, and who may do what with it."""

from __future__ import annotations

from typing import Any

from customer_orders.api import path_id
from customer_orders.auth.policy import ACL
from customer_orders.errors import NotFound


class Collection:
    """A list of things, or anything else without an id."""

    __acl__ = ACL

    def __init__(self, request: Any) -> None:
        """Made by Pyramid for each request."""


class Item(Collection):
    """One thing, by its ``id``; whether it exists is the service's to say, after the permission."""

    def __init__(self, request: Any) -> None:
        self.id = path_id(request)


class Provider(Collection):
    """An identity provider that a plugin registered."""

    def __init__(self, request: Any) -> None:
        self.name = request.matchdict["provider"]
        providers = request.registry.plugins.identity_providers
        if self.name not in providers:
            raise NotFound("There is no such identity provider.")
        self.provider = providers[self.name]
