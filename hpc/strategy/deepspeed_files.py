"""What does DeepSpeed's engine write into a checkpoint, and how is it read without running code from it?

DeepSpeed reads its files with an unrestricted pickle (0.15-0.19). Here its engine gets them from a reader that makes
nothing but tensors, plain values and the four classes of DeepSpeed's own that are in such files. What that reader would
refuse is refused when it is saved.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from hpc.checkpoint.archive import read_archive, scan
from hpc.checkpoint.group import Group
from hpc.checkpoint.reading import DamagedError, opened, shown
from hpc.errors import LoadError, SaveError

TAG = "engine"
"""The folder that an engine writes in a checkpoint."""
CLASSES = (
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
)
"""Holders of numbers: to make one does nothing else (DeepSpeed 0.15-0.19)."""


class EngineFiles:
    """The part of a checkpoint that an engine writes and reads itself: every rank its own files.

    Args:
        engine: DeepSpeed's.
        group: All its ranks.
    """

    def __init__(self, engine: Any, group: Group) -> None:
        self.engine, self.group = engine, group

    def save_files(self, directory: Path) -> None:
        """Write weights and optimizer state into a directory. Collective.

        Raises:
            SaveError: They hold something that `load_files` would refuse.
        """
        self.engine.save_checkpoint(str(directory), tag=TAG, save_latest=False)
        self.group.all_gather(None)  # a file of another rank may not be whole before
        problem = self._problem(directory / TAG)
        if problem:
            raise SaveError(
                f"An engine's files must hold tensors and plain values only, so that no code runs when they are "
                f"loaded, but {problem}; a numpy number among the optimizer's settings becomes a plain one by float()."
            )

    @property
    def is_shared(self) -> bool:
        """Whether every rank holds whole parameters; ZeRO 3 divides them."""
        return not any(hasattr(parameter, "ds_tensor") for parameter in self.engine.module.parameters())

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """Name -> a parameter, or this rank's part of it (DeepSpeed 0.15-0.19: ZeRO 3 keeps it in `ds_tensor`)."""
        named = self.engine.module.named_parameters()
        return {name: getattr(parameter, "ds_tensor", parameter) for name, parameter in named}

    def load_files(self, directory: Path) -> None:
        """Go on from what `save_files` wrote. Collective.

        Raises:
            LoadError: A file holds something else than an engine writes.
            ValueError: The files do not fit the engine.
        """
        problems = [each for each in self.group.all_gather(self._problem(directory / TAG)) if each]
        if problems:
            raise LoadError(
                f"{directory} must hold what DeepSpeed has written, but {problems[0]}: restore it, or choose another "
                "run_dir to start anew."
            )
        with _restricted(self.engine.checkpoint_engine):
            path, _ = self.engine.load_checkpoint(str(directory), tag=TAG, load_lr_scheduler_states=False)
        if path is None:
            raise ValueError(f"DeepSpeed finds nothing to load in {directory / TAG}")

    def _problem(self, directory: Path) -> str:
        """What is wrong with this rank's share of the files; "" where nothing is."""
        world = self.group.world
        for name in sorted(path.name for path in directory.glob("*.pt"))[world.rank :: world.world_size]:
            try:
                with opened(directory, name) as file:
                    scan(file, [*_classes()])
            except (DamagedError, ValueError) as error:
                return f"{name} is not like that: {shown(error)}"
        return ""


@contextmanager
def _restricted(reader: Any) -> Iterator[None]:
    """For a while, have DeepSpeed's reader of files read nothing that could run code."""
    reader.load = _load
    try:
        yield
    finally:
        del reader.load


def _load(path: str, map_location: Any = None) -> Any:
    where = Path(path)
    with opened(where.parent, where.name) as file:
        return read_archive(file, _classes(), map_location)


def _classes() -> dict[str, Callable[..., Any]]:
    """By module and name, as a pickle has them; one that another version of DeepSpeed does not have is left out."""
    found = {f"{module} {name}": getattr(importlib.import_module(module), name, None) for module, name in CLASSES}
    return {name: each for name, each in found.items() if isinstance(each, type)} | {"__builtin__ getattr": member}


def member(kind: Any, name: Any) -> Enum:
    """A member of an enumeration, which Python 3.11.0 to 3.11.3 pickle as `getattr` of its class.

    Raises:
        ValueError: It would be an attribute of something else.
        KeyError: It has no such member.
    """
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise ValueError(f"it asks for an attribute of {kind!r}, which is no enumeration")
    found: Enum = kind[name]
    return found
