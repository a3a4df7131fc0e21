"""Every kind of problem: the one table behind answers, the document's responses, and the pages that explain them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One kind of problem.

    :param meaning: what it says about the request, for somebody who meets it for the first time.
    :param remedy: what the caller can do about it.
    :param retry_after: seconds after which the same request may work; None: it will not by waiting.
    :param example: what such a problem has beyond the members of all.
    """

    status: int
    title: str
    meaning: str
    remedy: str
    retry_after: int | None = None
    example: dict[str, Any] = field(default_factory=dict)


# The codes are stable: clients branch on them. New ones may come, none changes its meaning.
PROBLEMS: dict[str, Problem] = {
    "malformed": Problem(
        400,
        "The request cannot be read",
        "The path, the query or the body is not what its format allows: not UTF-8, not JSON, not an object, an object "
        "that names something twice, or nested too deep.",
        "Send UTF-8 and well-formed JSON, as `detail` says.",
    ),
    "invalid": Problem(
        400,
        "Some input is not valid",
        "The request can be read, but some of it breaks a rule, or is not known here. Nothing was done.",
        "Mend each field that `errors` names, then send it again. `location` says where it stands: in the `body`, the "
        "`querystring` or a `header`.",
        example={"errors": [{"location": "body", "name": "amount", "description": "Must be an integer from 0 to ..."}]},
    ),
    "sign-in-expired": Problem(
        400,
        "This sign-in cannot go on",
        "A sign-in is begun and finished by the same browser, once, within some minutes. This one was not.",
        "Start again at /login/; finish in the same tab.",
    ),
    "unauthenticated": Problem(
        401,
        "You are not signed in",
        "No access token came with the request, or it is not good any more: they last some minutes.",
        "Send `Authorization: Bearer <access token>`; sign in at /login/ to get one, or trade your refresh token for a "
        "new pair at `/api/token/refresh`.",
    ),
    "invalid-refresh-token": Problem(
        401,
        "This refresh token is not good",
        "It is unknown, spent, revoked or expired, or its user has no access any more.",
        "Sign in again. A refresh token is good once, until it expires.",
    ),
    "forbidden": Problem(
        403,
        "You may not do this",
        "We know who you are, and your role does not permit it. `/api/me` tells what it permits.",
        "Ask an administrator for a role that permits it.",
    ),
    "sign-in-refused": Problem(
        403,
        "The sign-in was refused",
        "The identity provider did not confirm who you are.",
        "Start again at /login/. If it goes on, tell your administrator the request id.",
    ),
    "no-role": Problem(
        403,
        "Your account has no role here",
        "We know who you are, and nobody has given you a role, or you were shut out.",
        "Ask an administrator to give you one (`customer-orders user grant`), then sign in again.",
    ),
    "not-found": Problem(
        404,
        "There is nothing here",
        "Nothing is at this path, or no thing has this id; it may have been deleted.",
        "Check the path and the id.",
    ),
    "method-not-allowed": Problem(
        405,
        "This path does not take that method",
        "Something is at this path, but this cannot be done with it.",
        "Use a method that the `Allow` header names.",
    ),
    "not-acceptable": Problem(
        406,
        "No such representation",
        "The `Accept` header wants something else than what there is.",
        "Accept `application/json`, or leave the header out.",
    ),
    "conflict": Problem(
        409,
        "The present state forbids it",
        "The request is fine by itself, but not with what is there now.",
        "Read the thing again, then decide.",
    ),
    "customer-has-orders": Problem(
        409,
        "The customer has orders",
        "Orders name their customer, so a customer stays as long as one of them does.",
        "Delete the customer's orders first: `/api/orders/?customer=` lists them.",
    ),
    "customer-anonymized": Problem(
        409,
        "The customer was anonymized",
        "Who the customer was has been wiped for good, so nothing new is kept on them: no order, no name, no number. "
        "Of their orders the status, the amount and the currency still change.",
        "If they order again, create a new customer.",
    ),
    "reference-taken": Problem(
        409,
        "The reference is another's already",
        "A `reference` is yours to choose, and one thing's only in its collection, so that you can find it again.",
        "Read the thing whose id is in `existing`: it may be the very one that you mean. Or send another `reference`.",
        example={"existing": 12},
    ),
    "illegal-transition": Problem(
        409,
        "The order cannot go there from where it stands",
        "An order is placed, then confirmed, then fulfilled; until then it can be cancelled. Nothing was done.",
        "Read the order: somebody else may have moved it on. `allowed` lists where it can go from where it stands.",
        example={"allowed": ["confirmed", "cancelled"]},
    ),
    "still-trying": Problem(
        409,
        "The message is still on its way",
        "It is queued, or being sent: it goes out by itself, and is tried again where that is worth while.",
        "Wait until it is failed, unknown or expired; its `next_attempt_at` tells when it is tried next.",
    ),
    "already-sent": Problem(
        409,
        "The message was sent already",
        "The provider took it, or the customer has it. To send it again would tell the customer twice.",
        "Nothing has to be done. One that was sent and never arrives becomes expired or failed, and can be sent then.",
    ),
    "message-obsolete": Problem(
        409,
        "What the message tells of is no more",
        "The order was cancelled or deleted, or the customer was deleted or anonymized, so the message would not be "
        "true any more.",
        "Tell the customer what is true now in another way.",
    ),
    "nothing-to-send": Problem(
        409,
        "The message has no text",
        "Its template failed or came to nothing, or its text was too long, when it was written, as `reason` tells; or "
        "it was kept for long enough, and wiped.",
        "Mend the template, so that the next messages have a text. This one stays as it is.",
    ),
    "opted-out": Problem(
        409,
        "The customer wants no SMS",
        "The customer opted out, and messages are not sent to those who did.",
        'If it has to be sent all the same, and you may decide that, send it again with `{"force": true}`.',
    ),
    "no-notifier": Problem(
        409,
        "No SMS is sent here",
        "The deployment has no notifier, so a message that is queued would stay where it is.",
        "Set `notifications.sms` to the name of a notifier (`customer-orders plugins` lists them), then send it again.",
    ),
    "idempotency-key-in-use": Problem(
        409,
        "A request with this Idempotency-Key is under way",
        "You sent it twice at the same time. Only one of the two is carried out.",
        "Send it again, with the same key, after the time in `Retry-After`; you get the answer of the first.",
        retry_after=1,
    ),
    "idempotency-answer-gone": Problem(
        409,
        "It was done, and its answer was not kept",
        "The first request with this `Idempotency-Key` succeeded. Its answer held a secret, and those are shown once; "
        "or it told of a customer who was anonymized since.",
        "If you lost a secret, revoke what was made, and ask for another with a new key. Otherwise nothing is to do.",
    ),
    "stale": Problem(
        412,
        "It has changed since you read it",
        "`If-Match` named a version that is not the present one: somebody else was faster. Nothing was done.",
        "Read it again, decide again, and send the new `ETag`.",
    ),
    "too-large": Problem(
        413,
        "The body is too large",
        "A body has a largest size; `limits.body_bytes` at `/api/` tells it.",
        "Send less; `detail` names the limit.",
    ),
    "unsupported-media-type": Problem(
        415,
        "The body has the wrong type",
        "Bodies are JSON in UTF-8, and say so.",
        "Send `Content-Type: application/json`.",
    ),
    "idempotency-key-reused": Problem(
        422,
        "The Idempotency-Key belongs to another request",
        "You used this key before, with another body. To answer as then would hide that nothing is done with this one.",
        "Make a new key for each thing that you want done; use one again only to repeat the very same request.",
    ),
    "precondition-required": Problem(
        428,
        "If-Match is missing",
        "This deployment wants every change to say which version it changes, so that nobody overwrites what they have "
        "not seen.",
        "Read the thing, then send `If-Match` with the `ETag` that came with it.",
    ),
    "too-many-requests": Problem(
        429,
        "Too many requests",
        "Of each address, and of each caller, only so many requests are taken in a time. `RateLimit-Policy` tells how "
        "many, and `RateLimit` how many are left. Nothing was done.",
        "Send it again after the seconds in `Retry-After`, and more slowly from then on.",
        # of what the header tells, only an example: it is counted anew for each answer
        retry_after=60,
    ),
    "internal-error": Problem(
        500,
        "Something went wrong on our side",
        "It is no fault of the request. Nothing of it was done.",
        "Try again; if it goes on, report the request id.",
    ),
    "unavailable": Problem(
        503,
        "Temporarily not available",
        "Something that this service depends on does not answer. Nothing was done.",
        "Try again after the time in `Retry-After`; a POST with an `Idempotency-Key` can be repeated without harm.",
        retry_after=5,
    ),
}

# What a request gets whose path leads nowhere, too.
ANYWHERE = {
    *("malformed", "not-found", "method-not-allowed", "too-large", "too-many-requests"),
    *("internal-error", "unavailable"),
}

# What a status means where nothing more is known.
BY_STATUS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict",
    412: "stale",
    413: "too-large",
    415: "unsupported-media-type",
    429: "too-many-requests",
    500: "internal-error",
    503: "unavailable",
}
