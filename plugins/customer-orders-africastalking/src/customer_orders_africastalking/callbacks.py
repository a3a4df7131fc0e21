"""What Africa's Talking posts to us, in the words of the contract.

Source: https://developers.africastalking.com/docs/sms/notifications, on delivery reports and bulk SMS opt-outs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from customer_orders.interfaces import OptOut, Report

FORM = "application/x-www-form-urlencoded"

# What it says became of a message, in small letters, and what the core is told. The last two are documented as final.
STATUSES = {
    "sent": "sent",
    "submitted": "sent",
    "buffered": "sent",
    "success": "delivered",
    "failed": "failed",
    "rejected": "failed",
    "absentsubscriber": "failed",
    "expired": "failed",
}


def read(headers: Mapping[str, str], body: bytes) -> Sequence[Report | OptOut]:
    """The delivery report, or the opt-out, in a form. Raises ``ValueError`` for anything else."""
    form = _form(headers.get("Content-Type", ""), body)
    if "id" in form or "status" in form:
        return [_report(form)]
    if "senderId" in form:
        # whichever of our senders it names: nobody who said STOP wants to find out how many there are
        return [OptOut(_number(form.get("phoneNumber", "")) or "")]
    raise ValueError("neither a delivery report nor an opt-out")


def _form(content_type: str, body: bytes) -> Mapping[str, str]:
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise ValueError("not a form")
    pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError("a field is given twice")
    return dict(pairs)


def _report(form: Mapping[str, str]) -> Report:
    reference, told = form.get("id", ""), form.get("status", "")
    status = STATUSES.get(told.lower())
    if status is None:
        raise ValueError("a status that is not documented")
    if reference.strip().lower() in ("", "none"):
        raise ValueError("a report of no message")
    reason = None
    if status == "failed":
        reason = form.get("failureReason", "")
        # the documented ones are names, such as UserInBlackList
        if not re.fullmatch("[A-Za-z][A-Za-z ]{0,99}", reason):
            reason = told
    return Report(reference, status, reason, _number(form.get("phoneNumber", "")))


def _number(told: str) -> str | None:
    """A number in E.164; None if it is masked, or none. A plus that was not escaped is a space by now."""
    found = re.fullmatch("[+ ]?([1-9][0-9]{6,14})", told)
    return None if found is None else f"+{found[1]}"
