"""Access tokens: pyramid-jwt as a codec, made strict (RFC 7519, RFC 8725, RFC 9068), with a ring of keys."""

from __future__ import annotations

import hashlib
import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from pyramid_jwt.policy import JWTAuthenticationPolicy

from customer_orders.sections.keys import key_ring
from customer_orders.settings import Section

log = logging.getLogger(__name__)

TYPE = "at+jwt"
AUDIENCE = "customer-orders"
REQUIRED = ["iss", "aud", "sub", "exp", "iat", "jti"]


def hash_of(secret: str) -> str:
    """What is kept of a random secret of 256 bits. A fast hash does: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer(request: Any) -> str:
    """The credential of ``Authorization: Bearer`` (RFC 6750, section 2.1); empty without one.

    The scheme's case is free.
    """
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


class AccessTokens(JWTAuthenticationPolicy):
    """Makes and reads access tokens. Not a policy here: only pyramid-jwt's codec, with its gaps closed.

    The first key of the ring signs; a token is verified by the one that its ``kid`` names. So a key is replaced
    without a token lost: put the new one second everywhere, then first, then leave the old one out once its last
    tokens have expired.
    """

    def __init__(self, settings: Section, issuer: str) -> None:
        self.ring = key_ring(settings.private_key)
        super().__init__(
            self.ring[0].secret,
            algorithm=settings.algorithm,
            expiration=settings.expiration,
            audience=AUDIENCE,
            auth_type="Bearer",
        )
        self.issuer = issuer
        self.kid = self.ring[0].kid
        self._secrets = {key.kid: key.secret for key in self.ring}

    def create_token(self, principal: str, expiration: Any = None, audience: Any = None, **claims: Any) -> str:
        """An access token for the user id ``principal``, a string (RFC 7519, section 4.1.2)."""
        issued = datetime.now(UTC)
        lifetime: timedelta = expiration or self.expiration
        payload = {
            **claims,
            "iss": self.issuer,
            "aud": audience or self.audience,
            "sub": principal,
            "iat": issued,
            "exp": issued + lifetime,
            "jti": secrets.token_hex(16),
        }
        headers = {"typ": TYPE, "kid": self.kid}
        return str(jwt.encode(payload, self.private_key, algorithm=self.algorithm, headers=headers))

    def get_claims(self, request: Any) -> dict[str, Any]:
        """The claims of the request's access token; empty without a good one."""
        token = bearer(request)
        return self.jwt_decode(request, token) if token else {}

    def jwt_decode(self, request: Any, token: str) -> dict[str, Any]:
        """The claims of ``token``; empty if anything about it is not exactly as :meth:`create_token` makes it."""
        try:
            header = jwt.get_unverified_header(token)
            secret = self._secrets.get(header.get("kid", ""))
            if header.get("typ") != TYPE or secret is None or "crit" in header:
                raise jwt.InvalidTokenError("typ, kid or crit is not ours")
            claims: dict[str, Any] = jwt.decode(
                token,
                secret,
                algorithms=[self.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                options={"require": REQUIRED},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # PyJWT's words name the claim, never the token
            log.info("access token refused (request %s): %s", request.request_id, error)
            return {}
        return claims
