"""What no secret looks like, and how an address shows without the one in it."""

from __future__ import annotations

import re

from sqlalchemy.engine import make_url

from customer_orders.settings import MASK

PLACEHOLDER = re.compile("change.?me|placeholder|example|replace|your.?(key|secret)|insert", re.IGNORECASE)


def masked_url(value: str) -> str:
    """An address as an operator may see it: its password is masked."""
    url = make_url(value)
    # libpq and Redis take passwords (password, sslpassword, ssl_password) in the query too
    hidden = {name: MASK for name in url.query if name.endswith("password")}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)
