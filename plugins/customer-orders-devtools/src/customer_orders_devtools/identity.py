"""An identity provider that believes whatever e-mail address is typed into its form."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin

from zope.interface import implementer

from customer_orders.interfaces import Identity, IdentityRefused, IIdentityProvider

# Seconds for which a code can be redeemed.
CODE_LIFETIME = 60
# More than anyone signs in by hand within a code's life.
MOST_CODES = 1000


@dataclass(frozen=True)
class Grant:
    """What a code stands for. ``expires``: on the monotonic clock."""

    email: str
    redirect_uri: str
    nonce: str
    code_challenge: str
    expires: float


@implementer(IIdentityProvider)
class AnyEmail:
    """Behaves as a real provider does, down to PKCE and single-use codes, but checks nobody."""

    title = "any e-mail (development)"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}

    def authorization_url(self, redirect_uri: str, state: str, nonce: str, code_challenge: str) -> str:
        """The address of the form, on the origin of the call-back."""
        query = urlencode(
            {
                "redirect_uri": redirect_uri,
                "state": state,
                "nonce": nonce,
                "code_challenge": code_challenge,
                "code_challenge_method": "S256",
            }
        )
        return urljoin(redirect_uri, f"/devtools/sign-in?{query}")

    def grant(self, email: str, redirect_uri: str, nonce: str, code_challenge: str) -> str:
        """A code for whoever typed ``email``."""
        code = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self._lock:
            live = [(key, value) for key, value in self._grants.items() if value.expires > now]
            self._grants = dict(live[-MOST_CODES:])
            self._grants[code] = Grant(email, redirect_uri, nonce, code_challenge, now + CODE_LIFETIME)
        return code

    def identify(self, redirect_uri: str, code: str, nonce: str, code_verifier: str) -> Identity:
        """Redeem a code, once. Raises ``IdentityRefused`` if any of it does not fit."""
        with self._lock:
            grant = self._grants.pop(code, None)
        digest = hashlib.sha256(code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if grant is None or grant.expires <= time.monotonic():
            raise IdentityRefused("the code is unknown, used or expired")
        if (grant.redirect_uri, grant.nonce, grant.code_challenge) != (redirect_uri, nonce, challenge):
            raise IdentityRefused("the code was granted to another sign-in")
        name, _, domain = grant.email.partition("@")
        return Identity(
            subject=grant.email.lower(),
            email=grant.email,
            email_verified=True,
            name=name,
            domain=domain.lower(),
        )
