"""What goes in and out when people sign in."""

from __future__ import annotations

from typing import Any

import colander

from customer_orders.api.fields import Body, Integer, Opaque, Text, Word, node
from customer_orders.auth.policy import ROLES, Caller


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


class Me(colander.MappingSchema):
    """The signed-in user."""

    id = node(Integer(1), "Id of the user.")
    email = node(Text(0, 320), "E-mail address.")
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
        "email": caller.email,
        "name": caller.name,
        "role": caller.role,
        "roles": [caller.role],
        "permissions": sorted(ROLES[caller.role]),
    }
