"""The processes of one world, connected: torch's groups, the device, and plain Python values between ranks."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import psutil
import torch
from torch import distributed

from hpc.config import RuntimeOptions
from hpc.errors import ConfigurationError
from hpc.world import World
from hpc.world.device import choose_device_index
from hpc.world.rendezvous import open_store


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

    def meet(self) -> None:
        """Return when every rank has called it. Collective."""
        if self.side is not None:
            distributed.barrier(group=self.side)


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
    """Connect this rank to the others and choose its device.

    Raises:
        WorldError: The ranks did not find each other, or do not fit the devices.
        ConfigurationError: The device asked for is not here.
    """
    device = choose_device(options.device, world, gpus_per_node)
    torch.set_num_threads(max(1, len(psutil.Process().cpu_affinity()) // world.local_world_size))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = world_store(world, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.world_size == 1:
        return ProcessGroup(world, device, store, side=None)
    choose_interface(os.environ, world, options.interface)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    return ProcessGroup(
        world, device, store, _connected(world, backend, device, store, options.collective_timeout_seconds)
    )


def close_process_group() -> None:
    """Leave the group, after everybody is done with it; a second call does nothing."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    _connected.cache_clear()
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
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
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
        return torch.device(kind)
    return torch.device("cuda", choose_device_index(torch.cuda.device_count(), world) or 0)


def choose_interface(environ: MutableMapping[str, str], world: World, asked: str | None) -> None:
    """Tell gloo which interface reaches the other hosts; left alone it trusts what the own host name resolves to."""
    if "GLOO_SOCKET_IFNAME" in environ:
        return
    own = (socket.gethostname(), "127.0.0.1", "localhost")
    others = [host for host in world.hosts if host not in own] if world.node_count > 1 else ["127.0.0.1"]
    name = asked or (_interface_towards(others[0]) if others else None)
    if name:
        environ["GLOO_SOCKET_IFNAME"] = name


def _interface_towards(host: str) -> str | None:
    """The interface whose address this host would use; connecting a datagram socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            address = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return None


def meet() -> None:
    """Return when every rank of this process's world has called it; at once in a world of one. Collective."""
    if distributed.is_initialized():
        distributed.barrier()
