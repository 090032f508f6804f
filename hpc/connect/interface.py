"""Through which network interface, and at which address, do the other hosts reach this one?

`runtime.interface` is the name of an interface (`ib0`), an address (`10.1.0.7`), or a network (`10.1.0.0/16`). A
network is the best choice where interfaces have different names on different hosts.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, MutableMapping
from typing import TypeAlias

import psutil

from hpc.connect.sealed import SealedStore
from hpc.errors import WorldError
from hpc.world import World

LOOPBACK = "127.0.0.1"
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

    An address belongs to one host only, which is rank 0's; on the other hosts it means the interface that leads there.

    Raises:
        WorldError: This host has no such interface, no address in that network, or no route to that address.
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
    """The address from which this host sends to another one; None where there is no route.

    Nothing is sent: connecting a datagram socket only asks the kernel for the route.
    """
    try:
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    return next((address for family, _, _, _, target in found if (address := _source(family, target))), None)


def is_address(text: str) -> bool:
    """Whether this is a numeric address that can be used without naming an interface: not a link-local one."""
    try:
        return not ipaddress.ip_address(text).is_link_local
    except ValueError:
        return False


def is_loopback(address: str | None) -> bool:
    """Whether this is a numeric loopback address."""
    return address is not None and is_address(address) and ipaddress.ip_address(address).is_loopback


def fabric_name(host: str, suffix: str) -> str:
    """The host's name on the network of `runtime.host_suffix`: with the suffix i, node7.lab becomes node7i.lab."""
    if not suffix or is_address(host):
        return host
    label, dot, domain = host.partition(".")
    return f"{label}{suffix}{dot}{domain}"


def choose_interface(
    environ: MutableMapping[str, str],
    world: World,
    store: SealedStore,
    asked: str | None = None,
    host_suffix: str = "",
) -> None:
    """Tell gloo which interface reaches the other hosts.

    By itself gloo takes the interface of the address that this host's own name resolves to, which may be the wrong one.

    Collective where a launcher names fewer hosts than there are nodes, as torchrun and env:// do. The host that
    MASTER_ADDR names then knows no other host, so the ranks exchange their addresses through the store.

    Args:
        environ: Gets GLOO_SOCKET_IFNAME, unless it is there already.
        world: This rank.
        store: Shared by all ranks.
        asked: `runtime.interface`.
        host_suffix: `runtime.host_suffix`.

    Raises:
        WorldError: This host does not have the interface that was asked for.
    """
    if world.node_count == 1:
        address = address_towards(LOOPBACK)
    else:
        others = [fabric_name(host, host_suffix) for host in _other_hosts(world)]
        address = _outward_address(others)
        if len(world.hosts) < world.node_count:
            address = _told_address(world, store, address)
    name = interface_name(asked) if asked else interface_of(address)
    if name:
        environ.setdefault("GLOO_SOCKET_IFNAME", name)


def addresses_towards_ranks(world: World, host_suffix: str = "") -> tuple[str, ...]:
    """Where rank 0 listens: at the addresses of the interface that leads to the other hosts, the one used first.

    Loopback where there are no other hosts, and an empty address, which means all, where no way is known to any.

    Args:
        world: This rank, in a world whose hosts are all known.
        host_suffix: `runtime.host_suffix`.
    """
    if all(is_loopback(host) for host in world.hosts):
        return (world.hosts[world.node_rank],)
    if world.node_count == 1:
        return (LOOPBACK,)
    outward = _outward_address([fabric_name(host, host_suffix) for host in _other_hosts(world)])
    if outward is None:
        return ("",)
    found = list(_addresses())
    names = [name for name, address in found if address == outward]
    return tuple(dict.fromkeys([outward, *(address for name, address in found if name in names)]))


def _other_hosts(world: World) -> list[str]:
    """At most eight other hosts, to find the route to; this one is left out where it is known which one it is."""
    known = len(world.hosts) == world.node_count
    return [host for node, host in enumerate(world.hosts) if not (known and node == world.node_rank)][:8]


def _outward_address(hosts: list[str]) -> str | None:
    """The address from which this host sends to the first of these hosts that has a route and is not this host."""
    found = (address_towards(host) for host in hosts)
    return next((address for address in found if address and not is_loopback(address)), None)


def _told_address(world: World, store: SealedStore, address: str | None) -> str | None:
    """The address that was found, or else the one from which this host sends to the first rank that has found one."""
    store.set(f"address/{world.rank}", address or "")
    if address:
        return address
    for rank in range(world.world_size):
        told = store.get(f"address/{rank}")
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
