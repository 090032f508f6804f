"""How do the ranks of a world find each other, and how do they know that all of them are there?

Where the launcher gave no address, rank 0 lets the kernel choose a port for torch's store, and a beacon tells the
others where it is (`hpc.connect.beacon`). So no port is guessed, no shared file system is needed, and rank 0 may be on
any host. A client of torch's store is never used to look for the store: where a program listens and does not answer, it
blocks for half a minute, whatever timeout it was given (torch 2.13).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial

from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from hpc.connect.beacon import Beacon, Endpoint, Identity, find_beacon, listen
from hpc.connect.interface import fabric_name, interface_address
from hpc.connect.mpiexec import SOURCES as HYDRA
from hpc.connect.mpiexec import control_port
from hpc.errors import WorldError
from hpc.world.world import World

POLLS_PER_SECOND = 20_000
"""The most that all ranks of a world together may ask the store while they wait for the last one."""

FAREWELL_SECONDS = 1.5
"""After a failure rank 0 stays for this long, because the other ranks read the reason from its store."""

COMPLETE = "complete"
TWICE_HINT = "unset RANK where a batch script exports it for all tasks"


def open_store(
    world: World, *, timeout_seconds: float = 300.0, interface: str | None = None, host_suffix: str = ""
) -> Store:
    """Connect this rank to a store that all ranks share; returns once every rank is there. Collective.

    Under torchrun with its agent's store, the agents have waited for each other already, so the ranks do not.

    Args:
        world: This rank.
        timeout_seconds: How long to wait for the last rank.
        interface: Network interface, address, or network (CIDR) at which rank 0's store listens; None means all.
        host_suffix: Added to the first part of every host's name: `i` where the fast network calls node7 node7i.

    Raises:
        WorldError: A rank is missing, came twice, or rank 0 was not found; the message names ranks, hosts and ports.
    """
    if world.world_size == 1:
        return HashStore()
    deadline = time.monotonic() + timeout_seconds
    if world.master is not None:
        return _open_given(world, world.master, deadline)
    if world.rank == 0:
        return _open_beacon(world, deadline, interface)
    return _open_found(world, deadline, tuple(fabric_name(host, host_suffix) for host in world.hosts))


def _open_given(world: World, master: tuple[str, int], deadline: float) -> Store:
    """As torch's env:// does it: rank 0 serves the store, unless torchrun's agent serves it already.

    The agent keeps one store through restarts, so the keys of each attempt get a prefix of their own.
    """
    serves = world.rank == 0 and not world.agent_store
    if not serves:
        _await_listener(world, master, deadline)
    hint = "check MASTER_ADDR and MASTER_PORT" + (", which must be free on this host" if serves else "")
    with _explained(f"Rank {world.rank} must reach the store at {master[0]}:{master[1]}, but cannot: {hint}"):
        server = TCPStore(
            *master,
            is_master=serves,
            timeout=_remaining(deadline),
            wait_for_workers=False,
            multi_tenant=serves,
        )
    store = PrefixStore(f"attempt-{world.attempt}", server)
    if not world.agent_store:
        _meet(store, world, deadline)
    return store


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


def _open_beacon(world: World, deadline: float, interface: str | None) -> Store:
    """Rank 0's part. The beacon starts before the store, so that the others need not wait for torch's name look-up.

    Every client of torch's store asks DNS for the name of its peer's address, even where it was given a number. This
    cannot be switched off (torch 2.13, socket.cpp). It takes 10 s where the DNS server does not answer.
    """
    identity = _identity(world)
    address = interface_address(interface) if interface else _loopback(world)
    with ExitStack() as stack:
        listener = stack.enter_context(_store_listener(address))
        endpoint = Endpoint(address, listener.getsockname()[1])
        stack.enter_context(_lit_beacon(identity, endpoint, _loopback(world)))
        store = _serve(listener.detach(), endpoint, deadline)
        _meet(store, world, deadline)
    return store


def _store_listener(address: str) -> socket.socket:
    try:
        return listen(address, 0)
    except OSError as error:
        raise WorldError(f"runtime.interface must be of rank 0's host, but {address} is not: {error}.") from error


def _lit_beacon(identity: Identity, endpoint: Endpoint, address: str) -> Beacon:
    try:
        return Beacon(identity, endpoint, address)
    except OSError as error:
        ports = _listed(identity.ports)
        raise WorldError(f"One of the ports {ports} must be free on rank 0's host, but none is: {error}.") from error


def _serve(descriptor: int, endpoint: Endpoint, deadline: float) -> TCPStore:
    """Serve the store from a socket that is open already; in torch 2.6 only the older of its two servers can."""
    serve = partial(
        TCPStore,
        endpoint.address or "127.0.0.1",
        endpoint.port,
        is_master=True,
        timeout=_remaining(deadline),
        wait_for_workers=False,
        master_listen_fd=descriptor,
    )
    try:
        return serve()
    except NotImplementedError:
        return serve(use_libuv=False)


def _open_found(world: World, deadline: float, hosts: tuple[str, ...]) -> Store:
    identity = _identity(world)
    endpoint = find_beacon(hosts, identity, deadline, world.world_size)
    if endpoint is None:
        raise WorldError(
            f"Rank {world.rank} of {world.world_size} must find rank 0, but nobody answered for job {world.job} on host"
            f" {_shortened(hosts)}, ports {_listed(identity.ports)}: see whether rank 0 started, and whether these"
            " ports are open between the nodes (runtime.host_suffix chooses another network)."
        )
    where = f"{endpoint.address}:{endpoint.port}"
    with _explained(f"Rank {world.rank} must reach rank 0's store at {where}, but cannot: check runtime.interface"):
        store = TCPStore(
            endpoint.address,
            endpoint.port,
            is_master=False,
            timeout=_remaining(deadline),
            wait_for_workers=False,
        )
    _meet(store, world, deadline)
    return store


def _meet(store: Store, world: World, deadline: float) -> None:
    """Register, and wait for the verdict: that all ranks are there, or which are not. The first one written counts."""
    with _explained("Rank 0 must keep the store until every rank is there, but it went away: see rank 0's output"):
        if store.add(f"rank/{world.rank}", 1) > 1:
            twice = f"Every rank must be started once, but rank {world.rank} of {world.job} came twice: {TWICE_HINT}."
            store.compare_set("verdict", "", twice)
            raise WorldError(twice)
        if store.add("arrived", 1) == world.world_size:
            store.compare_set("verdict", "", COMPLETE)
        _await_verdict(store, world, deadline)
        verdict = store.get("verdict").decode()
    if verdict == COMPLETE:
        return
    if world.rank == 0:
        time.sleep(FAREWELL_SECONDS)
    raise WorldError(verdict)


def _await_verdict(store: Store, world: World, deadline: float) -> None:
    """Ask again and again instead of waiting inside torch, because a signal is not handled in there."""
    start = time.monotonic()
    while not store.check(["verdict"]):
        now = time.monotonic()
        if now > deadline:
            store.compare_set("verdict", "", _missing(store, world, now - start))
        time.sleep(max(world.world_size / POLLS_PER_SECOND, min(0.5, (now - start) / 10)))


def _missing(store: Store, world: World, waited_seconds: float) -> str:
    missing = tuple(str(rank) for rank in range(world.world_size) if not store.check([f"rank/{rank}"]))
    return (
        f"All {world.world_size} ranks must come within runtime.rendezvous_timeout_seconds, but {len(missing)} did not"
        f" in {waited_seconds:.0f} s: see the output of rank {_shortened(missing)}."
    )


def _identity(world: World) -> Identity:
    if not world.hosts:
        raise WorldError(f"The hosts of {world.job} must be known to find rank 0, but {world.source} lists none.")
    job = f"{world.job}.{control_port()}" if world.source in HYDRA else world.job
    return Identity(job, world.attempt, os.getuid())


def _loopback(world: World) -> str:
    """The loopback address where all hosts of the world are loopback, so that a laptop opens no port to its network."""
    try:
        addresses = [ipaddress.ip_address(host) for host in world.hosts]
    except ValueError:
        return ""
    return world.hosts[world.node_rank] if all(address.is_loopback for address in addresses) else ""


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8:,} more"


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
