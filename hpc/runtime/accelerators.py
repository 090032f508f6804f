"""Which kinds of device can a run use here, and what does each want at the end of a batch?

CUDA and the CPU are tested. MPS (Apple) and XLA (TPU, through torch_xla 2.7 or later) are chosen when they are there,
with one rank, and follow their documentation; neither was at hand to be run.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hpc.errors import ConfigurationError
from hpc.runtime.nest import to_device
from hpc.world import World


def kinds_here() -> dict[str, bool]:
    """Kind of device -> whether this machine has one, best first."""
    return {
        "cuda": torch.cuda.is_available(),
        "xla": importlib.util.find_spec("torch_xla") is not None,
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }


def only_device(kind: str, world: World) -> torch.device:
    """The device of a kind of which a rank never has to choose one.

    Raises:
        ConfigurationError: Ranks would have to share it, or talk over it in a way that was never tried.
    """
    if kind != "cpu" and world.world_size > 1:
        raise ConfigurationError(
            f"runtime.device={kind} must have a world of one, but the world has {world.world_size} ranks: "
            "use one rank, or runtime.device=cpu."
        )
    if kind == "xla":
        return torch.device(importlib.import_module("torch_xla").device())
    return torch.device(kind)


def on_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches moved to a device; XLA, which only records what is computed, is told to run it before the next one."""
    if device.type == "cpu":
        return iter(batches)
    if device.type == "xla":
        return _run_in_between(batches, device)
    return (to_device(batch, device) for batch in batches)


def _run_in_between(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    sync = importlib.import_module("torch_xla").sync
    for batch in batches:
        yield to_device(batch, device)
        sync()
