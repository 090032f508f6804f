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

from hpc.checkpoint.names import few, own_name, spoken
from hpc.errors import ConfigurationError

Shape = tuple[int, ...]
Modules = Mapping[str, nn.Module]
"""What was prepared or registered, by the name that its tensors' names begin with."""


@dataclass(frozen=True)
class SetUp:
    """What is looked at before the first step of a life.

    Args:
        modules: Their names.
        frozen: Names of parameters.
        parameters: Name -> shape.
        buffers: Name -> shape, of those that belong to the state dict.
        groups: Parameter groups of each optimizer.
    """

    modules: frozenset[str]
    frozen: list[str]
    parameters: dict[str, Shape]
    buffers: dict[str, Shape]
    groups: list[int]


def set_up_of(modules: Modules, optimizers: Sequence[torch.optim.Optimizer]) -> SetUp:
    """How it is now."""
    return SetUp(
        frozenset(modules),
        frozen_in(modules),
        {name: tuple(each.shape) for name, each in _parameters(modules, every_name=True).items()},
        {name: tuple(each.shape) for name, each in _all_buffers(modules)},
        [len(each.param_groups) for each in optimizers],
    )


def frozen_in(modules: Modules) -> list[str]:
    """Names of the parameters that are not trained."""
    return [name for name, each in _parameters(modules).items() if not each.requires_grad]


def freeze_again(modules: Modules, saved: Mapping[str, list[str]] | None) -> None:
    """Freeze and unfreeze as it had been done on the way, at steps that are not taken again.

    Where the code sets out with other layers frozen than it did in the life that saved, that is what is wanted now.

    Args:
        modules: Freshly set up.
        saved: Which were frozen when that life had set them up, and which when it saved.
    """
    if saved is not None and saved["set up"] == frozen_in(modules) != saved["now"]:
        for name, parameter in _parameters(modules).items():
            parameter.requires_grad_(name not in saved["now"])


def grown_buffers(before: SetUp, now: SetUp, modules: Modules, converts: Callable[[nn.Module, str], bool]) -> list[str]:
    """Names of the buffers that have come or changed their shape since a life began.

    Args:
        before: What there was then.
        now: What there is.
        modules: Of both.
        converts: Whether code of the user's own makes room for a tensor of this name.

    Raises:
        ConfigurationError: Parameters have, or a buffer is gone, so that a model that is built anew could not take it.
    """

    def fits(name: str) -> bool:
        which = max((each for each in modules if name.startswith(f"{each}/")), key=len)
        return converts(modules[which], name.removeprefix(f"{which}/"))

    changed = [name for name, shape in now.parameters.items() if before.parameters.get(name) != shape]
    gone = [name for name in (*before.parameters, *before.buffers) if name not in {**now.parameters, **now.buffers}]
    unfit = [spoken(name) for name in (*changed, *gone) if not fits(name)]
    if unfit:
        raise ConfigurationError(
            "Once training has begun, no parameter may come, go or change its shape, and no buffer may go, because a "
            f"resumed run builds its modules as they are at the beginning, but {few(unfit)} did: build all layers "
            "before prepare, and freeze those that are not trained yet."
        )
    grown = [name for name, shape in now.buffers.items() if before.buffers.get(name) != shape]
    return [name for name in grown if not fits(name)]


def put_buffers(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Let a model have buffers that it had when it was saved.

    Raises:
        ValueError: There is no place for one.
    """
    modules = {own_name(key): module for key, module in model.named_modules(remove_duplicate=False)}
    for name, value in values.items():
        path, _, leaf = own_name(name).rpartition(".")
        owner = modules.get(path)
        if owner is None or (hasattr(owner, leaf) and leaf not in owner._buffers):
            raise ValueError(f"there is no {name} here")
        parameter: Any = next(model.parameters(), value)
        owner.register_buffer(leaf, value.to(parameter.device))


def _parameters(modules: Modules, every_name: bool = False) -> dict[str, nn.Parameter]:
    """Under the first name of each, or under all of them."""
    return {
        f"{which}/{own_name(key)}": each
        for which, module in modules.items()
        for key, each in module.named_parameters(remove_duplicate=not every_name)
    }


def _all_buffers(modules: Modules) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that belong to the state dict, under all their names."""
    for which, whole in modules.items():
        for path, module in whole.named_modules(remove_duplicate=False):
            for key, each in module.named_buffers(recurse=False, remove_duplicate=False):
                if key not in module._non_persistent_buffers_set:
                    yield f"{which}/{own_name(f'{path}.{key}' if path else key)}", each
