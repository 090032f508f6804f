"""The processes of one world, connected: torch's groups, the device, and words between the ranks."""

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
from hpc.connect.sealed import SealedStore, SealedWords
from hpc.run.secret import Secret
from hpc.say import phase, warn
from hpc.world import World

READ_POLL_SECONDS = 0.002
"""How often rank 0 looks whether the others have read what it has told them."""
DAY_SECONDS = 24 * 60 * 60
"""For slow disks. A dead rank is noticed at once all the same, because its connection closes."""


@dataclass(frozen=True)
class ProcessGroup:
    """This rank among the others.

    Args:
        world: Which rank this is.
        device: Where its tensors live.
        store: What the ranks found each other through.
        words: Between all ranks over gloo, never for tensors of the model; None in a world of one.
        environ: The process's environment variables.
    """

    world: World
    device: torch.device
    store: SealedStore
    words: SealedWords | None
    environ: MutableMapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def side(self) -> distributed.ProcessGroup | None:
        """The gloo group of all ranks that carries the words; None in a world of one."""
        return None if self.words is None else self.words.group

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        return value if self.words is None else self.words.broadcast(value)

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Collective."""
        return [value] if self.words is None else self.words.all_gather(value)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; elsewhere an empty list. Collective."""
        return [value] if self.words is None else self.words.gather(value)

    def meet(self) -> None:
        """Return when every rank has called it. Collective."""
        if self.side is not None:
            distributed.barrier(group=self.side)

    def beside(self) -> ProcessGroup:
        """The same ranks over connections of their own, for a thread beside training. Collective the first time."""
        return self if self.words is None else replace(self, words=_words("beside", self.store, DAY_SECONDS))


@cache
def _words(name: str, store: SealedStore, timeout_seconds: int) -> SealedWords:
    """Over a gloo group of their own, opened once for each name. Collective."""
    group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))
    return SealedWords(group, store.key, name)


@cache
def world_store(
    world: World, secret: Secret, timeout_seconds: int, interface: str | None, host_suffix: str
) -> SealedStore:
    """The store of a world, opened once however often it is asked for."""
    return open_store(world, secret, timeout_seconds=timeout_seconds, interface=interface, host_suffix=host_suffix)


def told_by_rank_0(world: World, secret: Secret, options: RuntimeOptions, key: str, text: str) -> str:
    """Rank 0's text, on every rank, before there is a process group. Collective, once for each key.

    Rank 0 returns when all have read it, because the store may end with rank 0's process.

    Raises:
        WorldError: The ranks did not find each other, or the text is not rank 0's.
    """
    store = world_store(world, secret, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.rank != 0:
        told = str(store.get(key))
        store.count(f"{key}/read", 1)
        return told
    store.set(key, text)
    deadline = time.monotonic() + options.rendezvous_timeout_seconds
    while store.count(f"{key}/read", 0) < world.world_size - 1 and time.monotonic() < deadline:
        time.sleep(READ_POLL_SECONDS)
    return text


@cache
def _connected(world: World, backend: str, device: torch.device, store: SealedStore, timeout_seconds: int) -> bool:
    distributed.init_process_group(
        backend,
        store=store.plain,
        rank=world.rank,
        world_size=world.world_size,
        timeout=timedelta(seconds=timeout_seconds),
        device_id=device if device.type == "cuda" else None,
    )
    return True


def open_process_group(
    world: World, secret: Secret, options: RuntimeOptions, environ: MutableMapping[str, str], gpus_per_node: int = 0
) -> ProcessGroup:
    """Connect this rank to the others, choose its device and its number of threads.

    Args:
        world: This rank.
        secret: What the ranks prove themselves with.
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
    with phase(f"Connecting to {world.world_size - 1} other rank(s)"):
        group = _connect(world, secret, options, device, environ)
    take_place(group, Place(socket.gethostname(), _cpus(), _uuid(device)))
    return group


def _connect(
    world: World, secret: Secret, options: RuntimeOptions, device: torch.device, environ: MutableMapping[str, str]
) -> ProcessGroup:
    store = world_store(world, secret, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.world_size == 1:
        return ProcessGroup(world, device, store, None, environ)
    choose_interface(environ, world, store, options.interface, options.host_suffix)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    _connected(world, backend, device, store, options.collective_timeout_seconds)
    return ProcessGroup(world, device, store, _words("side", store, options.collective_timeout_seconds), environ)


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
    _words.cache_clear()
    world_store.cache_clear()


def meet() -> None:
    """Return when every rank of this process's world has called it; at once in a world of one. Collective."""
    if distributed.is_initialized():
        distributed.barrier()
