"""The processes of one world, connected: torch's groups, the device, and plain Python values between ranks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import distributed

from hpc.config import RuntimeOptions
from hpc.connect.device import choose_device
from hpc.connect.interface import choose_interface
from hpc.connect.place import Place, check_devices, cpu_advice, thread_count
from hpc.connect.rendezvous import open_store
from hpc.say import phase, warn
from hpc.world import World

READ_POLL_SECONDS = 0.002
"""How often rank 0 looks whether the others have read what it has told them."""


@dataclass(frozen=True)
class ProcessGroup:
    """This rank among the others.

    Args:
        world: Which rank this is.
        device: Where its tensors live.
        store: What the ranks found each other through.
        side: A gloo group of all ranks for words, never for tensors of the model; None in a world of one.
        environ: The process's environment variables.
    """

    world: World
    device: torch.device
    store: distributed.Store
    side: distributed.ProcessGroup | None
    environ: MutableMapping[str, str] = field(default_factory=dict, repr=False)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        if self.side is None:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self.side)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
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
    """One-day time-out for slow disks. A dead rank is noticed at once all the same, because its connection closes."""
    del side  # one for each
    return distributed.new_group(backend="gloo", timeout=timedelta(days=1))


@cache
def world_store(world: World, timeout_seconds: int, interface: str | None, host_suffix: str) -> distributed.Store:
    """The store of a world, opened once however often it is asked for."""
    return open_store(world, timeout_seconds=timeout_seconds, interface=interface, host_suffix=host_suffix)


def told_by_rank_0(world: World, options: RuntimeOptions, key: str, text: str) -> str:
    """Rank 0's text, on every rank, before there is a process group. Collective, once for each key.

    Rank 0 returns when all have read it, because the store may end with rank 0's process.

    Raises:
        WorldError: The ranks did not find each other.
    """
    store = world_store(world, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.rank != 0:
        told = str(store.get(key).decode())
        store.add(f"{key}/read", 1)
        return told
    store.set(key, text)
    deadline = time.monotonic() + options.rendezvous_timeout_seconds
    while store.add(f"{key}/read", 0) < world.world_size - 1 and time.monotonic() < deadline:
        time.sleep(READ_POLL_SECONDS)
    return text


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


def open_process_group(
    world: World, options: RuntimeOptions, environ: MutableMapping[str, str], gpus_per_node: int = 0
) -> ProcessGroup:
    """Connect this rank to the others, choose its device and its number of threads.

    Args:
        world: This rank.
        options: Device, time-outs and network.
        environ: The process's environment variables; gloo is told its interface there.
        gpus_per_node: What was asked for.

    Raises:
        WorldError: The ranks did not find each other, do not fit the devices, or share one.
        ConfigurationError: The device asked for is not here.
    """
    device = choose_device(options.device, world, gpus_per_node)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group = _open(world, options, device, environ)
    take_place(group, Place(socket.gethostname(), _cpus(), _uuid(device)))
    return group


def _open(
    world: World, options: RuntimeOptions, device: torch.device, environ: MutableMapping[str, str]
) -> ProcessGroup:
    with phase(f"Connecting to {world.world_size - 1} other rank(s)"):
        return _connect(world, options, device, environ)


def _connect(
    world: World, options: RuntimeOptions, device: torch.device, environ: MutableMapping[str, str]
) -> ProcessGroup:
    store = world_store(world, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.world_size == 1:
        return ProcessGroup(world, device, store, None, environ)
    choose_interface(environ, world, store, options.interface, options.host_suffix)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    side = _connected(world, backend, device, store, options.collective_timeout_seconds)
    return ProcessGroup(world, device, store, side, environ)


def take_place(group: ProcessGroup, place: Place) -> None:
    """Compare where the ranks really run: no two on one GPU, and threads for this rank's share of the CPUs. Collective.

    Raises:
        WorldError: Two ranks of a host share a GPU.
    """
    places = group.all_gather(place)
    check_devices(places)
    threads = thread_count(place, places, group.world, group.environ)
    if threads is not None:
        torch.set_num_threads(threads)
    advice = cpu_advice(place, group.world, group.environ)
    if advice and group.world.rank == 0:
        warn(advice)


def _cpus() -> tuple[int, ...]:
    """The CPUs that this process may use. macOS cannot bind a process to CPUs, so there it is all of them."""
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


def meet() -> None:
    """Return when every rank of this process's world has called it; at once in a world of one. Collective."""
    if distributed.is_initialized():
        distributed.barrier()
