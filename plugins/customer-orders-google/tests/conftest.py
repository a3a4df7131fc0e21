"""The real application with the Google plugin, and a provider on loopback that signs whatever a test wants."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import func, select
from webtest import TestApp

from customer_orders import main
from customer_orders.auth.models import User
from customer_orders_google.provider import Google
from databases import migrated_sqlite
from loopback import Answer, Asked, Provider, authority, provider, tls

__all__ = ["authority", "tls"]

HOST = "127.0.0.1:6543"
CALLBACK = "/api/google-oauth2/callback/"


@dataclass
class Key:
    """A signing key, and what of it is published."""

    private: Any
    kid: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def public(self) -> dict[str, Any]:
        """The key as a JWKS holds it."""
        published = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**published, "kid": self.kid, "use": "sig", "alg": "RS256"}


# Making one takes a while; two are enough to tell them apart.
PRIVATE = cycle([rsa.generate_private_key(65537, 2048) for _ in range(2)])


class Op:
    """A whole OpenID provider. Tests change what it publishes (``key``, ``pages``) and what it signs (``sign``)."""

    def __init__(self, server: Provider) -> None:
        self.server, self.issuer = server, server.url
        self.client_id, self.client_secret = f"client-{secrets.token_hex(8)}", secrets.token_hex(16)
        self.key = Key(next(PRIVATE))
        self.access_token = secrets.token_hex(16)
        # told by the sign-in that is under way
        self.nonce = ""
        # codes, each good once; None: any
        self.codes: set[str] | None = None
        self.sign: Callable[[Op], str] = lambda op: op.token()
        # what is answered instead, by path
        self.pages: dict[str, Any] = {}
        server.answer = self.answer

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Claims in which nothing is wrong, but for what is changed; None takes one out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.client_id,
            "azp": self.client_id,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 3600,
            "nonce": self.nonce,
            "email": "jane@shop.example",
            "email_verified": True,
            "name": "Jane",
            "hd": "shop.example",
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        claims: dict[str, Any] | None = None,
        key: Any = None,
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
    ) -> str:
        """A signed ID token."""
        headers = {"kid": self.key.kid, **(headers or {})}
        return jwt.encode(claims or self.claims(), key or self.key.private, algorithm=algorithm, headers=headers)

    def answer(self, asked: Asked) -> Any:
        path = urlsplit(asked.path).path
        if path in self.pages:
            page = self.pages[path]
            return page if callable(page) else Answer(page)
        if path == "/.well-known/openid-configuration":
            return Answer(self.metadata)
        if path == "/keys":
            return Answer({"keys": [self.key.public]})
        if path == "/token":
            code = asked.form["code"]
            if self.codes is not None and code not in self.codes:
                return Answer({"error": "invalid_grant", "error_description": f"the code {code} is spent"}, 400)
            self.codes = None if self.codes is None else self.codes - {code}
            return Answer(
                {
                    "access_token": self.access_token,
                    "token_type": "Bearer",
                    "expires_in": 3599,
                    # Google's own way of writing what was asked for
                    "scope": "https://www.googleapis.com/auth/userinfo.email openid",
                    "id_token": self.sign(self),
                }
            )
        return Answer(status=404)

    def change_key(self, kid: str | None = None) -> None:
        """Sign and publish with another key from now on; ``kid``: its name, a new one unless told."""
        self.key = Key(next(PRIVATE), kid) if kid else Key(next(PRIVATE))

    def asked(self, path: str) -> list[Asked]:
        """The requests for a path."""
        return [asked for asked in self.server.asked if urlsplit(asked.path).path == path]


@pytest.fixture
def op(tls: Any) -> Iterator[Op]:
    """The provider."""
    with provider(tls) as server:
        yield Op(server)


@pytest.fixture
def make_google(op: Op) -> Callable[..., Google]:
    """Makes the plugin's provider: ``make_google(read_timeout=0.3)``."""

    def make(**changed: Any) -> Google:
        settings = {
            "client_id": op.client_id,
            "client_secret": op.client_secret,
            "hosted_domains": (),
            "issuer": op.issuer,
            "connect_timeout": 5,
            "read_timeout": 5,
        }
        return Google(**{**settings, **changed})

    return make


@pytest.fixture
def make_app(tmp_path: Path, op: Op) -> Iterator[Callable[..., Any]]:
    """Makes an application in which whoever Google vouches for is a clerk."""
    made = []

    def make(**more: str) -> Any:
        settings = {
            "app.public_url": f"http://{HOST}",
            "sqlalchemy.url": migrated_sqlite(tmp_path),
            "jwt.private_key": secrets.token_urlsafe(64),
            "auth.default_role": "clerk",
            "plugins": "google",
            "notifications.dispatcher": "worker",
            "google.client_id": op.client_id,
            "google.client_secret": op.client_secret,
            "google.issuer": op.issuer,
            **more,
        }
        app = main({}, **settings)
        made.append(app)
        return app

    yield make
    for app in made:
        app.registry.database.engine.dispose()


class Browser(TestApp):
    """A browser, as far as signing in needs one."""

    def __init__(self, app: Any, op: Op) -> None:
        super().__init__(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": HOST})
        self.op = op

    def begin(self) -> dict[str, str]:
        """Go to the provider; what it was told, by name."""
        location = self.get("/api/google-oauth2/redirect/", status=302).headers["Location"]
        told = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self.op.nonce = told["nonce"]
        return told

    def come_back(self, state: str, **more: str) -> Any:
        """Come back from the provider, with a code unless told otherwise."""
        query = urlencode({"code": secrets.token_hex(8), "state": state, **more})
        return self.get(f"{CALLBACK}?{query}", status="*")

    def sign_in(self, **more: str) -> Any:
        """The whole way; the answer to the call-back."""
        return self.come_back(self.begin()["state"], **more)

    def users(self) -> int:
        """How many users there are."""
        with self.app.registry.database.transaction(writes=False) as session:
            return session.scalar(select(func.count(User.id))) or 0


@pytest.fixture
def make_browser(make_app: Callable[..., Any], op: Op) -> Callable[..., Browser]:
    """Makes a browser of an application with further settings."""
    return lambda **more: Browser(make_app(**more), op)


@pytest.fixture
def browser(make_browser: Callable[..., Browser]) -> Browser:
    """A browser."""
    return make_browser()
