"""How do the ranks of a world find each other?

Where the launcher gave no address, rank 0 lets the kernel choose a port for torch's store, and a beacon tells the
others where it is (`hpc.connect.beacon`). So no port is guessed, no shared file system is needed, and rank 0 may be on
any host. A client of torch's store is never used to look for the store: where a program listens and does not answer, it
blocks for half a minute, whatever timeout it was given (torch 2.13).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial

from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from hpc.connect.beacon import Beacon, Endpoint, Identity, listen
from hpc.connect.interface import LOOPBACK, addresses_towards_ranks, fabric_name, interface_address, is_loopback
from hpc.connect.meeting import POLLS_PER_SECOND, meet, shortened
from hpc.connect.mpiexec import SOURCES as HYDRA
from hpc.connect.mpiexec import control_port
from hpc.connect.sealed import SealedStore
from hpc.connect.search import find_beacon
from hpc.errors import WorldError
from hpc.run.secret import Secret
from hpc.say import error as say_error
from hpc.world.world import World


def open_store(
    world: World,
    secret: Secret,
    *,
    timeout_seconds: float = 300.0,
    interface: str | None = None,
    host_suffix: str = "",
) -> SealedStore:
    """Connect this rank to a store that all ranks share; returns once every rank is there and has proved itself.

    Collective.

    Args:
        world: This rank.
        secret: The same for all ranks, and known to nobody else.
        timeout_seconds: How long to wait for the last rank.
        interface: Network interface, address, or network (CIDR) at which rank 0's store listens; None means the one
            that leads to the other ranks.
        host_suffix: Added to the first part of every host's name: `i` where the fast network calls node7 node7i.

    Raises:
        WorldError: A rank is missing, came twice or has another secret, or rank 0 was not found; the message names
            ranks, hosts and ports.
    """
    if world.world_size == 1:
        return SealedStore(HashStore(), secret.value)
    deadline = time.monotonic() + timeout_seconds
    identity = _identity(world, secret)
    with ExitStack() as stack:
        if world.master is not None:
            store = _open_given(world, world.master, deadline)
        elif world.rank == 0:
            store = _open_beacon(world, identity, deadline, interface, host_suffix, stack)
        else:
            store = _open_found(world, identity, secret, deadline, host_suffix)
        with _explained("Rank 0 must keep the store until every rank is there, but it went away: see rank 0's output"):
            return meet(SealedStore(store, identity.key, secret.advice), world, deadline)


def _open_given(world: World, master: tuple[str, int], deadline: float) -> Store:
    """As torch's env:// does it: rank 0 serves the store, unless torchrun's agent serves it already.

    The agent keeps one store through restarts, so the keys of each attempt get a prefix of their own.
    """
    serves = world.rank == 0 and not world.agent_store
    if not serves:
        _await_listener(world, master, deadline)
    hint = "check MASTER_ADDR and MASTER_PORT" + (", which must be free on this host" if serves else "")
    with _explained(f"Rank {world.rank} must reach the store at {master[0]}:{master[1]}, but cannot: {hint}"):
        if serves:
            server = _serve(_given_listener(world, master), Endpoint(*master), deadline)
        else:
            server = _join(Endpoint(*master), deadline)
    return PrefixStore(f"attempt-{world.attempt}", server)


def _given_listener(world: World, master: tuple[str, int]) -> socket.socket | None:
    """At MASTER_ADDR alone. None leaves it to torch, which listens on all addresses, or says why it cannot.

    It is left to torch where this host calls itself loopback, which other hosts do not, and where the address is not
    its own, but that of a service in front of it.
    """
    try:
        address = str(socket.getaddrinfo(*master, type=socket.SOCK_STREAM)[0][4][0])
        return None if is_loopback(address) and world.node_count > 1 else listen(address, master[1])
    except OSError:
        return None


def _await_listener(world: World, master: tuple[str, int], deadline: float) -> None:
    """Wait for the store's port in Python, because a signal is not handled while torch waits inside its own code."""
    pause_seconds = 0.01
    while True:
        try:
            socket.create_connection(master, timeout=_remaining(deadline).total_seconds()).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise WorldError(
                    f"Rank {world.rank} must reach the store at {master[0]}:{master[1]}, but cannot: check MASTER_ADDR"
                    f" and MASTER_PORT, and see whether rank 0 started ({error})."
                ) from error
        time.sleep(max(world.world_size / POLLS_PER_SECOND, pause_seconds))
        pause_seconds = min(0.5, pause_seconds * 1.3)


