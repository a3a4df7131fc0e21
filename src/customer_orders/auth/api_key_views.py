"""API keys, for those who manage them."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPNoContent

from customer_orders.api import Service, created
from customer_orders.auth import api_keys, schemas
from customer_orders.auth.policy import Permission
from customer_orders.auth.resources import Collection, Item

keys = Service("api_keys", "/api/api-keys/", tag="api keys", factory=Collection)
key = Service("api_key", "/api/api-keys/{id}", tag="api keys", factory=Item)

MANAGE = Permission.API_KEYS_MANAGE


@keys.get(permission=MANAGE, operation_id="api_keys_list", returns=[schemas.ApiKeyRead])
def list_keys(request: Any) -> list[dict[str, Any]]:
    """List API keys, newest first, with those that ended."""
    return [schemas.api_key(found) for found in api_keys.list_keys(request.dbsession)]


@keys.post(
    permission=MANAGE,
    operation_id="api_keys_create",
    body=schemas.ApiKeyBody,
    status=201,
    returns=schemas.ApiKeyMade,
    secret=True,
)
def create_key(request: Any) -> dict[str, Any]:
    """Make an API key.

    The answer shows it, and nothing can show it again. For each machine one of its own, so that one can be revoked.
    """
    caller = request.identity
    maker = caller.id if caller.kind == "user" else None
    made, shown = api_keys.create(request.dbsession, **request.validated["body"], created_by=maker)
    created(request, made.id)
    return {**schemas.api_key(made), "key": shown}


@key.get(permission=MANAGE, operation_id="api_keys_read", returns=schemas.ApiKeyRead)
def read_key(request: Any) -> dict[str, Any]:
    """Read an API key, without its secret."""
    return schemas.api_key(api_keys.read(request.dbsession, request.context.id))


@key.delete(permission=MANAGE, operation_id="api_keys_revoke", status=204)
def revoke_key(request: Any) -> Any:
    """Revoke an API key: it is not good any more, at once.

    It stays in the list.
    """
    api_keys.revoke(request.dbsession, request.context.id)
    return HTTPNoContent()
