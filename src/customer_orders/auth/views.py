"""Signing in and out."""

from __future__ import annotations

import logging
from typing import Any

from pyramid.httpexceptions import HTTPFound, HTTPNoContent
from pyramid.renderers import render

from customer_orders.api import NO_PERMISSION_REQUIRED, Service
from customer_orders.api.limits import limit_caller
from customer_orders.api.problems import prefers_html
from customer_orders.auth import schemas, services, sessions, sign_in
from customer_orders.auth.policy import Permission
from customer_orders.auth.resources import Collection, Provider
from customer_orders.errors import Forbidden, Unavailable
from customer_orders.interfaces import Identity, IdentityProviderUnavailable, IdentityRefused
from customer_orders.settings import section

log = logging.getLogger(__name__)

# Where a request keeps, over its tries, whom the provider named.
IDENTITY = "customer_orders.identity"

LOGIN = "customer_orders:templates/login.jinja2"
login = Service("login", "/login/", page=True, limited_as="sign_in", renderer=LOGIN)
redirect = Service(
    "oauth2_redirect",
    "/api/{provider}-oauth2/redirect/",
    tag="session",
    page=True,
    limited_as="sign_in",
    factory=Provider,
)
callback = Service(
    "oauth2_callback",
    "/api/{provider}-oauth2/callback/",
    tag="session",
    page=True,
    limited_as="sign_in",
    factory=Provider,
)
refresh = Service("token_refresh", "/api/token/refresh", tag="session", limited_as="token", factory=Collection)
revoke = Service("token_revoke", "/api/token/revoke", tag="session", limited_as="token", factory=Collection)
me = Service("me", "/api/me", tag="session", factory=Collection)


@login.get(permission=NO_PERMISSION_REQUIRED, query=schemas.LoginQuery)
def show_login(request: Any) -> dict[str, Any]:
    """One button for each identity provider."""
    return {
        "providers": sorted(request.registry.plugins.identity_providers.items()),
        "next": request.validated["query"]["next"],
        "signed_out": request.validated["query"]["signed_out"],
    }


def _redirect_uri(request: Any) -> str:
    return f"{section(request.registry, 'app').public_url}/api/{request.context.name}-oauth2/callback/"


@redirect.get(
    permission=NO_PERMISSION_REQUIRED,
    operation_id="sign_in_redirect",
    query=schemas.RedirectQuery,
    status=302,
    produces=("text/html",),
)
def start_sign_in(request: Any) -> Any:
    """Send the browser to the identity provider.

    To be opened in a browser, not called.
    """
    state = sign_in.begin(
        request.context.name,
        section(request.registry, "auth").sign_in_seconds,
        request.validated["query"]["next"],
    )
    try:
        url = request.context.provider.authorization_url(
            redirect_uri=_redirect_uri(request),
            state=state.state,
            nonce=state.nonce,
            code_challenge=state.code_challenge,
        )
    except IdentityProviderUnavailable as error:
        raise _provider_down(request, error) from error
    response = HTTPFound(url)
    sign_in.keep(request, response, state)
    return response


@callback.get(
    permission=NO_PERMISSION_REQUIRED,
    operation_id="sign_in_callback",
    query=schemas.CallbackQuery,
    returns=schemas.SignedIn,
    produces=("application/json", "text/html"),
    secret=True,
    problems=("sign-in-expired", "sign-in-refused", "no-role"),
)
def finish_sign_in(request: Any) -> Any:
    """Take the provider's answer and hand out two tokens.

    The provider sends the browser here. JSON, or a page for a browser.
    """
    if request.method == "HEAD":
        # whoever only looks must not spend the code
        return request.response
    state = sign_in.resume(request, request.context.name, request.validated["query"]["state"])
    identity = _identify(request, state)
    settings = section(request.registry, "auth")
    user = services.sign_in(request.dbsession, request.context.name, identity, settings)
    if user.disabled or user.effective_role is None:
        # Keep the user, so that an operator can grant a role; the refusal itself would roll it back.
        request.tm.commit()
        request.tm.begin()
        what = "is shut out here" if user.disabled else "has no role here"
        raise Forbidden(f"{identity.email} {what}. Ask an administrator.", code="no-role")
    begun = sessions.begin(request.dbsession, user.id, settings, _client(request))
    pair = _pair(request, begun)
    if not prefers_html(request):
        return {"tokens": pair}
    values = {"tokens": pair, "user": user, "next": state.next or "/"}
    page = render("customer_orders:templates/tokens.jinja2", values, request=request)
    request.response.content_type = "text/html"
    request.response.text = page
    return request.response


