"""What does a checkpoint hold? Everything an exact continuation needs.

model.safetensors      weights and buffers, under the names of the user's own module
optimizer.safetensors  what the optimizer keeps of each parameter, under the parameter's name
others.safetensors     tensors of everything else: of what was registered, of an optimizer's own keys
trainer.pt             what is no tensor: schedulers, loss scaler, position in the data, random states

The same names whatever the strategy and the number of ranks; where tensors are sharded each rank writes its own
part, into model.rank_00003.safetensors. What ranks hold each for itself, as the statistics of BatchNorm under DDP and
the state of registered objects, is rank 0's; random states and the loaders' positions are every rank's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from hpc.checkpoint.engines import SavesItself
from hpc.checkpoint.manifest import TensorEntry, Written
from hpc.checkpoint.models import NamedModel, converts, fresh, is_loaded_by_torch, renew_buffers
from hpc.checkpoint.names import below, few, kind, named_parameters
from hpc.checkpoint.optimizers import NamedOptimizer, tags
from hpc.checkpoint.packing import copied, packed, unsavable
from hpc.checkpoint.plain import Keep, on_device, tensor_tag
from hpc.checkpoint.reading import shown
from hpc.checkpoint.set_up import SetUp, freeze_again, grown_buffers, set_up_of
from hpc.checkpoint.shards import is_distributed
from hpc.checkpoint.tensors import DTYPES, is_storable
from hpc.checkpoint.trainer import check_aliases
from hpc.checkpoint.unpacking import unpacked
from hpc.checkpoint.unsaved import Unsaved
from hpc.errors import HpcError, LoadError

OTHERS = "others"
"""What tensors are filed under that belong to no parameter."""
REGISTERED = ("user.", "scheduler.")
"""Names of what a user has handed over; the loss scaler may come and go with the precision."""


class Stateful(Protocol):
    """Anything with a state dict."""

    def state_dict(self) -> dict[str, Any]:
        """What to save."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take it back."""
        ...


