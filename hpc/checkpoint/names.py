"""What is each tensor of a training run called? After the user's own module, whatever it was wrapped in.

model/<name>                        of the first model; model_1/<name> of the second
optimizer/<name of parameter>/<key> of the first optimizer; optimizer_1/... of the second
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from hpc.checkpoint.manifest import TensorEntry
from hpc.checkpoint.shards import is_distributed
from hpc.checkpoint.tensors import DTYPES
from hpc.errors import SaveError

_T = TypeVar("_T")

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What torch.compile and activation checkpointing put into names (torch 2.6-2.13)."""


def own_name(name: str) -> str:
    """A name without what wrappers added."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def kind(prefix: str, index: int) -> str:
    """What the index-th model or optimizer is called."""
    return f"{prefix}_{index}" if index else prefix


def below(which: str, named: Mapping[str, _T]) -> dict[str, _T]:
    """Those of one kind, by the rest of their name."""
    prefix = f"{which}/"
    return {name.removeprefix(prefix): each for name, each in named.items() if name.startswith(prefix)}


def model_state(model: torch.nn.Module) -> dict[str, Any]:
    """A model's state dict under its own names; tied tensors are one object."""
    return {own_name(name): value for name, value in model.state_dict(keep_vars=True).items()}


def parameter_names(models: Sequence[torch.nn.Module]) -> dict[int, str]:
    """Identity of a parameter -> its name."""
    names: dict[int, str] = {}
    for index, model in enumerate(models):
        prefix = f"{kind('model', index)}/" if index else ""
        names |= {id(parameter): prefix + own_name(name) for name, parameter in model.named_parameters()}
    return names


class NamedOptimizer:
    """An optimizer whose state is told by name of parameter instead of by index.

    Args:
        optimizer: As torch made it.
        names: Of all parameters; one without is called after its place in the optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: dict[int, str]) -> None:
        self.optimizer = optimizer
        self.groups = [
            {names.get(id(p), f"group_{g}.{i}"): p for i, p in enumerate(group["params"])}
            for g, group in enumerate(optimizer.param_groups)
        ]
        self.parameters = {name: parameter for group in self.groups for name, parameter in group.items()}

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors as `<parameter>/<key>`, and everything else by group and parameter.

        Raises:
            SaveError: A tensor belongs to a sharded parameter and does not say how it is sharded itself.
        """
        packed = self.optimizer.state_dict()
        names = list(self.parameters)
        tensors: dict[str, torch.Tensor] = {}
        others: dict[str, dict[str, Any]] = {}
        for index, values in packed["state"].items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{names[index]}/{key}"] = self._checked(names[index], key, value)
                else:
                    others.setdefault(names[index], {})[key] = value
        groups = [
            {**options, "params": [*group]} for options, group in zip(packed["param_groups"], self.groups, strict=True)
        ]
        return tensors, {"groups": groups, "state": others}

    def targets(self, entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
        """New tensors for what a checkpoint holds of this optimizer: placed like their parameter, or else on the CPU.

        What belongs to no parameter here is left out.
        """
        targets: dict[str, torch.Tensor] = {}
        for name, entry in entries.items():
            parameter = self.parameters.get(name.rsplit("/", 1)[0])
            if parameter is not None and entry.shape == tuple(parameter.shape) != ():
                targets[name] = torch.empty_like(parameter, dtype=DTYPES[entry.dtype], requires_grad=False)
            elif parameter is not None:
                targets[name] = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        return targets

    def restore(self, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
        """Take back what `state` told.

        Raises:
            ValueError: It is of other parameter groups.
        """
        index = {name: place for place, name in enumerate(self.parameters)}
        packed: dict[int, dict[str, Any]] = {index[name]: dict(values) for name, values in plain["state"].items()}
        for name, tensor in tensors.items():
            parameter, key = name.rsplit("/", 1)
            packed.setdefault(index[parameter], {})[key] = tensor
        if [set(group["params"]) for group in plain["groups"]] != [set(group) for group in self.groups]:
            raise ValueError("its optimizer has other parameter groups")
        groups = [
            {**saved, "params": [index[name] for name in group]}
            for saved, group in zip(plain["groups"], self.groups, strict=True)
        ]
        self.optimizer.load_state_dict({"state": packed, "param_groups": groups})

    def _checked(self, name: str, key: str, value: torch.Tensor) -> torch.Tensor:
        if value.dim() and is_distributed(self.parameters[name]) and not is_distributed(value):
            raise SaveError(
                f"An optimizer's state of a sharded parameter must be a DTensor or a scalar, but {key} of {name} is a "
                f"plain tensor of shape {list(value.shape)}."
            )
        return value
