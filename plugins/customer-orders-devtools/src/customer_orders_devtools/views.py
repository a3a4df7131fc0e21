"""The form of the identity provider, and the inbox of the simulator."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from pyramid.httpexceptions import HTTPBadRequest, HTTPMethodNotAllowed, HTTPSeeOther
from pyramid.view import view_config

from customer_orders_devtools.guard import local_only
from customer_orders_devtools.outcomes import OUTCOMES

FIELDS = ("redirect_uri", "state", "nonce", "code_challenge")
METHODS = {
    "devtools_sign_in": ("GET", "HEAD", "POST"),
    "devtools_inbox": ("GET", "HEAD"),
    "devtools_static": ("GET", "HEAD"),
}
CALLBACK = "/api/devtools-oauth2/callback/"


def _given(request: Any) -> tuple[dict[str, str], str]:
    """What the core sent along, and what was typed. Raises ``HTTPBadRequest`` unless it leads back to the core."""
    try:
        given = {name: str(value) for name, value in request.params.items()}
    except (ValueError, LookupError, DeprecationWarning):
        # WebOb raises the last two for a charset that it does not know, or does not like
        raise HTTPBadRequest from None
    fields = {name: given.get(name, "") for name in FIELDS}
    if fields["redirect_uri"] != f"{request.host_url}{CALLBACK}" or not all(fields.values()):
        raise HTTPBadRequest
    return fields, given.get("email", "").strip()


@view_config(
    route_name="devtools_sign_in",
    request_method=("GET", "HEAD"),
    decorator=local_only,
    renderer="customer_orders_devtools:templates/sign_in.jinja2",
)
def show_form(request: Any) -> dict[str, Any]:
    """Ask for an e-mail address."""
    fields, _ = _given(request)
    return {"fields": fields, "wrong": ""}


@view_config(
    route_name="devtools_sign_in",
    request_method="POST",
    decorator=local_only,
    renderer="customer_orders_devtools:templates/sign_in.jinja2",
)
def take_form(request: Any) -> Any:
    """Grant a code and send the browser back."""
    fields, email = _given(request)
    local, _, domain = email.partition("@")
    if not local or not domain or "@" in domain or not email.isprintable() or " " in email or len(email) > 254:
        request.response.status_int = 400
        return {"fields": fields, "wrong": "That is not an e-mail address."}
    provider, _ = request.registry.devtools
    code = provider.grant(email, fields["redirect_uri"], fields["nonce"], fields["code_challenge"])
    query = urlencode({"code": code, "state": fields["state"]})
    return HTTPSeeOther(f"{fields['redirect_uri']}?{query}")


@view_config(
    route_name="devtools_inbox",
    request_method=("GET", "HEAD"),
    decorator=local_only,
    renderer="customer_orders_devtools:templates/inbox.jinja2",
)
def show_inbox(request: Any) -> dict[str, Any]:
    """Every message, as a phone would show it, and which numbers have other outcomes."""
    _, simulator = request.registry.devtools
    request.response.cache_control = "no-store"
    phones: dict[str, list[dict[str, Any]]] = {}
    for message in simulator.inbox():
        phones.setdefault(message["to"], []).append(message)
    return {"phones": phones, "outcomes": OUTCOMES}


@view_config(route_name="devtools_sign_in", decorator=local_only)
@view_config(route_name="devtools_inbox", decorator=local_only)
@view_config(route_name="devtools_static", decorator=local_only)
def refuse_method(request: Any) -> Any:
    """Any other method."""
    refused = HTTPMethodNotAllowed()
    refused.allow = METHODS[request.matched_route.name]
    raise refused
