"""What is in a batch: tensors, somewhere in mappings and sequences."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch


def map_tensors(function: Callable[[torch.Tensor], Any], nest: Any) -> Any:
    """The same nest with `function` of every tensor in it; whatever else it holds stays."""
    if isinstance(nest, torch.Tensor):
        return function(nest)
    if isinstance(nest, Mapping):
        return {key: map_tensors(function, value) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        mapped = [map_tensors(function, value) for value in nest]
        return type(nest)(*mapped) if hasattr(nest, "_fields") else type(nest)(mapped)
    return nest


def tensors_of(nest: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a nest, in the order in which it lies there."""
    if isinstance(nest, torch.Tensor):
        yield nest
    elif isinstance(nest, (Mapping, list, tuple)):
        for value in nest.values() if isinstance(nest, Mapping) else nest:
            yield from tensors_of(value)


def to_device(batch: Any, device: torch.device) -> Any:
    """The same nest with its tensors on `device`; a batch that knows how to move itself does.

    For the CPU it is the very same: loaders make batches there.
    """
    if device.type == "cpu":
        return batch
    if hasattr(batch, "to") and not isinstance(batch, torch.Tensor):
        return batch.to(device)
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


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
