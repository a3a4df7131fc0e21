"""What goes in and out when people sign in."""

from __future__ import annotations

import re
from typing import Any

import colander

from customer_orders.api.fields import Body, Flag, Integer, Opaque, Switch, Text, Timestamp, Word, node
from customer_orders.auth.models import ApiKey, RefreshFamily
from customer_orders.auth.policy import ROLES, Caller


class OwnPath(Text):
    """A path of this service with its query and fragment (RFC 3986, section 3), or nothing.

    What browsers and proxies read in more than one way is not taken at all: ``//``, backslashes, control characters,
    segments that begin with a dot, and anything percent-encoded in the path, or that stands for a control character.
    """

    SEGMENT = "[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*"
    AFTER = "([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%([2-6][0-9A-Fa-f]|7[0-9A-Ea-e]|[89A-Fa-f][0-9A-Fa-f]))*"
    PATTERN = rf"(/({SEGMENT}(/{SEGMENT})*/?)?(\?{AFTER})?(#{AFTER})?)?"

    def __init__(self) -> None:
        super().__init__(0, 512)

    def parse(self, value: Any) -> str:
        text = super().parse(value)
        if not re.fullmatch(self.PATTERN, text):
            raise ValueError("Must be a path of this service, such as /problems/: no host, no // and no backslash.")
        return text

    def swagger(self) -> dict[str, Any]:
        return {**super().swagger(), "pattern": f"^{self.PATTERN}$"}


class RedirectQuery(colander.MappingSchema):
    """Where to go on to. Other parameters are left alone: links get some on their way."""

    others = True

    next = node(OwnPath(), "The page of this service that the sign-in leads on to.", missing="")


class LoginQuery(RedirectQuery):
    """The same, and whether somebody has just signed out."""

    signed_out = node(Switch(), "Whether to say that nobody is signed in any more.", missing=False)


class RefreshBody(Body):
    """A refresh token."""

    example = {"refresh": "the-refresh-token"}

    refresh = node(Opaque(1, 512), "The refresh token.")


class CallbackQuery(colander.MappingSchema):
    """What an identity provider says in the query (RFC 6749, sections 4.1.2 and 4.1.2.1)."""

    # providers add parameters of their own (OpenID Connect Core, section 3.1.2.5)
    others = True

    code = node(Text(0, 4096), "What proves the sign-in to us.", missing="")
    state = node(Text(0, 512), "What the redirect gave along.", missing="")
    error = node(Text(0, 512), "Why there is no code.", missing="")


class Tokens(colander.MappingSchema):
    """A pair of tokens."""

    access = node(Text(maximum=4096), "A JWT, for `Authorization: Bearer`.")
    refresh = node(Opaque(1, 512), "Opaque; good once, for /api/token/refresh.")


class SignedIn(colander.MappingSchema):
    """The answer to a sign-in."""

    tokens = Tokens()


class SessionRead(colander.MappingSchema):
    """A session: what a sign-in began, and refresh tokens keep going."""

    example = {
        "id": 1,
        "client": "Mozilla/5.0 (X11; Linux x86_64)",
        "current": True,
        "created_at": "2026-01-31T08:00:00.000000Z",
        "used_at": "2026-01-31T09:00:00.000000Z",
        "expires_at": "2026-05-01T08:00:00.000000Z",
    }

    id = node(Integer(1), "Id of the session.")
    client = node(Text(0), "What signed in, as it calls itself: its `User-Agent`.", nullable=True)
    current = node(Flag(), "Whether this request's access token is of it.")
    created_at = node(Timestamp(), "When it was begun.")
    used_at = node(Timestamp(), "When it was begun or last refreshed.")
    expires_at = node(Timestamp(), "When it ends, however much it is used; unused, it ends sooner.")


class ApiKeyBody(Body):
    """An API key to make."""

    example = {"name": "Till in the shop", "role": "clerk"}

    name = node(Text(), "What it is for.")
    role = node(Word(*ROLES), "What it permits: that of a user of this role.")
    expires_at = node(Timestamp(), "When it ends; never, unless told.", missing=None, nullable=True)


class ApiKeyRead(colander.MappingSchema):
    """An API key, without its secret."""

    example = {
        "id": 1,
        "name": "Till in the shop",
        "role": "clerk",
        "created_by": 1,
        "created_at": "2026-01-31T08:00:00.000000Z",
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": "2026-01-31T09:00:00.000000Z",
    }

    id = node(Integer(1), "Id of the key: the number in it.")
    name = node(Text(), "What it is for.")
    role = node(Word(*ROLES), "What it permits.")
    created_by = node(Integer(1), "Id of the user who made it; null: an operator, or another key.", nullable=True)
    created_at = node(Timestamp(), "When it was made.")
    expires_at = node(Timestamp(), "When it ends; null: never.", nullable=True)
    revoked_at = node(Timestamp(), "When it was revoked; null: it was not.", nullable=True)
    last_used_at = node(Timestamp(), "When it was last used, to the minute; null: never.", nullable=True)


class ApiKeyMade(ApiKeyRead):
    """A new API key, with what to send: nobody can tell that again."""

    example = {**ApiKeyRead.example, "last_used_at": None, "key": "the-api-key"}

    key = node(Opaque(1, 128), "For `Authorization: Bearer`. Keep it: it is not shown again.")


class Me(colander.MappingSchema):
    """The signed-in user, or the API key that calls."""

    id = node(Integer(1), "Id of the user, or of the key.")
    kind = node(Word("user", "api_key"), "Which of the two it is.")
    email = node(Text(0, 320), "E-mail address; empty for a key.")
    name = node(Text(0), "Name.")
    role = node(Word(*ROLES), "The role that counts.")
    roles = colander.SequenceSchema(colander.SchemaNode(Word(*ROLES)), description="The same, as a list.")
    permissions = colander.SequenceSchema(
        colander.SchemaNode(Text()), description="What the role permits, as resource:action."
    )


def me(caller: Caller) -> dict[str, Any]:
    """A caller as JSON."""
    return {
        "id": caller.id,
        "kind": caller.kind,
        "email": caller.email,
        "name": caller.name,
        "role": caller.role,
        "roles": [caller.role],
        "permissions": sorted(ROLES[caller.role]),
    }


def session(found: RefreshFamily, caller: Caller) -> dict[str, Any]:
    """A session as JSON, for the caller whose it is."""
    return {
        "id": found.id,
        "client": found.client,
        "current": found.id == caller.session,
        "created_at": found.created_at,
        "used_at": found.used_at,
        "expires_at": found.expires_at,
    }


def api_key(found: ApiKey) -> dict[str, Any]:
    """An API key as JSON."""
    return {
        "id": found.id,
        "name": found.name,
        "role": found.role,
        "created_by": found.created_by,
        "created_at": found.created_at,
        "expires_at": found.expires_at,
        "revoked_at": found.revoked_at,
        "last_used_at": found.last_used_at,
    }
