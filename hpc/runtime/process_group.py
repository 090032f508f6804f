"""The processes of one world, connected: torch's groups, the device, and plain Python values between ranks."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import distributed

from hpc.config import RuntimeOptions
from hpc.errors import ConfigurationError
from hpc.runtime.accelerators import kinds_here, only_device
from hpc.world import World
from hpc.world.device import Place, check_devices, choose_device_index, cpu_advice, thread_count
from hpc.world.interface import address_towards, interface_name, interface_of, is_loopback
from hpc.world.rendezvous import fabric_name, open_store


@dataclass(frozen=True)
class ProcessGroup:
    """This rank among the others.

    Args:
        world: Which rank this is.
        device: Where its tensors live.
        store: What the ranks found each other through.
        side: A gloo group of all ranks for words, never for tensors of the model; None in a world of one.
    """

    world: World
    device: torch.device
    store: distributed.Store
    side: distributed.ProcessGroup | None

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        if self.side is None:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self.side)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Collective."""
        if self.side is None:
            return [value]
        values: list[Any] = [None] * self.world.world_size
        distributed.all_gather_object(values, value, group=self.side)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; elsewhere an empty list. Collective."""
        if self.side is None:
            return [value]
        values: list[Any] | None = [None] * self.world.world_size if self.world.rank == 0 else None
        distributed.gather_object(value, values, dst=0, group=self.side)
        return values or []

    def meet(self) -> None:
        """Return when every rank has called it. Collective."""
        if self.side is not None:
            distributed.barrier(group=self.side)

    def beside(self) -> ProcessGroup:
        """The same ranks over connections of their own, for a thread beside training. Collective the first time."""
        return self if self.side is None else replace(self, side=_another(self.side))


@cache
def _another(side: distributed.ProcessGroup) -> Any:
    """A rank that dies closes its connections, so that waiting long for a slow disk is no waiting for the dead."""
    del side  # one for each
    return distributed.new_group(backend="gloo", timeout=timedelta(days=1))


@cache
def world_store(world: World, timeout_seconds: int, interface: str | None, host_suffix: str) -> distributed.Store:
    """The store of a world, opened once however often it is asked for."""
    return open_store(world, timeout_seconds=timeout_seconds, interface=interface, host_suffix=host_suffix)


@cache
def _connected(world: World, backend: str, device: torch.device, store: distributed.Store, timeout_seconds: int) -> Any:
    timeout = timedelta(seconds=timeout_seconds)
    distributed.init_process_group(
        backend,
        store=store,
        rank=world.rank,
        world_size=world.world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
    return distributed.new_group(backend="gloo", timeout=timeout)


def open_process_group(world: World, options: RuntimeOptions, gpus_per_node: int = 0) -> ProcessGroup:
    """Connect this rank to the others, choose its device and its number of threads.

    Raises:
        WorldError: The ranks did not find each other, do not fit the devices, or share one.
        ConfigurationError: The device asked for is not here.
    """
    device = choose_device(options.device, world, gpus_per_node)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group = _open(world, options, device)
    take_place(group, Place(socket.gethostname(), _cpus(), _uuid(device)))
    return group


def _open(world: World, options: RuntimeOptions, device: torch.device) -> ProcessGroup:
    store = world_store(world, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.world_size == 1:
        return ProcessGroup(world, device, store, side=None)
    choose_interface(os.environ, world, store, options.interface, options.host_suffix)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    side = _connected(world, backend, device, store, options.collective_timeout_seconds)
    return ProcessGroup(world, device, store, side)


def take_place(group: ProcessGroup, place: Place) -> None:
    """Compare where the ranks really run: no two on one GPU, and threads for this rank's share of the CPUs. Collective.

    Raises:
        WorldError: Two ranks of a host share a GPU.
    """
    places = group.collect(place)
    check_devices(places)
    threads = thread_count(place, places, group.world, os.environ)
    if threads is not None:
        torch.set_num_threads(threads)
    advice = cpu_advice(place, group.world, os.environ)
    if advice and group.world.rank == 0:
        print(f"hpc: {advice}", file=sys.stderr)


def _cpus() -> tuple[int, ...]:
    """The CPUs this process may use; macOS binds nobody to any."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _uuid(device: torch.device) -> str:
    """What tells this GPU from every other one, where torch tells it."""
    if device.type != "cuda":
        return ""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def close_process_group() -> None:
    """Leave the group, after everybody is done with it; a second call does nothing."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    _connected.cache_clear()
    _another.cache_clear()
    world_store.cache_clear()


def choose_device(asked: str, world: World, gpus_per_node: int) -> torch.device:
    """The device of this rank.

    Args:
        asked: auto, or a device by name.
        world: This rank.
        gpus_per_node: What the hardware promises; a GPU job must not train on CPUs unnoticed.

    Raises:
        ConfigurationError: What was asked for or promised is not here.
        WorldError: There are several GPUs, and fewer than ranks on this node.
    """
    available = kinds_here()
    kind = next(kind for kind, here in available.items() if here) if asked == "auto" else asked
    if not available[kind]:
        here = ", ".join(name for name, found in available.items() if found)
        raise ConfigurationError(f"runtime.device must be one that torch finds here ({here}), but is {asked}.")
    if asked == "auto" and gpus_per_node and kind != "cuda":
        raise ConfigurationError(
            f"hardware.gpus_per_node is {gpus_per_node}, but torch {torch.__version__} sees no CUDA device here: "
            "install a CUDA build of torch, or rehearse with runtime.device=cpu."
        )
    if kind != "cuda":
        return only_device(kind, world)
    return torch.device("cuda", choose_device_index(torch.cuda.device_count(), world) or 0)


def choose_interface(
    environ: MutableMapping[str, str],
    world: World,
    store: distributed.Store,
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


def _told_address(world: World, store: distributed.Store, address: str | None) -> str | None:
    """The address towards another node: this rank's own, or the way to the first rank that has one."""
    store.set(f"address/{world.rank}", address or "")
    if address:
        return address
    for rank in range(world.world_size):
        told = store.get(f"address/{rank}").decode()
        if told:
            return _outward_address([told])
    return None


def meet() -> None:
    """Return when every rank of this process's world has called it; at once in a world of one. Collective."""
    if distributed.is_initialized():
        distributed.barrier()
