"""Checks of secrets: where they are kept, and whether they can be guessed."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from customer_orders.doctor.deployment import Deployment
from customer_orders.interfaces import CheckFailed
from customer_orders.sections.access import MAKE_A_KEY
from customer_orders.sections.keys import key_ring
from customer_orders.sections.messages import MAKE_A_WORD
from customer_orders.settings import variable

# Bytes that zlib (RFC 1950) adds to what cannot be made shorter.
FRAME = 8
# Characters that say something new, at the least: so many of a random word are 128 bits, or more.
KEY, WORD = 32, 16


def check_places(deployment: Deployment) -> str:
    """Secrets are in files or variables, and others on the machine cannot read them."""
    deployment.need_ini()
    held = [setting for setting, _ in deployment.secret_settings()]
    written = sorted(setting.key for setting in held if setting.origin == "INI")
    wrong = []
    if written:
        wrong.append(f"The INI holds secrets: {', '.join(written)}.")
        if _others_read(deployment.config):
            wrong.append(f"Everybody on this machine can read {deployment.config}.")
    files = _files([setting.key for setting in held])
    wrong += [f"Everybody on this machine can read {file}." for file in files if _others_read(file)]
    if wrong:
        variables = " ".join(f"{variable(key)}_FILE" for key in written)
        move = f"Move them to files, and name these by {variables}. " if written else ""
        raise CheckFailed("\n".join(wrong), remedy=f"{move}Have only the service read them (chmod o-r).", warning=True)
    return f"Not in the INI: {', '.join(sorted(setting.key for setting in held)) or 'there are none'}."


def _files(keys: list[str]) -> Iterator[Path]:
    for key in sorted(keys):
        if named := os.environ.get(f"{variable(key)}_FILE", "").strip():
            yield Path(named)


def _others_read(file: Path) -> bool:
    return bool(file.stat().st_mode & stat.S_IROTH)


def _novel(secret: str) -> int:
    """How many characters say something new: what repeats, or was typed along the keyboard twice, compresses."""
    return len(zlib.compress(secret.encode(), 9)) - FRAME


def check_signing_key(deployment: Deployment) -> str:
    """The keys that sign access tokens are random. Their length, and placeholders, are the settings' to refuse."""
    settings = deployment.section("jwt")
    ring = key_ring(settings.private_key)
    weak = [key.kid for key in ring if _novel(key.secret) < KEY]
    if weak:
        said = f"Of jwt.private_key, {', '.join(weak)} repeats itself: whoever guesses it signs in as anyone."
        raise CheckFailed(said, remedy=f"{MAKE_A_KEY} Then change it as docs/operating.md says.")
    others = f"; {len(ring) - 1} more verify" if len(ring) > 1 else ""
    return f"{ring[0].kid} signs with {settings.algorithm}{others}."


def check_report_secrets(deployment: Deployment) -> str:
    """The secret in the address of delivery reports is random."""
    words = deployment.section("notifications").report_secrets
    if not words:
        return "There are none: no delivery reports are taken."
    if any(_novel(word) < WORD for word in words):
        said = "One of notifications.report_secrets repeats itself: whoever guesses it can report what they like."
        raise CheckFailed(said, remedy=MAKE_A_WORD)
    return "One is good." if len(words) == 1 else "Two are good; take the old one out once nobody uses it."