def _open_beacon(
    world: World, identity: Identity, deadline: float, interface: str | None, host_suffix: str, until_met: ExitStack
) -> Store:
    """Rank 0's part. The beacon starts before the store, so that the others need not wait for torch's name look-up.

    Every client of torch's store asks DNS for the name of its peer's address, even where it was given a number. This
    cannot be switched off (torch 2.13, socket.cpp). It takes 10 s where the DNS server does not answer.
    """
    addresses = addresses_towards_ranks(world, host_suffix)
    address = interface_address(interface) if interface else addresses[0]
    with ExitStack() as stack:
        listener = stack.enter_context(_store_listener(address))
        endpoint = Endpoint(address, listener.getsockname()[1])
        until_met.enter_context(_lit_beacon(identity, endpoint, addresses))
        return _serve(listener, endpoint, deadline)


def _store_listener(address: str) -> socket.socket:
    try:
        return listen(address, 0)
    except OSError as error:
        raise WorldError(f"runtime.interface must be of rank 0's host, but {address} is not: {error}.") from error


def _lit_beacon(identity: Identity, endpoint: Endpoint, addresses: tuple[str, ...]) -> Beacon:
    try:
        return Beacon(identity, endpoint, addresses)
    except OSError as error:
        ports = _listed(identity.ports)
        raise WorldError(f"One of the ports {ports} must be free on rank 0's host, but none is: {error}.") from error


def _serve(listener: socket.socket | None, endpoint: Endpoint, deadline: float) -> TCPStore:
    """Serve the store from a socket that is open already; in torch 2.6 only the older of its two servers can."""
    serve = partial(
        TCPStore,
        endpoint.address or LOOPBACK,
        endpoint.port,
        is_master=True,
        timeout=_remaining(deadline),
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=None if listener is None else listener.detach(),
    )
    try:
        return serve()
    except NotImplementedError:
        return serve(use_libuv=False)


def _join(endpoint: Endpoint, deadline: float) -> TCPStore:
    return TCPStore(
        endpoint.address, endpoint.port, is_master=False, timeout=_remaining(deadline), wait_for_workers=False
    )


def _open_found(world: World, identity: Identity, secret: Secret, deadline: float, host_suffix: str) -> Store:
    hosts, strangers = _hosts(world, host_suffix), set[str]()

    def doubt(where: str) -> None:
        if where not in strangers:
            say_error(f"{where} says that it is rank 0 of {world.job} and is passed over: {secret.advice}.")
        strangers.add(where)

    endpoint = find_beacon(hosts, identity, deadline, world.world_size, doubt)
    if endpoint is None:
        cause = (
            "see whether rank 0 started, and whether these ports are open between the nodes (runtime.host_suffix"
            " chooses another network)"
        )
        raise WorldError(
            f"Rank {world.rank} of {world.world_size} must find rank 0, but nobody answered for job {world.job} on host"
            f" {shortened(hosts)}, ports {_listed(identity.ports)}: {secret.advice if strangers else cause}."
        )
    where = f"{endpoint.address}:{endpoint.port}"
    with _explained(f"Rank {world.rank} must reach rank 0's store at {where}, but cannot: check runtime.interface"):
        return _join(endpoint, deadline)


def _hosts(world: World, host_suffix: str) -> tuple[str, ...]:
    """Where rank 0 may be. On a machine of one's own it is not asked by name, because it listens on loopback only."""
    if world.node_count == 1 and not is_loopback(world.hosts[0]):
        return (LOOPBACK,)
    return tuple(fabric_name(host, host_suffix) for host in world.hosts)


def _identity(world: World, secret: Secret) -> Identity:
    """Where an address was given, launchers may call the job differently on each host: by that host's MASTER_ADDR."""
    if world.master is not None:
        return Identity("", world.attempt, 0, secret.value)
    if not world.hosts:
        raise WorldError(f"The hosts of {world.job} must be known to find rank 0, but {world.source} lists none.")
    job = f"{world.job}.{control_port()}" if world.source in HYDRA else world.job
    return Identity(job, world.attempt, os.getuid(), secret.value)


def _listed(ports: tuple[int, ...]) -> str:
    return ", ".join(str(port) for port in ports)


def _remaining(deadline: float) -> timedelta:
    return timedelta(seconds=max(1.0, deadline - time.monotonic()))


@contextmanager
def _explained(sentence: str) -> Iterator[None]:
    """Turn torch's network errors into one of ours: DistError, or for a taken port in torch 2.6 its base class."""
    try:
        yield
    except RuntimeError as error:
        raise WorldError(f"{sentence} ({str(error).splitlines()[0]}).") from error