def _identify(request: Any, state: sign_in.SignInState) -> Any:
    """Ask the provider who this is, once: its code is spent with the first try at this request.

    No statement has run yet, so no transaction is open while we wait.
    """
    request.add_response_callback(sign_in.forget)
    if IDENTITY not in request.environ:
        request.environ[IDENTITY] = _ask(request, state, request.validated["query"])
    return request.environ[IDENTITY]


def _ask(request: Any, state: sign_in.SignInState, given: dict[str, str]) -> Identity:
    refused = Forbidden("The identity provider did not confirm who you are.", code="sign-in-refused")
    if given["error"] or not given["code"]:
        log.info("sign-in by %s ended without a code (request %s)", request.context.name, request.request_id)
        raise refused
    try:
        identity: Identity = request.context.provider.identify(
            redirect_uri=_redirect_uri(request),
            code=given["code"],
            nonce=state.nonce,
            code_verifier=state.code_verifier,
        )
    except IdentityRefused as error:
        log.warning("sign-in by %s refused (request %s): %s", request.context.name, request.request_id, error)
        raise refused from error
    except IdentityProviderUnavailable as error:
        raise _provider_down(request, error) from error
    return identity


def _provider_down(request: Any, error: Exception) -> Unavailable:
    log.error(
        "identity provider %s does not answer (request %s): %s",
        request.context.name,
        request.request_id,
        error,
    )
    return Unavailable("The identity provider does not answer.")


def _client(request: Any) -> str | None:
    """What a browser or program calls itself, as a page may show it."""
    told = "".join(letter for letter in request.user_agent or "" if letter.isprintable())
    return told[:255] or None


def _pair(request: Any, renewed: sessions.Renewed) -> dict[str, str]:
    # by the user whom no token named yet; a sign-in or a refresh that is too much is rolled back
    limit_caller(request, str(renewed.user.id))
    access = request.registry.access_tokens.create_token(str(renewed.user.id), sid=str(renewed.family_id))
    return {"access": access, "refresh": renewed.token}


@refresh.post(
    permission=NO_PERMISSION_REQUIRED,
    body=schemas.RefreshBody,
    returns=schemas.Tokens,
    secret=True,
    problems=("invalid-refresh-token",),
)
def refresh_tokens(request: Any) -> dict[str, str]:
    """Spend a refresh token for a new pair.

    For ten seconds a spent one gets the same successor, in case the answer was lost. After that it ends the session:
    somebody copied it.
    """
    settings, ring = section(request.registry, "auth"), request.registry.access_tokens.ring
    renewed = sessions.renew(request.dbsession, request.validated["body"]["refresh"], settings, ring)
    if renewed is None:
        log.warning("a spent refresh token came again, so its session was ended (request %s)", request.request_id)
        # the refusal itself would roll that back
        request.tm.commit()
        request.tm.begin()
        raise sessions.refused()
    return _pair(request, renewed)


@revoke.post(permission=NO_PERMISSION_REQUIRED, body=schemas.RefreshBody, status=204)
def revoke_token(request: Any) -> Any:
    """Sign out: end the session of a refresh token.

    One that is unknown or ended already is no error.
    """
    sessions.sign_out(request.dbsession, request.validated["body"]["refresh"])
    # to a program this says nothing; a browser forgets what our pages kept, in every tab (Clear Site Data, section 3.1)
    return HTTPNoContent(headers={"Clear-Site-Data": '"storage"'})


@me.get(permission=Permission.ME_READ, operation_id="me_read", returns=schemas.Me)
def read_me(request: Any) -> dict[str, Any]:
    """Read the signed-in user."""
    return schemas.me(request.identity)
