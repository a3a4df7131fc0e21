"""What schemathesis is told beyond the document: how to make what a pattern cannot, and which failures are none.

Every check runs on every operation; no answer is let through here but the ones below, each with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import MissingContentType, RejectedPositiveData

from customer_orders.api.paging import encode
from customer_orders.keyset import Ordering, Position

# What no schema can say of a value, by where it is: a part of what the problem says of it then.
BEYOND_SCHEMAS = {
    # a pattern tells digits from letters; which digits make a number of which country is a table of some 100 kB
    ("body", "phone_number"): "Must be a phone number",
    ("querystring", "phone"): "Must be a phone number",
    # whether a customer exists is for the database to say
    ("body", "customer"): "There is no customer",
    # what is past, the clock says
    ("body", "expires_at"): "Must lie in the future",
    # cursors are made by the service, each for one ordering
    ("querystring", "cursor"): "Is not a cursor of this list in this order",
    # Swagger 2.0 has no word for what excludes what ...
    ("querystring", "count"): "Cannot be had with",
    # ... nor for the names of properties: the document says it in x-propertyNames
    ("body", "metadata"): "Key ",
}

WRITTEN = ("+254{}", "0{}", "00254 {}", "tel:+254-{}", "(0){}")


@st.composite
def phones(draw: Any) -> str:
    """Numbers that are possible in Kenya, in some of the ways that people write them."""
    return draw(st.sampled_from(WRITTEN)).format(draw(st.integers(10**8, 10**9 - 1)))


# Formats that are made here: what a pattern alone makes is hardly ever any of them. The last two are not in the
# document, to whose readers they are opaque.
schemathesis.openapi.format("phone", phones())
schemathesis.openapi.format("cursor", st.integers(1, 50).map(lambda last: encode(Ordering(), Position((last,), False))))
schemathesis.openapi.format("etag", st.sampled_from(('"1.0"', '"1.1"', '"2.0"', 'W/"1.0", "1.0"', '"1.0" ,"2.0"', "*")))
FORMATS = {"cursor": "cursor", "If-Match": "etag", "If-None-Match": "etag"}


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Have cursors and tags made that may be real, and phone numbers begun with one that is."""
    for part in _objects(raw_schema["paths"]):
        if "in" in part and part["name"] in FORMATS:
            part["format"] = FORMATS[part["name"]]
        if part.get("format") == "phone":
            part["example"] = "+254713812939"


def _objects(json: Any) -> Iterator[dict[str, Any]]:
    """Every object in something of JSON."""
    if isinstance(json, dict):
        yield json
        json = list(json.values())
    for inner in json if isinstance(json, list) else ():
        yield from _objects(inner)


# How often what is good for one request alone was sent: each Idempotency-Key, each reference, any If-Match.
sent: Counter[str] = Counter()


def _fresh(value: str) -> str:
    """The value, until it was sent three times; something like it after that."""
    sent[value] += 1
    return value if sent[value] <= 3 else f"{value[:200]}-{sent[value]}"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Let most requests past what stops them: a phase sends hundreds of bodies with one key, tag and reference."""
    meta, headers, body = case.meta, case.headers, case.body
    if meta is None:
        return
    if not meta.is_negative_at(ParameterLocation.HEADER):
        if "Idempotency-Key" in headers:
            headers["Idempotency-Key"] = _fresh(headers["Idempotency-Key"])
        if "If-Match" in headers:
            sent["If-Match"] += 1
            # three of four are any version
            headers["If-Match"] = "*" if sent["If-Match"] % 4 else headers["If-Match"]
    if not meta.is_negative_at(ParameterLocation.BODY) and isinstance(body, dict) and body.get("reference"):
        body["reference"] = _fresh(body["reference"])


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    """Whether a body may be sent as it is."""
    # A string of digits is taken for an integer. Swagger 2.0 has one type for each thing, so it would be thought wrong.
    given = [body.get(name) for name in ("amount", "customer")] if isinstance(body, dict) else []
    return not any(isinstance(one, str) and one.isascii() and one.isdigit() for one in given)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure is one."""
    if isinstance(failure, MissingContentType):
        # Swagger 2.0 says of an operation, not of an answer, which types it has; these have no body, so no type
        return response.status_code not in (204, 304) or response.content != b""
    if isinstance(failure, RejectedPositiveData):
        return not _is_beyond_the_document(case, response.status_code, response.json())
    return True


def _is_beyond_the_document(case: Any, status: int, problem: dict[str, Any]) -> bool:
    """Whether a request was refused, in the right way, for what the document cannot tell."""
    headers = case.headers or {}
    match status, problem["code"]:
        case 400, "invalid":
            wrong = [(error["location"], error["name"], error["description"]) for error in problem["errors"]]
            return all(BEYOND_SCHEMAS.get((where, name), "\0") in says for where, name, says in wrong)
        case 400, "sign-in-expired":
            # it takes the cookie and the state that the redirect before gave to this browser
            return case.operation.definition.raw["operationId"] == "sign_in_callback"
        case 412, "stale":
            # a tag that was made up is not the one that things have
            return headers.get("If-Match", "*") != "*"
        case 422, "idempotency-key-reused":
            # it sends one key again with other bodies
            return "Idempotency-Key" in headers
    return False
