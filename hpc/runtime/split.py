"""Which entries of something that all ranks have are this rank's?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hpc.errors import ConfigurationError
from hpc.world import World


def split(inputs: Any, world: World, apply_padding: bool) -> Any:
    """This rank's entries, in order; the first ranks have one more where they do not come out even.

    Args:
        inputs: A list, a tuple, a tensor, something with `select` as Hugging Face data sets have it, or a mapping of
            these to equally long ones.
        world: Which rank this is.
        apply_padding: Repeat the last entry, so that all ranks have equally many.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(inputs, Mapping):
        if len({len(each) for each in inputs.values()}) > 1:
            raise ConfigurationError(
                "runtime.split_between_processes takes a mapping whose entries are equally long, but got lengths "
                f"{', '.join(f'{name}: {len(each)}' for name, each in inputs.items())}: cut them to one length."
            )
        return {name: split(each, world, apply_padding) for name, each in inputs.items()}
    if not isinstance(inputs, (list, tuple, torch.Tensor)) and not hasattr(inputs, "select"):
        raise ConfigurationError(
            "runtime.split_between_processes takes lists, tuples, tensors, Hugging Face data sets and mappings of "
            f"these, but got a {type(inputs).__name__}: write list(inputs)."
        )
    places = _places(len(inputs), world, apply_padding)
    if isinstance(inputs, (list, tuple)):
        return type(inputs)([inputs[place] for place in places])
    return inputs[places] if isinstance(inputs, torch.Tensor) else inputs.select(places)


def _places(length: int, world: World, apply_padding: bool) -> list[int]:
    """Which entries are this rank's."""
    each, more = divmod(length, world.world_size)
    start = world.rank * each + min(world.rank, more)
    places = list(range(start, start + each + (world.rank < more)))
    return places + [length - 1] * (each + bool(more) - len(places)) if apply_padding else places
