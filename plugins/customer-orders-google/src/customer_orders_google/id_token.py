"""ID tokens, verified (OpenID Connect Core 1.0, section 3.1.3.7; RFC 8725)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import jwt

from customer_orders.interfaces import IdentityRefused

GOOGLE = "https://accounts.google.com"

REQUIRED = ["iss", "aud", "sub", "exp", "iat", "nonce"]

# Seconds by which the provider's clock and ours may differ.
LEEWAY = 30

# Headers that bring a key along, or ask for an extension: what we go by is the provider's own list of keys.
UNWANTED = {"jku", "jwk", "x5u", "x5c", "crit"}

GetKey = Callable[..., jwt.PyJWK]


def issuers(issuer: str) -> list[str]:
    """What may stand in ``iss``. Google's own tokens carry it with the scheme or without."""
    return [GOOGLE, GOOGLE.removeprefix("https://")] if issuer == GOOGLE else [issuer]


def verify(
    token: str, key: GetKey, *, issuer: str, client_id: str, nonce: str, access_token: str | None
) -> dict[str, Any]:
    """The claims of an ID token that was made by ``issuer``, for us, and for this sign-in.

    :param key: tells a key by its ``kid``, anew if called with ``refresh=True``; raises ``KeyError``.
    :param access_token: what came with it, to which ``at_hash`` has to fit.

    Raises :class:`IdentityRefused`; its text names the check, nothing of the token.
    """
    try:
        header = jwt.get_unverified_header(token)
        if UNWANTED & header.keys():
            raise IdentityRefused("the id_token has a header that we do not take")
        claims = _decode(token, key, str(header.get("kid")), issuer, client_id)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        # the words may be the token's
        raise IdentityRefused(f"the id_token is not good: {type(error).__name__}") from None
    # section 2: other audiences are nobody that we know
    if claims["aud"] not in (client_id, [client_id]) or claims.get("azp", client_id) != client_id:
        raise IdentityRefused("the id_token was made for somebody else (aud, azp)")
    if not _equal(claims["nonce"], nonce):
        raise IdentityRefused("the id_token belongs to another sign-in (nonce)")
    if "at_hash" in claims and (access_token is None or not _equal(claims["at_hash"], at_hash(access_token))):
        raise IdentityRefused("the id_token belongs to another access token (at_hash)")
    return claims


def _decode(token: str, key: GetKey, kid: str, issuer: str, client_id: str) -> dict[str, Any]:
    def decode(refresh: bool) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key(kid, refresh=refresh),
            algorithms=["RS256"],
            audience=client_id,
            issuer=issuers(issuer),
            leeway=LEEWAY,
            options={"require": REQUIRED, "enforce_minimum_key_length": True},
        )
        return claims

    try:
        return decode(refresh=False)
    except (KeyError, jwt.InvalidSignatureError):
        # the provider may have changed its keys since we last asked
        pass
    try:
        return decode(refresh=True)
    except KeyError:
        raise jwt.InvalidKeyError from None


def at_hash(access_token: str) -> str:
    """The left half of the access token's SHA-256, in base64url (section 3.1.3.6, for RS256)."""
    digest = hashlib.sha256(_bytes(access_token)).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")


def _equal(claimed: object, expected: str) -> bool:
    return isinstance(claimed, str) and hmac.compare_digest(_bytes(claimed), _bytes(expected))


def _bytes(text: str) -> bytes:
    # JSON can hold surrogates without their other half
    return text.encode(errors="surrogatepass")
