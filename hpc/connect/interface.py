"""Which of this host's network interfaces, and which of its addresses, do the other hosts reach?

`runtime.interface` may be said in three ways: an interface by name (`ib0`), an address (`10.1.0.7`), or a network
(`10.1.0.0/16`), which is the one that means the same on hosts whose interfaces are named differently.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, MutableMapping
from typing import TypeAlias

import psutil
from torch.distributed import Store

from hpc.errors import WorldError
from hpc.world import World

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


def fabric_name(host: str, suffix: str) -> str:
    """What a host is called on the network that `runtime.host_suffix` names: node7.lab is node7i.lab."""
    if not suffix or is_address(host):
        return host
    label, dot, domain = host.partition(".")
    return f"{label}{suffix}{dot}{domain}"


def choose_interface(
    environ: MutableMapping[str, str],
    world: World,
    store: Store,
    asked: str | None = None,
    host_suffix: str = "",
) -> None:
    """Tell gloo which interface reaches the other hosts; left alone it trusts what the own host name resolves to.

    Collective where a launcher names fewer hosts than there are nodes, as torchrun and env:// do: the host that
    MASTER_ADDR names has nobody to look towards, so each rank says through the store how it is seen from outside.

    Args:
        environ: Gets GLOO_SOCKET_IFNAME, unless it is there already.
        world: This rank.
        store: Shared by all ranks.
        asked: `runtime.interface`.
        host_suffix: `runtime.host_suffix`.

    Raises:
        WorldError: This host has not the interface that was asked for.
    """
    if world.node_count == 1:
        address = address_towards("127.0.0.1")
    else:
        others = [fabric_name(host, host_suffix) for host in _other_hosts(world)]
        address = _outward_address(others)
        if len(world.hosts) < world.node_count:
            address = _told_address(world, store, address)
    name = interface_name(asked) if asked else interface_of(address)
    if name:
        environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _other_hosts(world: World) -> list[str]:
    """Hosts that may be asked for the way: all but this one, where it is known which one this is."""
    known = len(world.hosts) == world.node_count
    return [host for node, host in enumerate(world.hosts) if not (known and node == world.node_rank)][:8]


def _outward_address(hosts: list[str]) -> str | None:
    """This host's address on the way to the first of these hosts that there is a way to, and that is not this one."""
    found = (address_towards(host) for host in hosts)
    return next((address for address in found if address and not is_loopback(address)), None)


def _told_address(world: World, store: Store, address: str | None) -> str | None:
    """The address towards another node: this rank's own, or the way to the first rank that has one."""
    store.set(f"address/{world.rank}", address or "")
    if address:
        return address
    for rank in range(world.world_size):
        told = store.get(f"address/{rank}").decode()
        if told:
            return _outward_address([told])
    return None


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
