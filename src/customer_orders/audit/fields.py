"""Which values an entry may hold. Entries cannot be erased, so no value that tells of a person gets into one."""

from __future__ import annotations

from enum import Enum


class Shown(Enum):
    """What an entry says of a field that changed."""

    VALUE = "its name and both values"
    NAME = "its name: it is personal, secret, or free text that may be"
    NEVER = "nothing: it changes with every change, or never"


V, N, X = Shown.VALUE, Shown.NAME, Shown.NEVER

# The one table, by subject and column. A field that it does not know is named only.
FIELDS: dict[str, dict[str, Shown]] = {
    "customer": {
        "id": X,
        "username": N,
        "phone_number": N,
        "reference": N,
        "metadata": N,
        "language": V,
        "sms_opt_out": V,
        "sms_opt_out_source": V,
        "sms_opt_out_at": V,
        "anonymized_at": V,
        "created_at": X,
        "updated_at": X,
        "version": X,
    },
    "order": {
        "id": X,
        "customer_id": V,
        # people write names into these: "cake for Amina"
        "item": N,
        "reference": N,
        "metadata": N,
        "amount": V,
        "currency": V,
        "status": V,
        "created_at": X,
        "updated_at": X,
        "version": X,
    },
    "user": {
        "id": X,
        "email": N,
        "name": N,
        "role": V,
        "granted_role": V,
        "disabled": V,
        "created_at": X,
        "updated_at": X,
    },
    "api_key": {
        "id": X,
        "name": N,
        "role": V,
        "secret_hash": X,
        "created_by": V,
        "created_at": X,
        "updated_at": X,
        "expires_at": V,
        "revoked_at": V,
        "last_used_at": X,
    },
    # that it was done says it all
    "notification": {},
    "session": {},
    "database": {},
    # what was refused: see refusals.py
    "access": {"code": V, "operation": V, "id": V},
    "sign_in": {"code": V, "operation": V, "provider": V},
    "token": {"code": V, "operation": V},
}


def shown(subject: str, field: str) -> Shown:
    """What an entry about ``subject`` says of a field."""
    return FIELDS.get(subject, {}).get(field, Shown.NAME)
