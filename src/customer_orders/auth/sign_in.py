"""The state of a sign-in between redirect and call-back, in a signed, short-lived cookie (RFC 9700, section 2.1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any

from webob.cookies import SignedCookieProfile

from customer_orders.errors import DomainError
from customer_orders.settings import section

COOKIE = "customer_orders_sign_in"


@dataclass(frozen=True)
class SignInState:
    """What must be the same in redirect and call-back.

    ``expires``: Unix time in seconds; ``next``: the path of ours that it leads on to, empty for the dashboard.
    """

    provider: str
    state: str
    nonce: str
    code_verifier: str
    expires: int
    next: str = ""

    @property
    def code_challenge(self) -> str:
        """S256 of the verifier (RFC 7636, section 4.2)."""
        digest = hashlib.sha256(self.code_verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def begin(provider: str, seconds: int, next_path: str = "") -> SignInState:
    """A fresh state for one sign-in, which leads on to ``next_path``."""
    return SignInState(
        provider=provider,
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        code_verifier=secrets.token_urlsafe(48),
        expires=int(time.time()) + seconds,
        next=next_path,
    )


def _profiles(request: Any) -> list[Any]:
    """The cookie as each key of the ring signs it: the first is the one to sign with."""
    registry = request.registry
    return [
        SignedCookieProfile(
            key.secret,
            "customer_orders.sign_in",
            COOKIE,
            secure=section(registry, "app").public_url.startswith("https:"),
            max_age=section(registry, "auth").sign_in_seconds,
            httponly=True,
            samesite="Lax",
            path="/api/",
        ).bind(request)
        for key in registry.access_tokens.ring
    ]


def keep(request: Any, response: Any, state: SignInState) -> None:
    """Give the browser the cookie."""
    _profiles(request)[0].set_cookies(response, asdict(state))


def forget(request: Any, response: Any) -> None:
    """Take the cookie back: a state is good for one call-back."""
    _profiles(request)[0].set_cookies(response, None, max_age=0)


def resume(request: Any, provider: str, state: str) -> SignInState:
    """The state that this call-back belongs to. Raises ``DomainError`` if it belongs to none."""
    read = (profile.get_value() for profile in _profiles(request))
    try:
        kept = SignInState(**next(filter(None, read), {}))
    except TypeError:
        kept = None
    if (
        kept is None
        or kept.provider != provider
        or kept.expires < time.time()
        or not hmac.compare_digest(kept.state.encode(), state.encode())
    ):
        raise DomainError(
            "The sign-in took too long, was begun in another browser or tab, or was finished already.",
            code="sign-in-expired",
        )
    return kept
