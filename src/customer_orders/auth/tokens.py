"""Access tokens: pyramid-jwt as a codec, made strict (RFC 7519, RFC 8725, RFC 9068)."""

from __future__ import annotations

import hashlib
import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from pyramid_jwt.policy import JWTAuthenticationPolicy

from customer_orders.settings import Section

log = logging.getLogger(__name__)

TYPE = "at+jwt"
AUDIENCE = "customer-orders"
REQUIRED = ["iss", "aud", "sub", "exp", "iat", "jti"]


class AccessTokens(JWTAuthenticationPolicy):
    """Makes and reads access tokens. Not a policy here: only pyramid-jwt's codec, with its gaps closed."""

    def __init__(self, settings: Section, issuer: str) -> None:
        super().__init__(
            settings.private_key,
            algorithm=settings.algorithm,
            expiration=settings.expiration,
            audience=AUDIENCE,
            auth_type="Bearer",
        )
        self.issuer = issuer
        # Names the key without telling it: the token says which key signed, for the day there are two.
        self.kid = hashlib.sha256(b"kid:" + settings.private_key.encode()).hexdigest()[:16]

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
        """The claims of the request's access token; empty without a good one. The scheme's case is free."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self.jwt_decode(request, token.strip()) if scheme.lower() == "bearer" and token else {}

    def jwt_decode(self, request: Any, token: str) -> dict[str, Any]:
        """The claims of ``token``; empty if anything about it is not exactly as :meth:`create_token` makes it."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("kid") != self.kid or "crit" in header:
                raise jwt.InvalidTokenError("typ, kid or crit is not ours")
            claims: dict[str, Any] = jwt.decode(
                token,
                self.public_key,
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
