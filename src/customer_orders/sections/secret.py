"""What no secret looks like, and the secrets in an address: which they are, and how it shows without them."""

from __future__ import annotations

from sqlalchemy.engine import make_url

from customer_orders.settings import MASK, PLACEHOLDER

__all__ = ["PLACEHOLDER", "masked_url", "passwords_in"]


def _is_password(name: str) -> bool:
    # libpq and Redis take passwords (password, sslpassword, ssl_password) in the query too
    return name.endswith("password")


def masked_url(value: str) -> str:
    """An address as an operator may see it: its password is masked."""
    url = make_url(value)
    hidden = {name: MASK for name in url.query if _is_password(name)}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def passwords_in(value: str) -> tuple[str, ...]:
    """The passwords in an address; one that is not there may be empty."""
    url = make_url(value)
    return (url.password or "", *(str(word) for name, word in url.query.items() if _is_password(name)))
