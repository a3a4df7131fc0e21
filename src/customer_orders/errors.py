"""The kinds of domain error: what a service may raise.

A service knows no HTTP. :mod:`customer_orders.api.problems` alone maps these kinds to responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class DomainError(Exception):
    """What went wrong, in a sentence for the person who called."""

    code = "internal-error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong.

    :param name: the field, dotted where it is nested; empty for the whole.
    :param location: ``body``, ``querystring`` or ``header``.
    """

    name: str
    description: str
    location: str = "body"


class NotFound(DomainError):
    """The thing asked for does not exist."""

    code = "not-found"


class Invalid(DomainError):
    """The input breaks a rule; every broken rule is in ``errors``."""

    code = "invalid"

    def __init__(self, errors: list[FieldError], *, code: str | None = None) -> None:
        names = ", ".join(dict.fromkeys(error.name for error in errors if error.name))
        super().__init__(f"Not valid: {names}." if names else errors[0].description, code=code)
        self.errors = errors


class Conflict(DomainError):
    """The input is fine, but the present state forbids it.

    :param facts: what a program can act on, by name: ``existing``, the id of what is in the way; ``allowed``, what the
        state does allow.
    """

    code = "conflict"

    def __init__(self, detail: str, *, code: str | None = None, **facts: Any) -> None:
        super().__init__(detail, code=code)
        self.facts = facts


class Stale(DomainError):
    """The caller decided on a state that has changed since."""

    code = "stale"


class Forbidden(DomainError):
    """The caller is known and may not do this."""

    code = "forbidden"


class Unauthenticated(DomainError):
    """The proof of identity that was given is missing, spent, or not ours."""

    code = "unauthenticated"


class Unavailable(DomainError):
    """Something that this depends on does not answer; trying again later may work."""

    code = "unavailable"


class TooMany(DomainError):
    """More was asked than is taken of one address or caller.

    :param retry_after: seconds after which more is.
    """

    code = "too-many-requests"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
