"""Conditional requests: ``ETag``, ``If-None-Match``, ``If-Match`` (RFC 9110, sections 8.8.3 and 13.1).

A tag is ``"<version>.<notification version>"``. What a client changes is the part before the dot; the other part
changes with what became of the messages, which no write overwrites. So reading compares all of it, writing the former.
"""

from __future__ import annotations

import re
from typing import Any

from pyramid.httpexceptions import HTTPNotModified

from customer_orders.errors import DomainError, FieldError, Invalid
from customer_orders.settings import section

TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
TAGS = re.compile(rf"\s*{TAG}(\s*,\s*{TAG})*\s*")


def _tags(written: str) -> list[tuple[bool, str]] | None:
    """The tags of a header, each with whether it is weak; None if it is no list of them."""
    if not TAGS.fullmatch(written):
        return None
    return [(bool(found[1]), found[2]) for found in re.finditer(TAG, written)]


def tell(request: Any, version: int, notification_version: int = 0) -> None:
    """Tag the answer. Raises a 304 (RFC 9110, section 15.4.5) if a GET names this tag, weak or not, as known."""
    tag = f"{version}.{notification_version}"
    request.response.headers["ETag"] = f'"{tag}"'
    if request.method in ("GET", "HEAD"):
        written = request.headers.get("If-None-Match", "")
        # what cannot be read is no reason to keep the answer back
        if written.strip() == "*" or tag in [known for _, known in _tags(written) or ()]:
            raise HTTPNotModified(headers={"ETag": f'"{tag}"'})


def required_versions(request: Any) -> frozenset[int] | None:
    """The versions of which a write by this request wants to find one; None: any.

    Raises ``Invalid`` for an ``If-Match`` that is no list of tags, and ``DomainError`` where there is none and
    ``api.require_if_match`` wants one. A weak tag, or one that is not ours, matches nothing.
    """
    written = request.headers.get("If-Match")
    if written is None:
        if section(request.registry, "api").require_if_match:
            raise DomainError("Send If-Match with the ETag of what you read.", code="precondition-required")
        return None
    if written.strip() == "*":
        return None
    tags = _tags(written)
    if tags is None:
        wrong = 'Must be the ETag of what you read, in its quotes, such as "3.1"; several with commas between; or *.'
        raise Invalid([FieldError("If-Match", wrong, "header")])
    strong = [re.fullmatch(r"([1-9][0-9]{0,17})\.(0|[1-9][0-9]*)", tag) for weak, tag in tags if not weak]
    return frozenset(int(found[1]) for found in strong if found)
