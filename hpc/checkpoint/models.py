"""What of a model is saved, and how does it get back? Its own tensors are read in place; the rest its own code takes.

A tensor of the state dict that is a parameter or a registered buffer of the model is read into that very tensor. All
else is what the module's code has made for its state dict: a copy, an extra state, a converted weight. It goes back
through `load_state_dict`, which knows what to do with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import torch

from hpc.checkpoint.manifest import TensorEntry
from hpc.checkpoint.names import few, own_name
from hpc.checkpoint.packing import packed
from hpc.checkpoint.plain import Keep
from hpc.checkpoint.set_up import put_buffers
from hpc.checkpoint.shards import is_distributed
from hpc.checkpoint.tensors import DTYPES, code_of, is_storable
from hpc.checkpoint.unpacking import unpacked
from hpc.errors import ConfigurationError

EXTRA_STATE = "_extra_state"
"""What torch calls the state that a module makes itself (torch 2.6-2.13)."""


class NamedModel:
    """A model's state under its own names.

    Args:
        model: Unwrapped.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        state = model.state_dict(keep_vars=True)
        self._metadata = getattr(state, "_metadata", None)
        self._given_names = {own_name(name): name for name in state}
        self.values: dict[str, Any] = {own_name(name): value for name, value in state.items()}
        parameters = {id(parameter) for parameter in model.parameters()}
        buffers = {id(buffer) for buffer in model.buffers()}
        self.parameters = {name: each for name, each in self.values.items() if id(each) in parameters}
        self._buffers = {name: each for name, each in self.values.items() if id(each) in buffers}
        filled = {name: each for name, each in self._buffers.items() if is_storable(each) and not overlaps(each)}
        self.live: dict[str, torch.Tensor] = {**self.parameters, **filled}
        """What is read in place; tied tensors are one object."""
        self._grown: list[str] = []

    def make_room(self, grown: Iterable[str]) -> None:
        """Let these buffers be new ones: they had come or grown since the model was set up."""
        self._grown = [*grown]
        self.live = {name: each for name, each in self.live.items() if name not in self._grown}

    def state(self, which: str, keep: Keep) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors by name, and what else the state dict holds.

        Args:
            which: What the model is called.
            keep: What is done with tensors inside of what else there is.

        Raises:
            ConfigurationError: A value cannot be saved, or a parameter that is trained is not among them.
            SaveError: A parameter is of a type that files of tensors do not know.
        """
        for name, parameter in self.parameters.items():
            code_of(parameter, name)
        self._check_trained()
        tensors = {name: each for name, each in self.values.items() if is_storable(each)}
        others = {n: packed(each, f"{which}/{n}", keep) for n, each in self.values.items() if n not in tensors}
        return tensors, others

    def targets(self, entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
        """Where a checkpoint's tensors are to be read: the model's own, and new ones for all else."""
        return {name: self._target(name, entry) for name, entry in entries.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any], fetch: Any) -> None:
        """Hand everything to `load_state_dict`; what was read in place is there already.

        Raises:
            ValueError: The model has no place for a value, or misses one.
        """
        values = {**tensors, **{name: unpacked(each, fetch) for name, each in plain.items()}}
        renew_buffers(self.model, values, self._grown)
        ordered = [*(name for name in self.values if name in values), *(n for n in values if n not in self.values)]
        state: Any = OrderedDict((self._given_names.get(name, name), values[name]) for name in ordered)
        state._metadata = self._metadata  # versions of modules, without which torch takes a state dict for an old one
        if not is_loaded_by_torch(self.model):
            self.model.load_state_dict(state)
            return
        missing, unexpected = _loaded(self.model, state)
        missing = [name for name in map(own_name, missing) if name in self.values]  # else it is left out on purpose
        if missing:
            raise ValueError(f"it has no {few(missing)}")
        if unexpected:
            raise ValueError(f"there is no {few([own_name(name) for name in unexpected])} here")

    def _target(self, name: str, entry: TensorEntry) -> torch.Tensor:
        own = self.live.get(name)
        return own if own is not None and tuple(own.shape) == entry.shape else _new(entry, self.values.get(name))

    def _check_trained(self) -> None:
        """Refuse a state dict without what is trained, unless something in it may be that in another form."""
        own = {id(each) for each in (*self.parameters.values(), *self._buffers.values())}
        made = [each for name, each in self.values.items() if id(each) not in own and not name.endswith(EXTRA_STATE)]
        sizes = {each.numel() if isinstance(each, torch.Tensor) else None for each in made}
        trained = {own_name(name): each for name, each in self.model.named_parameters() if each.requires_grad}
        left_out = [n for n, each in trained.items() if id(each) not in own and not sizes & {each.numel(), None}]
        if left_out:
            raise ConfigurationError(
                f"What is trained must be in its model's state dict, but {few(left_out)} is not in that of the "
                f"{type(self.model).__name__}: let state_dict give it, or freeze it with requires_grad_(False)."
            )


def is_loaded_by_torch(thing: object) -> TypeGuard[torch.nn.Module]:
    """Whether it is a module, and torch's own code takes its state dict."""
    if not isinstance(thing, torch.nn.Module):
        return False
    return getattr(thing.load_state_dict, "__func__", None) is torch.nn.Module.load_state_dict


