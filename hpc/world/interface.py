"""Which of this host's network interfaces, and which of its addresses, do the other hosts reach?

`runtime.interface` may be said in three ways: an interface by name (`ib0`), an address (`10.1.0.7`), or a network
(`10.1.0.0/16`), which is the one that means the same on hosts whose interfaces are named differently.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import TypeAlias

import psutil

from hpc.errors import WorldError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def interface_address(asked: str) -> str:
    """The address of this host that `runtime.interface` means; an address is taken as it is.

    Raises:
        WorldError: This host has no such interface, or no address in that network.
    """
    network = _network(asked)
    if network is not None and network.num_addresses == 1:
        return str(network.network_address)
    return _matching(asked)[1]


def interface_name(asked: str) -> str:
    """The interface of this host that `runtime.interface` means.

    An address belongs to one host, rank 0's; on the others it means the interface that leads to it.

    Raises:
        WorldError: This host has no such interface, no address in that network, or no way to that address.
    """
    network = _network(asked)
    if network is None or network.num_addresses > 1:
        return _matching(asked)[0]
    name = interface_of(address_towards(asked))
    if name is None:
        raise WorldError(_refusal(asked))
    return name


def interface_of(address: str | None) -> str | None:
    """The name of the interface that has this address; None when none has."""
    return next((name for name, found in _addresses() if found == address), None)


def address_towards(host: str) -> str | None:
    """The address that this host uses to speak to another; None when it cannot. Connecting a datagram sends nothing."""
    try:
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    return next((address for family, _, _, _, target in found if (address := _source(family, target))), None)


def is_address(text: str) -> bool:
    """Whether this is a numeric address that needs no scope."""
    try:
        return not ipaddress.ip_address(text).is_link_local
    except ValueError:
        return False


def is_loopback(address: str | None) -> bool:
    """Whether a numeric address never leaves its host."""
    return address is not None and is_address(address) and ipaddress.ip_address(address).is_loopback


def _source(family: int, target: tuple[object, ...]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:  # this family has no route there
        return None


def _network(asked: str) -> Network | None:
    try:
        return ipaddress.ip_network(asked, strict=False)
    except ValueError:
        return None


def _matching(asked: str) -> tuple[str, str]:
    """The first interface, with its address, that has this name or is in this network."""
    network = _network(asked)
    for name, address in _addresses():
        if name == asked if network is None else ipaddress.ip_address(address) in network:
            return name, address
    raise WorldError(_refusal(asked))


def _addresses() -> Iterable[tuple[str, str]]:
    """Every usable address of this host, with its interface."""
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if is_address(entry.address):
                yield name, entry.address


def _refusal(asked: str) -> str:
    known = ", ".join(f"{name} {address}" for name, address in sorted(_addresses()))
    return (
        f"runtime.interface must be an address, a network (10.1.0.0/16) or an interface of this host ({known}), but is"
        f" {asked}."
    )
