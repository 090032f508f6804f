"""How had the user's code set everything up before the first step, and what has changed on the way?

A resumed run sets out as every life does. What was done at steps that are not taken again must therefore be done again
by the load: layers that were frozen, parameter groups that were added, buffers that have come or grown. What it cannot
do again is refused when it would be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpc.checkpoint.names import few, kind, own_name, spoken
from hpc.errors import ConfigurationError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SetUp:
    """What is looked at before the first step of a life.

    Args:
        frozen: Names of parameters.
        parameters: Name -> shape.
        buffers: Name -> shape, of those that belong to the state dict.
        groups: Parameter groups of each optimizer.
    """

    frozen: list[str]
    parameters: dict[str, Shape]
    buffers: dict[str, Shape]
    groups: list[int]


def set_up_of(models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> SetUp:
    """How it is now."""
    return SetUp(
        frozen_in(models),
        {name: tuple(each.shape) for name, each in _parameters(models, every_name=True).items()},
        {name: tuple(each.shape) for name, each in _all_buffers(models)},
        [len(each.param_groups) for each in optimizers],
    )


def frozen_in(models: Sequence[nn.Module]) -> list[str]:
    """Names of the parameters that are not trained."""
    return [name for name, each in _parameters(models).items() if not each.requires_grad]


def freeze_again(models: Sequence[nn.Module], saved: Mapping[str, list[str]] | None) -> None:
    """Freeze and unfreeze as it had been done on the way, at steps that are not taken again.

    Where the code sets out with other layers frozen than it did in the life that saved, that is what is wanted now.

    Args:
        models: Freshly set up.
        saved: Which were frozen when that life had set them up, and which when it saved.
    """
    if saved is not None and saved["set up"] == frozen_in(models) != saved["now"]:
        for name, parameter in _parameters(models).items():
            parameter.requires_grad_(name not in saved["now"])


def grown_buffers(before: SetUp, now: SetUp, converts: Callable[[str], bool]) -> list[str]:
    """Names of the buffers that have come or changed their shape since a life began.

    Args:
        before: What there was then.
        now: What there is.
        converts: Whether code of the user's own makes room for a tensor of this name.

    Raises:
        ConfigurationError: Parameters have, or a buffer is gone, so that a model that is built anew could not take it.
    """
    changed = [name for name, shape in now.parameters.items() if before.parameters.get(name) != shape]
    gone = [name for name in (*before.parameters, *before.buffers) if name not in {**now.parameters, **now.buffers}]
    unfit = [spoken(name) for name in (*changed, *gone) if not converts(name)]
    if unfit:
        raise ConfigurationError(
            "Once training has begun, no parameter may come, go or change its shape, and no buffer may go, because a "
            f"resumed run builds its models as they are at the beginning, but {few(unfit)} did: build all layers "
            "before prepare, and freeze those that are not trained yet."
        )
    grown = [name for name, shape in now.buffers.items() if before.buffers.get(name) != shape]
    return [name for name in grown if not converts(name)]


def put_buffer(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Let a model have a buffer that it had when it was saved.

    Raises:
        ValueError: There is no place for it.
    """
    path, _, leaf = name.rpartition(".")
    owner = {own_name(key): module for key, module in model.named_modules()}.get(path)
    if owner is None or (hasattr(owner, leaf) and leaf not in owner._buffers):
        raise ValueError(f"there is no {name} here")
    parameter: Any = next(model.parameters(), value)
    owner.register_buffer(leaf, value.to(parameter.device))


def _parameters(models: Sequence[nn.Module], every_name: bool = False) -> dict[str, nn.Parameter]:
    """Under the first name of each, or under all of them."""
    return {
        f"{kind('model', number)}/{own_name(key)}": each
        for number, model in enumerate(models)
        for key, each in model.named_parameters(remove_duplicate=not every_name)
    }


def _all_buffers(models: Sequence[nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that belong to the state dict, under all their names."""
    for number, model in enumerate(models):
        for path, module in model.named_modules(remove_duplicate=False):
            for key, each in module.named_buffers(recurse=False, remove_duplicate=False):
                if key not in module._non_persistent_buffers_set:
                    yield f"{kind('model', number)}/{own_name(f'{path}.{key}' if path else key)}", each
