"""The sign-in: where the browser is sent, and what its code is traded for."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

import requests
from oauthlib.oauth2 import OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session
from zope.interface import implementer

from customer_orders.interfaces import Identity, IdentityProviderUnavailable, IdentityRefused, IIdentityProvider
from customer_orders_google.discovery import Discovery
from customer_orders_google.id_token import verify
from customer_orders_http import Bounded, bound, cause, parse

# Google's own names of `email` and `profile`, which it uses in its answers.
SCOPES = (
    "openid",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/userinfo.profile",
)

# Bytes: all that Google publishes or answers is far smaller.
MOST = 256 * 1024

# Below this level it writes codes, tokens and our secret, which nobody wants who asks for more to be logged.
logging.getLogger("requests_oauthlib.oauth2_session").addFilter(lambda record: record.levelno >= logging.INFO)


class CodeRefused(IdentityRefused):
    """The provider does not take the code; ``error``: why, in a word of RFC 6749, section 5.2."""

    def __init__(self, error: str) -> None:
        super().__init__(f"the provider does not take the code: {error}")
        self.error = error


@implementer(IIdentityProvider)
class Google:
    """Google, or the OpenID provider that is told; safe to use from many threads.

    :param hosted_domains: if any, the Google Workspace domains (``hd``) of which a person must be a member.
    :param connect_timeout: seconds to reach the provider.
    :param read_timeout: seconds for each whole answer. A sign-in may take three: metadata, tokens, keys.
    """

    title = "Google"

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        hosted_domains: tuple[str, ...],
        issuer: str,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        self.client_id, self._client_secret = client_id, client_secret
        self.hosted_domains, self.issuer = hosted_domains, issuer
        self._adapter = Bounded(connect=connect_timeout, read=read_timeout, most=MOST)
        self.discovery = Discovery(issuer, self._adapter)

    def authorization_url(self, redirect_uri: str, state: str, nonce: str, code_challenge: str) -> str:
        """The address of the provider's consent page. Raises ``IdentityProviderUnavailable``."""
        parameters = {
            "nonce": nonce,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
            # who has several accounts is asked which
            "prompt": "select_account",
        }
        if self.hosted_domains:
            # only what Google offers to choose from; what counts is checked in the id_token
            parameters["hd"] = self.hosted_domains[0] if len(self.hosted_domains) == 1 else "*"
        session = OAuth2Session(self.client_id, redirect_uri=redirect_uri, scope=SCOPES)
        endpoint = self.discovery.endpoint("authorization_endpoint")
        url: str = session.authorization_url(endpoint, state=state, **parameters)[0]
        return url

    def identify(self, redirect_uri: str, code: str, nonce: str, code_verifier: str) -> Identity:
        """Who signed in. Raises ``IdentityRefused`` or ``IdentityProviderUnavailable``."""
        tokens = self.redeem(redirect_uri, code, code_verifier)
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise IdentityRefused("the provider sent no id_token; is it an OpenID provider?")
        claims = verify(
            id_token,
            self.discovery.key,
            issuer=self.issuer,
            client_id=self.client_id,
            nonce=nonce,
            access_token=access_token if isinstance(access_token, str) else None,
        )
        return self._identity(claims)

    def redeem(self, redirect_uri: str, code: str, code_verifier: str) -> dict[str, Any]:
        """The provider's answer to the code (RFC 6749, section 4.1.3).

        Raises :class:`CodeRefused` or ``IdentityProviderUnavailable``.
        """
        url = self.discovery.endpoint("token_endpoint")
        session = bound(OAuth2Session(self.client_id, redirect_uri=redirect_uri), self._adapter)
        session.register_compliance_hook("access_token_response", _readable)
        # section 2.3.1: id and secret are form-encoded first
        auth = HTTPBasicAuth(quote(self.client_id, safe=""), quote(self._client_secret, safe=""))
        try:
            return dict(session.fetch_token(url, code=code, code_verifier=code_verifier, auth=auth))
        except requests.RequestException as error:
            raise IdentityProviderUnavailable(f"{url} does not answer: {cause(error)}") from error
        except OAuth2Error as error:
            # the provider's own word, such as invalid_grant, or invalid_client for a wrong secret
            told = re.sub("[^a-z_]", "?", str(error.error))[:50]
            raise CodeRefused(told) from None
        except (ValueError, TypeError, AttributeError, ArithmeticError):
            # oauthlib's own ways to trip over members of odd types
            raise IdentityProviderUnavailable(f"{url} answers with something that is no token") from None

    def _identity(self, claims: dict[str, Any]) -> Identity:
        domain = claims.get("hd")
        if self.hosted_domains and domain not in self.hosted_domains:
            raise IdentityRefused("the person is of no domain in google.hosted_domains (hd)")
        # the string "true" is not true: it would be another provider's habit, and its own check
        if claims.get("email_verified") is not True:
            raise IdentityRefused("the provider does not vouch for the e-mail address (email_verified)")
        # Identity refuses what is no string, in words
        email: Any = claims.get("email")
        return Identity(
            subject=claims["sub"],
            email=email,
            email_verified=True,
            # Google does not promise a name
            name=claims.get("name") or email,
            domain=domain if isinstance(domain, str) else None,
        )


def _readable(answer: requests.Response) -> requests.Response:
    """Let pass what oauthlib can read. Raises ``ValueError`` for anything else, a proxy's page among it."""
    told = parse(answer)
    if answer.status_code >= 500 or answer.status_code == 429 or not isinstance(told, dict):
        raise ValueError
    if not {"access_token", "error"} & told.keys():
        raise ValueError
    return answer
