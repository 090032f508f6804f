from __future__ import annotations

import socket

import pytest

from hpc.connect.interface import (
    address_towards,
    interface_address,
    interface_name,
    interface_of,
    is_address,
    is_loopback,
)
from hpc.errors import WorldError


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        ("lo", "127.0.0.1"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.9.9.9/8", "127.0.0.1"),
        ("127.0.0.8", "127.0.0.8"),
        ("127.0.0.8/32", "127.0.0.8"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_interface_is_asked_for_by_name_by_network_or_by_address(asked: str, address: str) -> None:
    assert interface_address(asked) == address


@pytest.mark.parametrize("asked", ["lo", "127.0.0.0/8", "127.0.0.1"])
def test_the_name_is_found_for_each_way_of_asking(asked: str) -> None:
    assert interface_name(asked) == "lo"


@pytest.mark.parametrize("asked", ["ib7", "198.51.100.0/24", "2001:db8::/32", "lo/8"])
@pytest.mark.parametrize("ask", [interface_address, interface_name])
def test_what_this_host_has_not_is_refused_with_what_it_has(asked: str, ask: object) -> None:
    assert callable(ask)
    with pytest.raises(WorldError, match=rf"a network .* of this host \(.*lo 127\.0\.0\.1.*\), but is {asked}\."):
        ask(asked)


def test_a_way_to_this_host_starts_at_this_host() -> None:
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this kernel has no IPv6")
def test_a_way_over_ipv6_is_found() -> None:
    assert interface_of(address_towards("::1")) == "lo"


def test_there_is_no_way_to_a_host_that_does_not_exist() -> None:
    assert address_towards("no-such-host.invalid") is None
    assert interface_of(None) is None


@pytest.mark.parametrize(
    ("text", "usable", "loopback"),
    [
        ("127.0.1.1", True, True),
        ("::1", True, True),
        ("10.1.0.7", True, False),
        ("fe80::1", False, False),
        ("node7", False, False),
    ],
)
def test_addresses_are_told_from_names_and_loopback_from_the_rest(text: str, usable: bool, loopback: bool) -> None:
    assert (is_address(text), is_loopback(text)) == (usable, loopback)
