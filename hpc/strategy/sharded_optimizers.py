"""Can an optimizer step sharded parameters, and what becomes of the state that its constructor has made?"""

from __future__ import annotations

import collections
import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from hpc.errors import ConfigurationError


def has_stepped(optimizer: Optimizer) -> bool:
    """Whether its state says so; Adagrad's constructor makes state of zero steps."""
    values = [each for each in optimizer.state.values() if isinstance(each, dict)]
    return any(float(each["step"]) > 0 if "step" in each else bool(each) for each in values)


def sharded_state(state: Any, old: nn.Parameter, new: nn.Parameter) -> Any:
    """The state that a constructor made of a whole parameter, sharded as the parameter now is. Collective."""
    if not isinstance(state, dict) or not isinstance(new, DTensor):
        return state
    return {
        key: distribute_tensor(value.to(new.device), new.device_mesh, new.placements)
        if isinstance(value, torch.Tensor) and value.dim() and value.shape == old.shape
        else value
        for key, value in state.items()
    }


def check_steps(optimizer: Optimizer) -> None:
    """Let a copy of the optimizer step small parameters that are sharded as its own are. Collective.

    torch refuses some operations on sharded tensors, and says so in the words of its dispatcher in the first step.

    Raises:
        ConfigurationError: It refuses one that this optimizer needs.
    """
    sharded = [each for group in optimizer.param_groups for each in group["params"] if isinstance(each, DTensor)]
    likes = {each.dim(): each for each in sharded if each.is_floating_point()}
    if not likes:
        return
    probes = [_probe(like) for like in likes.values()]
    try:
        trial = copy.copy(optimizer)
        trial.state = collections.defaultdict(dict)
        trial.param_groups = [{**copy.deepcopy(_options(optimizer.param_groups[0])), "params": probes}]
        trial.step()
    except Exception as error:  # a trial that fails for another reason has shown nothing
        line = next(iter(str(error).splitlines()), "")
        if "aten" in line or "DTensor" in line:
            name = type(optimizer).__name__
            raise ConfigurationError(
                f"strategy=fsdp must have an optimizer whose operations torch {torch.__version__} can do on sharded "
                f"tensors, but {name} needs one that it cannot ({line.partition(':')[0]}): take AdamW, or strategy=ddp."
            ) from error


def _probe(like: DTensor) -> nn.Parameter:
    shape = [2 * like.device_mesh.size()] * like.dim()
    whole = torch.ones(shape, dtype=like.dtype, device=like.device)
    probe = nn.Parameter(distribute_tensor(whole, like.device_mesh, like.placements))
    probe.grad = torch.ones_like(probe)
    return probe


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
