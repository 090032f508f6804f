"""How ranks share a step: what becomes of the user's model."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from hpc.config import Strategy
from hpc.errors import ConfigurationError
from hpc.runtime.process_group import ProcessGroup


def wrap(model: torch.nn.Module, group: ProcessGroup, strategy: Strategy, deterministic: bool) -> torch.nn.Module:
    """Move a model to this rank's device and make its gradients those of all ranks.

    Args:
        model: On any device.
        group: This rank among the others.
        strategy: Which way.
        deterministic: Keep DDP's gradient buckets as they are built. DDP lays them out anew after the first backward
            pass, so a resumed run would reduce its first gradients in another layout than the uninterrupted one, and
            a ring all-reduce over more than two ranks adds in an order that depends on the place in the bucket. DDP
            leaves them alone when it looks for unused parameters (torch 2.6-2.13, Reducer::should_rebuild_buckets).

    Raises:
        ConfigurationError: The strategy cannot have so many ranks, or the model has nothing to train.
    """
    model = model.to(group.device)
    if group.world.world_size == 1:
        return model
    if strategy.name == "single":
        raise ConfigurationError(
            "strategy=single must have a world of one, but the world has "
            f"{group.world.world_size} ranks: use strategy=ddp."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    indices = [group.device.index] if group.device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=indices, gradient_as_bucket_view=True, find_unused_parameters=deterministic
    )


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The user's own module; checkpoints hold its names."""
    return model.module if isinstance(model, DistributedDataParallel) else model
