"""What an OpenID provider publishes: its endpoints (OpenID Connect Discovery 1.0) and its keys (RFC 7517)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests

from customer_orders.interfaces import IdentityProviderUnavailable
from customer_orders_http import Bounded, bound, cause, parse

# Seconds for which what was published is believed. A key that the provider withdraws is good for as long.
LIFETIME = 300


class Published:
    """A JSON object that the provider publishes, fetched when it is first needed, and kept for ``LIFETIME``.

    No lock: of several threads that find it missing each fetches it, which takes none longer than one fetch; in line
    they would wait for each other's time-outs.
    """

    def __init__(self, adapter: Bounded) -> None:
        self._adapter = adapter
        self._kept: tuple[str, float, dict[str, Any]] | None = None

    def get(self, url: str, *, refresh: bool = False) -> dict[str, Any]:
        """The object at ``url``; ``refresh``: as it is now. Raises ``IdentityProviderUnavailable``."""
        kept = self._kept
        if kept is None or refresh or kept[0] != url or kept[1] <= time.monotonic():
            kept = self._kept = (url, time.monotonic() + LIFETIME, self._fetch(url))
        return kept[2]

    def forget(self) -> None:
        """Ask anew next time: what was published is of no use."""
        self._kept = None

    def _fetch(self, url: str) -> dict[str, Any]:
        try:
            answer = bound(requests.Session(), self._adapter).get(url, headers={"Accept": "application/json"})
            told = parse(answer)
        except requests.RequestException as error:
            raise IdentityProviderUnavailable(f"{url} does not answer: {cause(error)}") from error
        except ValueError:
            raise IdentityProviderUnavailable(f"{url} answers with something that is no JSON") from None
        if answer.status_code != 200 or not isinstance(told, dict):
            raise IdentityProviderUnavailable(f"{url} answers with status {answer.status_code} and no JSON object")
        return told


class Discovery:
    """The endpoints and keys of one issuer."""

    def __init__(self, issuer: str, adapter: Bounded) -> None:
        self.issuer, self._adapter = issuer, adapter
        # section 4.1: a trailing slash of the issuer goes
        self._url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        self._metadata, self._keys = Published(adapter), Published(adapter)

    def endpoint(self, name: str) -> str:
        """An endpoint's address, by its name in the metadata. Raises ``IdentityProviderUnavailable``."""
        metadata = self._metadata.get(self._url)
        # section 4.3: or it could be anybody's
        if metadata.get("issuer") != self.issuer:
            self._metadata.forget()
            raise IdentityProviderUnavailable(f"{self._url} is of another issuer than google.issuer = {self.issuer}")
        address = metadata.get(name)
        if not isinstance(address, str) or not _is_https(address):
            self._metadata.forget()
            raise IdentityProviderUnavailable(f"{self._url} names no {name} that begins with https://")
        return address

    def key(self, kid: str, *, refresh: bool = False) -> jwt.PyJWK:
        """The key called ``kid``.

        Raises ``KeyError`` if there is none, or ``IdentityProviderUnavailable``.
        """
        url = self.endpoint("jwks_uri")
        try:
            return jwt.PyJWKSet.from_dict(self._keys.get(url, refresh=refresh))[kid]
        except jwt.PyJWKSetError:
            self._keys.forget()
            raise IdentityProviderUnavailable(f"{url} holds no key") from None

    def clock(self) -> tuple[datetime | None, datetime]:
        """The time by the provider's clock, if it tells it (RFC 9110, section 6.6.1), and by ours.

        Raises ``IdentityProviderUnavailable``.
        """
        try:
            answer = bound(requests.Session(), self._adapter).get(self._url)
        except requests.RequestException as error:
            raise IdentityProviderUnavailable(f"{self._url} does not answer: {cause(error)}") from error
        ours = datetime.now(UTC)
        try:
            return parsedate_to_datetime(answer.headers.get("Date", "")).astimezone(UTC), ours
        except ValueError:
            return None, ours


def _is_https(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(re.fullmatch("https://[!-~]+", address) and parts.hostname) and parts.port != 0
    except ValueError:
        return False
