"""Which device is this rank's?

The CPU is tested. MPS (Apple) and XLA (TPU, through torch_xla 2.7 or later) are chosen where they are found, for one
rank only. That code follows their documentation; there was no such machine to run it on.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

from hpc.errors import ConfigurationError, WorldError
from hpc.world import World


def kinds_here() -> dict[str, bool]:
    """Kind of device -> whether this machine has one; in the order in which `auto` takes them."""
    return {
        "cuda": torch.cuda.is_available(),
        "xla": importlib.util.find_spec("torch_xla") is not None,
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }


def only_device(kind: str, world: World) -> torch.device:
    """The device of a kind that has no index: cpu, mps or xla.

    Raises:
        ConfigurationError: There are several ranks, and the kind is not cpu: they would share the device.
    """
    if kind != "cpu" and world.world_size > 1:
        raise ConfigurationError(
            f"runtime.device={kind} must have a world of one, but the world has {world.world_size} ranks: "
            "use one rank, or runtime.device=cpu."
        )
    if kind == "xla":
        return torch.device(importlib.import_module("torch_xla").device())
    return torch.device(kind)


def choose_device(asked: str, world: World, gpus_per_node: int) -> torch.device:
    """The device of this rank.

    Args:
        asked: auto, or a device by name.
        world: This rank.
        gpus_per_node: From the hardware section, so that a job that paid for GPUs never trains on CPUs unnoticed.

    Raises:
        ConfigurationError: The device that was asked for, or that the hardware section promises, is not here.
        WorldError: This process sees several GPUs, but fewer than there are ranks on this node.
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


def choose_device_index(visible: int, world: World) -> int | None:
    """The index of this rank's device among those it sees, or None for the CPU.

    It follows from counts alone. `SLURM_STEP_GPUS` is not used: it holds the node's own numbers, which differ from
    torch's where cgroups hide the other GPUs. With `--gpus-per-task=1` each rank sees one device, and its index is 0.

    Args:
        visible: How many devices torch sees in this process.
        world: This rank.

    Raises:
        WorldError: Several devices are visible, but fewer than there are ranks on this node.
    """
    if visible == 0:
        return None
    if visible == 1:
        return 0
    if visible >= world.local_world_size:
        return world.local_rank
    raise WorldError(
        f"The {world.local_world_size} ranks of this node must see as many GPUs, but see {visible}: ask for"
        f" --gpus-per-node={world.local_world_size}, or start fewer ranks with --ntasks-per-node={visible}."
    )
