"""What is in a batch? Tensors, somewhere inside mappings, sequences and objects, whose types are kept."""

from __future__ import annotations

import copy
import importlib
from collections import UserList, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import is_dataclass
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch

from hpc.errors import ConfigurationError

Parts = dict[Hashable, Any]
"""What lies directly in a nest: by key, by place, or by the name of an attribute."""
CLOSED = (type, ModuleType, FunctionType, MethodType)
"""Their attributes are no part of a batch."""


def parts_of(nest: Any) -> Parts | None:
    """What lies in a mapping, list, tuple, deque, data class, attrs class or namespace; None for anything else."""
    if isinstance(nest, (torch.Tensor, torch.Size)):
        return None
    if isinstance(nest, Mapping):
        return dict(nest.items())
    if is_list(nest) or isinstance(nest, tuple):
        return dict(enumerate(nest))
    if is_record(nest):
        return attributes_of(nest)
    return None


def is_list(nest: Any) -> bool:
    """Whether its entries can be replaced one by one: a list, a deque, a UserList, or a subclass of these."""
    return isinstance(nest, (list, deque, UserList))


def is_record(nest: Any) -> bool:
    """Whether it is an object that consists of its attributes: a data class, an attrs class or a namespace."""
    record = is_dataclass(nest) or hasattr(nest, "__attrs_attrs__") or isinstance(nest, SimpleNamespace)
    return record and not isinstance(nest, type)


def attributes_of(thing: Any) -> Parts:
    """What an object's attributes are, in slots or not."""
    slots = (vars(kind).get("__slots__", ()) for kind in type(thing).__mro__)
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    set_slots = {name: getattr(thing, name) for name in names if not name.startswith("__") and hasattr(thing, name)}
    return {**set_slots, **getattr(thing, "__dict__", {})}


def with_parts(nest: Any, parts: Parts) -> Any:
    """The same nest, of the same type, with other things in the same places.

    Raises:
        ConfigurationError: Its type cannot be copied.
    """
    try:
        if isinstance(nest, tuple):
            return _tuple(nest, list(parts.values()))
        if isinstance(nest, Mapping) and not isinstance(nest, MutableMapping):
            return type(nest)(parts)  # type: ignore[call-arg]
        clone = copy.copy(nest)
        for key, value in parts.items():
            if isinstance(nest, Mapping) or is_list(nest):
                clone[key] = value
            else:
                object.__setattr__(clone, str(key), value)  # frozen ones too
    except Exception as error:
        raise ConfigurationError(
            f"A batch or value must be of types that can be copied with other tensors in them, but a "
            f"{type(nest).__name__} cannot ({type(error).__name__}: {error}): use a dict, a named tuple or data class."
        ) from error
    return clone


def with_entries(nest: Any, entries: list[Any]) -> Any:
    """The same list or tuple with other entries, however many."""
    if isinstance(nest, tuple):
        return _tuple(nest, entries)
    clone = copy.copy(nest)
    clone.clear()
    clone.extend(entries)
    return clone


def map_leaves(is_leaf: Callable[[Any], bool], function: Callable[[Any], Any], nest: Any, objects: bool = True) -> Any:
    """The same nest with `function` of every leaf in it; whatever else it holds stays.

    Args:
        is_leaf: Says what is one.
        function: Of one leaf.
        nest: Anything; where nothing in it changes, this very thing is returned.
        objects: Look into the attributes of objects of other types as well, though not into those of objects in these:
            they may lead anywhere.
    """
    if is_leaf(nest):
        return function(nest)
    parts = parts_of(nest)
    if parts is None and objects and not isinstance(nest, CLOSED):
        parts, objects = attributes_of(nest), False
    if parts is None:
        return nest
    mapped = {key: map_leaves(is_leaf, function, part, objects) for key, part in parts.items()}
    return nest if all(mapped[key] is part for key, part in parts.items()) else with_parts(nest, mapped)


def to_device(batch: Any, device: torch.device) -> Any:
    """The same nest with its tensors on `device`; what knows how to move itself does.

    For the CPU it is the very same: loaders make batches there.
    """
    if device.type == "cpu":
        return batch
    return map_leaves(_can_move, lambda leaf: _moved(leaf, device), batch)


def on_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches moved to a device; XLA, which only records what is computed, is told to run it before the next one."""
    if device.type == "cpu":
        return iter(batches)
    if device.type == "xla":
        return _run_in_between(batches, device)
    return (to_device(batch, device) for batch in batches)


def _can_move(thing: Any) -> bool:
    return callable(getattr(thing, "to", None)) and not isinstance(thing, type)


def _moved(thing: Any, device: torch.device) -> Any:
    if isinstance(thing, torch.Tensor):
        return thing.to(device, non_blocking=True)
    moved = thing.to(device)
    return thing if moved is None else moved  # it has moved in place


def _tuple(nest: tuple[Any, ...], values: list[Any]) -> Any:
    if hasattr(nest, "_make"):
        return nest._make(values)
    if type(nest).__new__ is tuple.__new__:
        clone = tuple.__new__(type(nest), values)
        vars(clone).update(vars(nest)) if hasattr(nest, "__dict__") else None
        return clone
    return type(nest)(values)  # torch's return types among them


def _run_in_between(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    sync = importlib.import_module("torch_xla").sync
    for batch in batches:
        yield to_device(batch, device)
        sync()
