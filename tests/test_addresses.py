"""Where a request comes from: what proxies that are trusted say, and nothing that anybody else does."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_orders.addresses import TrustedProxies, neighbourhood, parse

PROXIES = TrustedProxies(["10.0.0.5", "10.1.0.0/16", "2001:db8:ffff::/48"])
PROXY = "10.0.0.5"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7\t", "192.0.2.7"),
        ("192.0.2.7:49152", "192.0.2.7"),
        ('"192.0.2.7:49152"', "192.0.2.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:49152", "2001:db8::7"),
        ('"[2001:db8::7]:49152"', "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:49152", "192.0.2.7"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("localhost", None),
        ("192.0.2.7:", None),
        ("192.0.2.7:port", None),
        ("192.0.2.7:1:2", None),
        ("192.0.2.07", None),
        ("192.0.2", None),
        ("192.0.2.7/24", None),
        ("192.0.2.7%eth0", None),
        ("[192.0.2.7", None),
        ("2001:db8::7]", None),
        ("[2001:db8::7]49152", None),
        ("١٩٢.0.2.7", None),
        ("192.0.2.7\x00", None),
        ("3221225991", None),
    ],
)
def test_an_address_is_read_as_proxies_write_it(written, address):
    assert str(parse(written) or "") == (address or "")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # nobody we trust: what it says is nothing
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.9", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.9, 10.0.0.5", "192.0.2.7"),
        ("10.0.0.6", "198.51.100.9", "10.0.0.6"),
        # one proxy, and more
        (PROXY, "192.0.2.7", "192.0.2.7"),
        ("::ffff:10.0.0.5", "192.0.2.7", "192.0.2.7"),
        ("2001:db8:ffff::1", "2001:db8::7", "2001:db8::7"),
        (PROXY, "198.51.100.9, 192.0.2.7", "192.0.2.7"),
        (PROXY, "198.51.100.9, 192.0.2.7, 10.1.2.3", "192.0.2.7"),
        (PROXY, "198.51.100.9, 192.0.2.7:443, [2001:db8:ffff::2]:80, 10.1.2.3", "192.0.2.7"),
        # several lines are one with commas between; elements may be empty
        (PROXY, "198.51.100.9,192.0.2.7,,10.1.2.3, ", "192.0.2.7"),
        # a proxy that does not say who called it answers for them
        (PROXY, "", "10.0.0.5"),
        (PROXY, "192.0.2.7, unknown", "10.0.0.5"),
        (PROXY, "192.0.2.7, unknown, 10.1.2.3", "10.1.2.3"),
        # it called itself
        (PROXY, "10.1.2.4, 10.1.2.3", "10.1.2.4"),
        # no address at all
        ("", "192.0.2.7", None),
        ("localhost", "192.0.2.7", None),
        ("@", "192.0.2.7", None),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(peer, forwarded, client):
    assert PROXIES.client(peer, forwarded) == client


@pytest.mark.parametrize("peer", ["", "localhost", "unix:"])
def test_a_proxy_on_a_unix_socket_is_trusted_if_it_is_named(peer):
    behind = TrustedProxies(["unix", "10.0.0.5"])
    assert behind.client(peer, "198.51.100.9, 192.0.2.7, 10.0.0.5") == "192.0.2.7"
    assert behind.client(peer, "") is None
    assert behind.client("192.0.2.7", "198.51.100.9") == "192.0.2.7"


any_address = st.ip_addresses().map(str)
strangers = (
    st.ip_addresses().filter(lambda address: parse(str(address)) not in PROXIES).map(lambda a: str(parse(str(a))))
)
trusted = st.one_of(
    st.just(PROXY),
    st.ip_addresses(network="10.1.0.0/16").map(str),
    st.ip_addresses(network="2001:db8:ffff::/48").map(str),
)


def written(address):
    """As one proxy or another writes it."""
    if ":" in address:
        return st.sampled_from([address, address.upper(), f"[{address}]", f"[{address}]:443", f'"[{address}]:443"'])
    return st.sampled_from([address, f"{address}:443", f'"{address}"', f"::ffff:{address}"])


@given(strangers, st.text(), st.lists(any_address))
def test_whoever_is_not_trusted_can_claim_nothing(peer, garbage, claimed):
    assert PROXIES.client(peer, garbage) == peer
    assert PROXIES.client(peer, ",".join([*claimed, garbage])) == peer
    assert TrustedProxies([]).client(peer, ",".join([garbage, *claimed])) == peer


@given(st.data(), strangers, st.text(), st.lists(trusted, max_size=4), trusted)
def test_through_any_chain_of_trusted_proxies_a_client_is_who_called_the_first(data, client, claimed, chain, peer):
    told = [data.draw(written(address)) for address in (client, *chain)]
    assert PROXIES.client(peer, ", ".join([claimed, *told])) == client


@given(st.text(), st.text())
def test_whatever_comes_is_an_address_or_none(peer, forwarded):
    for proxies in (PROXIES, TrustedProxies(["unix"])):
        told = proxies.client(peer, forwarded)
        assert told is None or str(ipaddress.ip_address(told)) == told


def test_who_has_a_network_of_ipv6_is_one():
    assert neighbourhood("2001:db8:1:2:3::4") == neighbourhood("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert neighbourhood("2001:db8:1:3::4") != neighbourhood("2001:db8:1:2::4")
    assert neighbourhood("192.0.2.7") == "192.0.2.7"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("proxy.example", "write addresses or networks, such as 10.0.0.5"),
        ("*", "write addresses or networks"),
        ("10.0.0.0/33", "write addresses or networks"),
        ("10.0.0.5:80", "write addresses or networks"),
        ("10.0.0.5/8", "Write 10.0.0.0/8"),
        ("0.0.0.0/0", "anybody could claim any address"),
        ("::/0", "anybody could claim any address"),
    ],
)
def test_a_proxy_that_cannot_be_trusted_says_why(word, says):
    with pytest.raises(ValueError, match=says):
        TrustedProxies(["10.0.0.5", word])
