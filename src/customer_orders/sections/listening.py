"""Addresses at which a process listens, as settings name them."""

from __future__ import annotations

import re

import colander


def addresses(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    """Raises ``colander.Invalid`` unless each is an address and a port."""
    for word in value:
        host, _, port = word.rpartition(":")
        # an address of IPv6 stands in brackets, or its last number would be a port
        sound = re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+|\*", host) and re.fullmatch("[0-9]{1,5}", port)
        if not sound or not 0 < int(port) < 65536:
            said = "write an address and a port, such as 0.0.0.0:6543 or [::]:6543"
            raise colander.Invalid(node, f"is {word!r}; {said}")


def one_address(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    """Raises ``colander.Invalid`` unless it is one, or none."""
    addresses(node, value)
    if len(value) > 1:
        raise colander.Invalid(node, f"is {' '.join(value)!r}; write one address and a port, such as 0.0.0.0:9464")
