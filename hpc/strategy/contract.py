"""What does the Runtime ask of a strategy, and what does it tell it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from hpc.checkpoint.state import TrainingState
from hpc.config import StrategyOptions
from hpc.connect.process_group import ProcessGroup
from hpc.errors import ConfigurationError
from hpc.strategy.optimizer import WrappedOptimizer
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window


@dataclass(frozen=True)
class Context:
    """What a strategy works with.

    Args:
        options: The strategy section of the config.
        group: This rank among the others.
        precision: Of all models of the run.
        window: The accumulation window that the loop is in.
        state: The strategy adds to it what a checkpoint must hold.
        deterministic: Gradients must be added in the same order in every life of the run.
    """

    options: StrategyOptions
    group: ProcessGroup
    precision: Precision
    window: Window
    state: TrainingState
    deterministic: bool


class Strategy(Protocol):
    """A way in which ranks share a step."""

    prepared_optimizers: list[WrappedOptimizer]
    """Those that `prepare` has returned."""

    def prepare(self, models: Sequence[torch.nn.Module], optimizers: Sequence[Optimizer]) -> Mapping[int, Any]:
        """Maps the `id` of each object to what the loop uses instead of it. Collective.

        Raises:
            ConfigurationError: An object cannot be prepared.
        """
        ...

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a batch size that the strategy's own settings contradict.

        Args:
            batch_size: Samples per rank and micro-batch of the loader that is trained on.

        Raises:
            ConfigurationError: They contradict it.
        """
        ...

    def set_sync(self, sync: bool) -> None:
        """Called before a micro-batch: whether its backward pass exchanges gradients between the ranks."""
        ...

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Add the gradients of `loss`. In the window's last micro-batch they become the mean over the ranks.

        Args:
            loss: One element.
            kwargs: Those of `torch.Tensor.backward`.
        """
        ...

    def clip_grad_norm_(self, max_norm: float, parameters: Iterable[torch.Tensor] | None) -> torch.Tensor:
        """Clip the unscaled gradients to an L2 norm over all ranks; returns the norm before, the same on every rank."""
        ...

    def clip_grad_value_(self, clip_value: float, parameters: Sequence[torch.Tensor]) -> None:
        """Bring every element of the true gradients between `-clip_value` and `clip_value`.

        Raises:
            ConfigurationError: The strategy has no such thing.
        """
        ...

    def unwrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The user's own module inside a prepared one; its names are those of the checkpoint."""
        ...


def check_model(model: torch.nn.Module) -> None:
    """Refuse a model that no strategy can prepare.

    Raises:
        ConfigurationError: The model is wrapped or compiled already, or has no parameters, or some have no values.
    """
    name = type(model).__name__
    if isinstance(model, (DataParallel, DistributedDataParallel)) or hasattr(model, "_orig_mod"):
        raise ConfigurationError(
            f"prepare takes the module itself, because it wraps and compiles (strategy.compile=true), but got a {name}."
        )
    parameters = dict(model.named_parameters())
    if not parameters:
        instead = "register it, so that its state is saved" if model.state_dict() else "leave it out"
        raise ConfigurationError(f"prepare takes modules with parameters, but the {name} has none: {instead}.")
    lazy = next((key for key, each in (*parameters.items(), *model.named_buffers()) if is_lazy(each)), None)
    if lazy is not None:
        raise ConfigurationError(
            f"prepare takes modules whose parameters have shapes, but {lazy} of the {name} gets its own in the first "
            "forward pass: let it see one batch before."
        )
    empty = next((key for key, parameter in parameters.items() if parameter.is_meta), None)
    if empty is not None:
        raise ConfigurationError(
            f"prepare takes modules whose parameters have values, but {empty} of the {name} is on the meta device: "
            "build the model on a real one."
        )
