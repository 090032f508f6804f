"""What of a model is saved, and how does it get back? Its own tensors are read in place; the rest its own code takes.

A tensor of the state dict that is a parameter or a registered buffer of the model is read into that very tensor. All
else is what the module's code has made for its state dict: a copy, an extra state, a converted weight. It goes back
through `load_state_dict`, which knows what to do with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from hpc.checkpoint.manifest import TensorEntry
from hpc.checkpoint.names import few, own_name
from hpc.checkpoint.packing import packed
from hpc.checkpoint.plain import Keep
from hpc.checkpoint.tensors import DTYPES, is_storable
from hpc.checkpoint.unpacking import unpacked


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
        tensors = [*model.parameters(), *model.buffers()]
        own = {id(tensor) for tensor in tensors}
        self.live: dict[str, torch.Tensor] = {name: each for name, each in self.values.items() if id(each) in own}
        """What is read in place; tied tensors are one object."""
        parameters = {id(parameter) for parameter in model.parameters()}
        self.parameters = {name: each for name, each in self.live.items() if id(each) in parameters}

    def state(self, which: str, keep: Keep) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors by name, and what else the state dict holds.

        Args:
            which: What the model is called.
            keep: What is done with tensors inside of what else there is.

        Raises:
            ConfigurationError: A value cannot be saved.
        """
        tensors = {name: each for name, each in self.values.items() if name in self.live or is_storable(each)}
        others = {n: packed(each, f"{which}/{n}", keep) for n, each in self.values.items() if n not in tensors}
        return tensors, others

    def targets(self, entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
        """Where a checkpoint's tensors are to be read: the model's own, and new ones for all else."""
        return {
            name: self.live[name] if name in self.live else _new(entry, self.values.get(name))
            for name, entry in entries.items()
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any], fetch: Any) -> None:
        """Hand everything to `load_state_dict`; what was read in place is there already.

        Raises:
            ValueError: The model has no place for a value, or misses one.
        """
        values = {**tensors, **{name: unpacked(each, fetch) for name, each in plain.items()}}
        ordered = [*(name for name in self.values if name in values), *(n for n in values if n not in self.values)]
        state: Any = OrderedDict((self._given_names.get(name, name), values[name]) for name in ordered)
        state._metadata = self._metadata  # versions of modules, without which torch takes a state dict for an old one
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        if missing:
            raise ValueError(f"it has no {few([own_name(name) for name in missing])}")
        if unexpected:
            raise ValueError(f"there is no {few([own_name(name) for name in unexpected])} here")


def _new(entry: TensorEntry, like: Any) -> torch.Tensor:
    """A tensor for an entry, placed as what it is to replace."""
    return fresh(entry, like) if isinstance(like, torch.Tensor) else torch.empty(entry.shape, dtype=DTYPES[entry.dtype])


def fresh(entry: TensorEntry, like: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor with an entry's shape and type; it is sharded as another one of that shape is."""
    dtype = DTYPES[entry.dtype]
    if tuple(like.shape) == entry.shape:
        return torch.empty_like(like, dtype=dtype, requires_grad=False)
    return torch.empty(entry.shape, dtype=dtype, device=like.device)
