"""What does a checkpoint hold? Everything an exact continuation needs.

model.safetensors      weights and buffers, under the names of the user's own module
optimizer.safetensors  what the optimizer keeps of each parameter, under the parameter's name
trainer.pt             what is not a tensor of these: schedulers, loss scaler, position in the data, random states

The same names whatever the strategy and the number of ranks; where tensors are sharded each rank writes its own
part, into model.rank_00003.safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from hpc.checkpoint.manifest import Written
from hpc.checkpoint.names import NamedOptimizer, below, kind, model_state, parameter_names
from hpc.errors import LoadError

SHOWN_NAMES = 3


class Stateful(Protocol):
    """Anything with a state dict."""

    def state_dict(self) -> dict[str, Any]:
        """What to save."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take it back."""
        ...


class SavesItself(Protocol):
    """An engine that keeps model and optimizer in files of its own, as DeepSpeed's does."""

    def save_files(self, directory: Path) -> None:
        """Write everything into an empty directory, the same on all ranks. Collective."""
        ...

    def load_files(self, directory: Path) -> None:
        """Take it back; the files have been verified. Collective."""
        ...


@dataclass(frozen=True)
class Contents:
    """What is to be saved, sharing memory with what is trained.

    Args:
        tensors: By kind and name.
        aliases: Names of tied tensors -> the name that is stored.
        trainer: What trainer.pt holds for all ranks.
    """

    tensors: dict[str, torch.Tensor]
    aliases: dict[str, str]
    trainer: dict[str, Any]


@dataclass
class TrainingState:
    """The parts of a training run, as the user handed them over.

    Args:
        models: Unwrapped modules.
        optimizers: As torch made them.
        others: Name -> anything else stateful: schedulers, the loss scaler, what was registered.
        engines: Name -> what saves itself.
    """

    models: list[torch.nn.Module]
    optimizers: list[torch.optim.Optimizer]
    others: dict[str, Stateful]
    engines: dict[str, SavesItself] = field(default_factory=dict)

    def contents(self, extra: Mapping[str, Any]) -> Contents:
        """Everything to save that is alike on all ranks; `extra` goes into trainer.pt."""
        tensors: dict[str, torch.Tensor] = {}
        plain: dict[str, list[Any]] = {"models": [], "optimizers": []}
        for which, values in self._model_values().items():
            tensors |= {f"{which}/{name}": each for name, each in values.items() if isinstance(each, torch.Tensor)}
            plain["models"].append({n: each for n, each in values.items() if not isinstance(each, torch.Tensor)})
        aliases = _aliases(tensors)
        for which, optimizer in self._named_optimizers().items():
            state, others = optimizer.state()
            tensors |= {f"{which}/{name}": each for name, each in state.items()}
            plain["optimizers"].append(others)
        trainer = {**plain, "others": {name: other.state_dict() for name, other in self.others.items()}, **extra}
        return Contents({n: each for n, each in tensors.items() if n not in aliases}, aliases, trainer)

    def targets(self, written: Written) -> dict[str, torch.Tensor]:
        """The tensors a checkpoint is to be read into: the models' own, and new ones for the optimizers.

        Raises:
            LoadError: The checkpoint is of another model or another set of parameters.
        """
        targets: dict[str, torch.Tensor] = {}
        for which, values in self._model_values().items():
            targets |= {f"{which}/{name}": each for name, each in values.items() if isinstance(each, torch.Tensor)}
        for which, optimizer in self._named_optimizers().items():
            fresh = optimizer.targets(below(which, written.tensors))
            targets |= {f"{which}/{name}": each for name, each in fresh.items()}
        _compare(targets, written)
        return targets

    def restore(self, directory: Path, targets: Mapping[str, torch.Tensor], trainer: Mapping[str, Any]) -> None:
        """Hand everything back that the models do not hold already. Collective where there are engines.

        Raises:
            LoadError: It is of other objects.
        """
        try:
            for name, engine in self.engines.items():
                engine.load_files(directory / name)
            for model, values in zip(self.models, trainer["models"], strict=True):
                if values:
                    model.load_state_dict(values, strict=False)
            for (which, optimizer), plain in zip(self._named_optimizers().items(), trainer["optimizers"], strict=True):
                optimizer.restore(below(which, targets), plain)
            for name, other in self.others.items():
                other.load_state_dict(trainer["others"][name])
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            raise misfit(error) from error

    def _model_values(self) -> dict[str, dict[str, Any]]:
        return {kind("model", index): model_state(model) for index, model in enumerate(self.models)}

    def _named_optimizers(self) -> dict[str, NamedOptimizer]:
        names = parameter_names(self.models)
        optimizers = enumerate(self.optimizers)
        return {kind("optimizer", index): NamedOptimizer(optimizer, names) for index, optimizer in optimizers}


def misfit(reason: object) -> LoadError:
    """The sentence about a checkpoint of something else."""
    return LoadError(
        f"The checkpoint does not fit what is being trained: {str(reason).rstrip('.')}; give run_dir another name to "
        "start anew, or train what was trained there."
    )


def _aliases(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name -> the name before it of the same tensor: tied weights."""
    first: dict[int, str] = {}
    return {name: first[id(each)] for name, each in tensors.items() if first.setdefault(id(each), name) != name}


def _compare(targets: Mapping[str, torch.Tensor], written: Written) -> None:
    """Every tensor of the run must be in the checkpoint, with its shape, and none else."""
    shapes = {name: entry.shape for name, entry in written.tensors.items()}
    shapes |= {name: shapes[stored] for name, stored in written.aliases.items() if stored in shapes}
    missing = [name for name in targets if name not in shapes]
    unknown = [name for name in shapes if name not in targets]
    other = [name for name in targets.keys() & shapes if tuple(targets[name].shape) != shapes[name]]
    if missing:
        raise misfit(f"it has no {_few(missing)}")
    if unknown:
        raise misfit(f"there is no {_few(unknown)} here")
    if other:
        name = min(other)
        raise misfit(f"{name} has shape {[*shapes[name]]} there and {[*targets[name].shape]} here")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