def converts(model: torch.nn.Module, name: str) -> bool:
    """Whether code of the user's own sees what is loaded under this name, and may make it fit."""
    if not is_loaded_by_torch(model):
        return True
    path = name.split(".")[:-1]
    above = [".".join(path[:end]) for end in range(len(path) + 1)]
    modules = {own_name(key): module for key, module in model.named_modules()}
    return any(_has_own_way(modules[key]) for key in above if key in modules)


def renew_buffers(module: torch.nn.Module, state: Mapping[str, Any], grown: Iterable[str]) -> None:
    """Before a state dict is loaded, let its tensors be the buffers that had come or grown, or cannot be written into.

    Raises:
        ValueError: There is no place for one.
    """
    buffers = module.named_buffers(remove_duplicate=False)
    new = {*grown, *(own_name(name) for name, each in buffers if not is_storable(each) or overlaps(each))}
    put_buffers(module, {name: each for name, each in state.items() if own_name(name) in new})


def _loaded(model: torch.nn.Module, state: Any) -> tuple[list[str], list[str]]:
    """Names that torch's load_state_dict misses, and those that it does not know."""
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # the first line only says that the others are errors (torch 2.6-2.13)
        lines = str(error).strip().splitlines()
        raise ValueError(lines[min(1, len(lines) - 1)].strip()) from error
    return missing, unexpected


def _has_own_way(module: torch.nn.Module) -> bool:
    """Whether a module has code that is asked when its state is loaded; torch's own only looks at versions."""
    is_own = not type(module).__module__.startswith("torch.")
    function = type(module)._load_from_state_dict
    return bool(module._load_state_dict_pre_hooks) or (is_own and function is not torch.nn.Module._load_from_state_dict)


def overlaps(tensor: torch.Tensor) -> bool:
    """Whether several elements may lie in one place of memory, as where a tensor was expanded: it cannot be written."""
    if is_distributed(tensor):
        return False
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _new(entry: TensorEntry, like: Any) -> torch.Tensor:
    """A tensor for an entry, placed as what it is to replace."""
    return fresh(entry, like) if isinstance(like, torch.Tensor) else torch.empty(entry.shape, dtype=DTYPES[entry.dtype])


def fresh(entry: TensorEntry, like: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor with an entry's shape and type; it is sharded as another one of that shape is."""
    dtype = DTYPES[entry.dtype]
    if tuple(like.shape) == entry.shape:
        return torch.empty_like(like, dtype=dtype, requires_grad=False)
    return torch.empty(entry.shape, dtype=dtype, device=like.device)
