"""What do packing and unpacking a value have in common? The tags, and which classes are found by their names."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import torch

from hpc.checkpoint.reading import shown
from hpc.errors import LoadError

TAG = "hpc:type"
"""The key that tells a converted value from a dict; a dict that has such a key itself is converted too."""

Keep = Callable[[str, torch.Tensor], Any]
"""Place and tensor -> what stands there in the file, in types that need no conversion."""
Fetch = Callable[[dict[str, Any]], torch.Tensor]
"""What `Keep` has put into the file -> the tensor."""


FACTORIES: dict[str, Any] = {each.__name__: each for each in (list, dict, set, tuple, int, float, str, bool, bytes)}
PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))


def tensor_tag(tensor: torch.Tensor, **fields: Any) -> dict[str, Any]:
    """What stands for a tensor: where it lived, and whatever else is needed to find it again."""
    is_leaf = tensor.requires_grad and tensor.is_leaf
    kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "tensor"
    return {TAG: "tensor", "device": tensor.device.type, "kind": kind, "requires_grad": is_leaf, **fields}


def dressed(tensor: torch.Tensor, tag: dict[str, Any]) -> torch.Tensor:
    """A tensor with what its tag says of it."""
    if tag.get("kind") == "parameter":
        return torch.nn.Parameter(tensor, requires_grad=tag["requires_grad"])
    return tensor.requires_grad_() if tag.get("requires_grad") else tensor


def on_device(kind: str) -> torch.device:
    """The device of this kind that this rank uses; the CPU where there is none.

    Raises:
        RuntimeError: There is no such kind.
    """
    device = torch.device(kind if type(kind) is str else "")
    backend = vars(torch).get(device.type)
    is_here = kind != "cpu" and backend is not None and hasattr(backend, "is_available") and backend.is_available()
    return torch.device(kind if is_here else "cpu")


def is_plain_dataclass(kind: Any) -> bool:
    """Whether it is a dataclass whose objects are nothing besides, as those that are also dicts are.

    One that does something when it is thrown away is none: a file could have it do that to what it likes.
    """
    makes: Any = kind.__new__
    return dataclasses.is_dataclass(kind) and makes is object.__new__ and not hasattr(kind, "__del__")


def fields_of(value: Any) -> dict[str, Any]:
    """Of a dataclass: its fields, wherever it keeps them, and what was hung on it besides."""
    fields = {field.name for field in dataclasses.fields(value)}
    found = {name: getattr(value, name) for name in sorted(fields) if hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def find(module: str, name: str) -> Any:
    """A class that is here already: nothing is imported because a file says so."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)  # getattr may import what a module gives out lazily
    if not isinstance(found, type):
        raise LoadError(
            f"The checkpoint holds a {shown(f'{module}.{name}')}, but there is no such class here: give it back its "
            "name, or import it before training goes on."
        )
    return found
