"""What a checkpoint holds: everything an exact continuation needs, in files that torch.load reads by itself.

model.pt      name -> tensor, under the names of the unwrapped model
optimizer.pt  one state dict per optimizer
trainer.pt    schedulers, loss scaler, position in the data, random states of every rank
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
import torch

from hpc.checkpoint.store import HashingWriter, Writers
from hpc.errors import LoadError


class Stateful(Protocol):
    """Anything with a state dict."""

    def state_dict(self) -> dict[str, Any]:
        """What to save."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take it back."""
        ...


class SavesItself(Protocol):
    """What writes and reads its part of a checkpoint itself, on every rank."""

    def save_files(self, directory: Path) -> None:
        """Write into a directory. Collective."""
        ...

    def load_files(self, directory: Path) -> None:
        """Take it back. Collective."""
        ...


@dataclass
class TrainingState:
    """The parts of a training run, as the user handed them over.

    Args:
        models: Unwrapped modules.
        optimizers: As torch made them.
        others: Name -> anything stateful: schedulers, the loss scaler, what the user registered.
        engines: Name -> anything that writes files of its own.
    """

    models: list[torch.nn.Module]
    optimizers: list[torch.optim.Optimizer]
    others: dict[str, Stateful]
    engines: dict[str, SavesItself] = field(default_factory=dict)

    def writers(self, extra: Mapping[str, Any]) -> Writers:
        """What writes each file of a checkpoint; `extra` goes into trainer.pt beside the rest."""
        trainer = {"others": {name: other.state_dict() for name, other in self.others.items()}, **extra}
        contents: dict[str, Any] = {
            "model.pt": [model.state_dict() for model in self.models],
            "optimizer.pt": [optimizer.state_dict() for optimizer in self.optimizers],
            "trainer.pt": trainer,
        }
        return {name: _saver(content) for name, content in contents.items()}

    def load(self, directory: Path) -> dict[str, Any]:
        """Put a checkpoint back into the objects; returns the extra part of trainer.pt.

        Raises:
            LoadError: The checkpoint belongs to another model, optimizer or set of objects.
        """
        try:
            _load_each(self.models, _read(directory / "model.pt"))
            _load_each(self.optimizers, _read(directory / "optimizer.pt"))
            trainer: dict[str, Any] = _read(directory / "trainer.pt")
            others = trainer.pop("others")
            for name, other in self.others.items():
                other.load_state_dict(others[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise LoadError(f"{directory} does not fit what is being trained: {error}") from error
        return trainer


def random_state() -> dict[str, Any]:
    """This rank's random generators, in types that torch.load takes with weights_only."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # what user code draws from
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put one rank's generators back to where they were."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch alike on every rank, so that all build the same model."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the generator that user code draws from
    torch.manual_seed(seed)


def _saver(content: Any) -> Any:
    def save(writer: HashingWriter) -> None:
        torch.save(content, cast("IO[bytes]", writer))  # write is all that torch asks of a file (torch 2.6-2.13)

    return save


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_each(targets: list[Any], states: list[Any]) -> None:
    if len(targets) != len(states):
        raise ValueError(f"it holds {len(states)} state dict(s) for {len(targets)} object(s)")
    for target, state in zip(targets, states, strict=True):
        target.load_state_dict(state)