@dataclass(frozen=True)
class Contents:
    """What is to be saved, sharing memory with what is trained.

    Args:
        tensors: By kind and name.
        aliases: Names of tied tensors -> the name that is stored.
        trainer: What trainer.pt holds for all ranks; a copy.
        parameters: Which tensors are parameters of models.
        settings: Name -> value of what all ranks must have alike besides.
    """

    tensors: dict[str, torch.Tensor]
    aliases: dict[str, str]
    trainer: dict[str, Any]
    parameters: frozenset[str]
    settings: dict[str, str]


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
    _set_up: SetUp | None = field(default=None, init=False)
    _unsaved: Unsaved = field(default_factory=Unsaved, init=False)

    def begin(self) -> None:
        """A life begins: remember how the user's code has set everything up before its first step."""
        self._set_up = set_up_of(self._modules(), self.optimizers)

    def first_step_taken(self) -> None:
        """What the user's objects make at their first use is there now; whatever changes from here on is state."""
        self._unsaved.begin(self.models, self.optimizers)

    def contents(self, extra: Mapping[str, Any]) -> Contents:
        """Everything to save that is alike on all ranks; `extra` goes into trainer.pt.

        Raises:
            ConfigurationError: A value cannot be saved; the sentence says where it is.
            SaveError: A tensor is placed in a way that no file can hold.
        """
        self._unsaved.look(self.models, self.optimizers)
        tensors: dict[str, torch.Tensor] = {}
        keep = _keeps(tensors, f"{OTHERS}/")
        before = self._set_up or set_up_of(self._modules(), self.optimizers)
        modules = {which: each for which, each in self._modules().items() if which in before.modules}
        now = set_up_of(modules, self.optimizers)
        grown = grown_buffers(before, now, modules, converts)
        models, optimizers, parameters = [], [], set()
        for which, model in self._named_models().items():
            values, others = model.state(which, keep)
            tensors |= {f"{which}/{name}": each for name, each in values.items()}
            parameters |= {f"{which}/{name}" for name in model.parameters}
            models.append(others)
        aliases = _aliases(tensors)
        settings: dict[str, str] = {}
        for optimizer, groups in zip(self._named_optimizers(), before.groups, strict=True):
            optimizer.check()
            optimizers.append({**optimizer.state(_keeps(tensors, ""), _whole(keep)), "set up": groups})
            settings |= optimizer.settings()
        state = {"models": models, "optimizers": optimizers, "others": self._others(keep), "grown": grown}
        trainer = {**state, "frozen": {"set up": before.frozen, "now": now.frozen}, **packed(dict(extra), "")}
        aliases |= _aliases(tensors)
        stored = {name: each for name, each in tensors.items() if name not in aliases}
        return Contents(stored, aliases, trainer, frozenset(parameters), settings)

    def targets(self, written: Written, trainer: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors a checkpoint is to be read into: the models' own, and new ones for all else.

        Raises:
            LoadError: The checkpoint is of another model or other objects.
        """
        entries = {**written.tensors, **{name: written.tensors[stored] for name, stored in written.aliases.items()}}
        models, optimizers = self._named_models(), self._named_optimizers()
        check_aliases(written, {f"{which}/{name}" for which, model in models.items() for name in model.live})
        _compare_counts(models, optimizers, trainer)
        _compare_others(self.others, trainer)
        targets: dict[str, torch.Tensor] = {}
        for which, model in models.items():
            model.make_room(below(which, dict.fromkeys(trainer.get("grown", ()))))
            _compare(which, model, below(which, entries))
            fresh_ones = model.targets(below(which, entries))
            targets |= {f"{which}/{name}": each for name, each in fresh_ones.items()}
        for optimizer, plain in zip(optimizers, trainer["optimizers"], strict=True):
            targets |= optimizer.targets(plain, entries)
        like: dict[str, torch.Tensor] = {}
        self._others(_keeps(like, f"{OTHERS}/"))
        for tag in tags([trainer["models"], trainer["optimizers"], trainer["others"]]):
            name = tag["name"]
            if name.startswith(f"{OTHERS}/"):
                targets[name] = _other_target(entries[name], like.get(name), tag["device"])
        for alias in written.aliases.keys() & targets.keys():
            stored = written.aliases[alias]
            if stored not in targets:
                targets[stored] = torch.empty(entries[stored].shape, dtype=DTYPES[entries[stored].dtype])
        return targets

    def restore(self, directory: Path, targets: Mapping[str, torch.Tensor], trainer: Mapping[str, Any]) -> None:
        """Hand everything back that the models do not hold already. Collective where there are engines.

        Raises:
            LoadError: It is of other objects, or one of them cannot take it back.
        """

        def fetch(tag: dict[str, Any]) -> torch.Tensor:
            return targets[tag["name"]]

        for name, engine in self.engines.items():
            _taking(name, engine.load_files, directory / name)
        grown = dict.fromkeys(trainer.get("grown", ()))
        freeze_again(self._modules(), trainer.get("frozen"))
        for (which, model), plain in zip(self._named_models().items(), trainer["models"], strict=True):
            model.make_room(below(which, grown))
            _taking(which, model.restore, below(which, targets), plain, fetch)
        for optimizer, plain in zip(self._named_optimizers(), trainer["optimizers"], strict=True):
            _taking(optimizer.which, optimizer.restore, plain, fetch)
        for name, other in self.others.items():
            state = unpacked(trainer["others"][name], fetch)
            if is_loaded_by_torch(other):
                _taking(name, renew_buffers, other, state, below(name, grown))
            _taking(name, other.load_state_dict, state)

    def _others(self, keep: Keep) -> dict[str, Any]:
        return {name: packed(other.state_dict(), name, keep) for name, other in self.others.items()}

    def _modules(self) -> dict[str, torch.nn.Module]:
        """The models, and what was registered and is loaded as torch loads a module."""
        models = {kind("model", index): model for index, model in enumerate(self.models)}
        return {**models, **{name: each for name, each in self.others.items() if is_loaded_by_torch(each)}}

    def _named_models(self) -> dict[str, NamedModel]:
        return {kind("model", index): NamedModel(model) for index, model in enumerate(self.models)}

    def _named_optimizers(self) -> list[NamedOptimizer]:
        known = named_parameters(self.models, self.others)
        return [NamedOptimizer(kind("optimizer", index), each, known) for index, each in enumerate(self.optimizers)]


def misfit(reason: object) -> LoadError:
    """The sentence about a checkpoint of something else."""
    return LoadError(
        f"The checkpoint does not fit what is being trained: {shown(reason).rstrip('.')}; give run_dir another name to "
        "start anew, or train what was trained there."
    )


def _taking(name: str, take: Callable[..., object], *arguments: Any) -> None:
    """Let an object take its state back; whatever it has against it is said in one sentence.

    Raises:
        LoadError: It has something against it.
    """
    try:
        take(*arguments)
    except HpcError:
        raise
    except ValueError as error:
        raise misfit(error) from error
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise misfit(f"{name} cannot take its state back ({type(error).__name__}: {first})") from error


def _keeps(tensors: dict[str, torch.Tensor], prefix: str) -> Keep:
    """Collect tensors for the files of tensors; those of a kind that these do not know stay where they are."""

    def keep(place: str, tensor: torch.Tensor) -> dict[str, Any]:
        if not is_storable(tensor):
            return copied(place, tensor)
        name, number = f"{prefix}{place}", 1
        while name in tensors:
            name, number = f"{prefix}{place}.{number}", number + 1
        tensors[name] = tensor
        return tensor_tag(tensor, name=name)

    return keep


def _whole(keep: Keep) -> Keep:
    """Refuse sharded tensors where nothing would say, at the next start, how they are to be sharded."""

    def checked(place: str, tensor: torch.Tensor) -> Any:
        if is_distributed(tensor):
            raise unsavable(place, tensor)
        return keep(place, tensor)

    return checked


def _other_target(entry: TensorEntry, like: torch.Tensor | None, device: str) -> torch.Tensor:
    if like is not None:
        return fresh(entry, like)
    return torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device=on_device(device))


def _aliases(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name -> the name before it of the same tensor: tied weights."""
    first: dict[int, str] = {}
    return {name: first[id(each)] for name, each in tensors.items() if first.setdefault(id(each), name) != name}


def _compare_counts(
    models: Mapping[str, NamedModel], optimizers: list[NamedOptimizer], trainer: Mapping[str, Any]
) -> None:
    """What was handed over must be as many, under the same names."""
    counts = (("model", len(models), trainer["models"]), ("optimizer", len(optimizers), trainer["optimizers"]))
    for what, here, there in counts:
        if here != len(there):
            raise misfit(f"it holds {len(there)} {what}(s), and {here} are prepared here")


def _compare_others(others: Mapping[str, Stateful], trainer: Mapping[str, Any]) -> None:
    missing = [name for name in others if name not in trainer["others"]]
    unknown = [name for name in trainer["others"] if name not in others and name.startswith(REGISTERED)]
    if missing:
        raise misfit(f"it has no state of {few(missing)}")
    if unknown:
        raise misfit(f"it has state of {few(unknown)}, and nothing of that name was registered or prepared here")


def _compare(which: str, model: NamedModel, entries: Mapping[str, TensorEntry]) -> None:
    """Every tensor that is read in place must be in the checkpoint, with its shape; the rest the model looks at."""
    unfit = [name for name, each in model.live.items() if _shape(entries.get(name)) != tuple(each.shape)]
    unfit = [name for name in unfit if not converts(model.model, name)]
    missing = [f"{which}/{name}" for name in unfit if name not in entries]
    other = [name for name in unfit if name in entries]
    if missing:
        raise misfit(f"it has no {few(missing)}")
    if other:
        name = min(other)
        raise misfit(f"{which}/{name} has shape {[*entries[name].shape]} there and {[*model.live[name].shape]} here")


def _shape(entry: TensorEntry | None) -> tuple[int, ...] | None:
    return None if entry is None else entry.shape
