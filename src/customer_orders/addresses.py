"""The address that a request comes from, and which proxies are believed about it (``app.trusted_proxies``).

Whoever sends a request can write anything into ``X-Forwarded-For``. Each proxy adds, at its right end, the address
that it was called from; so what is right of the first address that is nobody we trust was written by proxies that we
trust, and what is left of it by anybody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Stands for every peer on a Unix socket, which has no address. WSGI servers give it another name each.
UNIX = "unix"
# Bits of an IPv6 address that one customer of a network gets at the least (RFC 6177, RFC 7421): who has those can
# have a new address for each request.
SHARED_BITS = 64

BRACKETED = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?")
WITH_PORT = re.compile(r"([^:]*):[0-9]{1,5}")


def parse(text: str) -> Address | None:
    """The address that ``text`` is, as people and proxies write it; None if it is none.

    With or without a port, quotes, the brackets of IPv6 or its zone. IPv4 that is mapped into IPv6
    (RFC 4291, section 2.5.5.2), as sockets for both tell it, is IPv4.
    """
    text = text.strip(' \t"')
    written = BRACKETED.fullmatch(text) or WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(written[1] if written else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def neighbourhood(address: str) -> str:
    """What is limited together with ``address``: itself, or the /64 that an IPv6 address is in."""
    found = parse(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, SHARED_BITS), strict=False))
    return address


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class TrustedProxies:
    """The proxies that are believed about the address of who called them.

    :param words: addresses, networks (CIDR, RFC 4632), or ``unix`` for whoever calls by a Unix socket. Raises
        ValueError with what is wrong, and how to write it.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.unix = UNIX in words
        self.networks = [_network(word) for word in words if word != UNIX]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def client(self, peer: str, forwarded: str) -> str | None:
        """The address of the client; None if it has none that we know.

        :param peer: the other end of the connection, as the server tells it.
        :param forwarded: ``X-Forwarded-For``; of several such lines, all with commas between (RFC 9110, section 5.3).
        """
        address = parse(peer)
        if not (self.unix if address is None else address in self):
            return None if address is None else str(address)
        for word in reversed(forwarded.split(",")):
            if not word.strip():
                continue
            further = parse(word)
            if further is None:
                # the last proxy that we trust did not say who called it
                break
            address = further
            if address not in self:
                break
        return None if address is None else str(address)


def _network(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f"is {word!r}; write addresses or networks, such as 10.0.0.5 or 10.1.0.0/16") from None
    if network.prefixlen == 0:
        raise ValueError(f"is {word!r}; that is everybody, and anybody could claim any address. Name the proxies")
    if ipaddress.ip_address(word.partition("/")[0]) != network.network_address:
        raise ValueError(f"is {word!r}; an address in a network is no network. Write {network}")
    return network
