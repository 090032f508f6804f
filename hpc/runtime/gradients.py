"""How does a loss become a step? Windows, backward passes and clipping, as the user's loop calls them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

from hpc.checkpoint.state import TrainingState
from hpc.config import Settings
from hpc.errors import ConfigurationError
from hpc.runtime.arguments import clip_limit, clipping
from hpc.runtime.boundary import Boundary
from hpc.runtime.finite import Finite
from hpc.say import warn
from hpc.strategy import Strategy
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.world import World

_NOTHING = contextlib.nullcontext()


class Gradients:
    """The part of a Runtime that the user's loop calls for each micro-batch."""

    world: World
    settings: Settings
    training_state: TrainingState
    window: Window
    strategy: Strategy
    precision: Precision
    finite: Finite
    _boundary: Boundary | None = None
    _has_told = False

    @property
    def step(self) -> int:
        """The optimizer step that is being taken, from 1 over all lives: the `step` of its row in metrics.jsonl.

        After the last step, that one; before the first, 0.
        """
        return self._boundary.step + self._boundary.in_step if self._boundary is not None else 0

    @property
    def sync_gradients(self) -> bool:
        """Whether this micro-batch ends its accumulation window: gradients are exchanged, and the optimizer steps."""
        return self.window.is_last

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches in a window: `strategy.accumulation_steps`, or as many as keep the global batch of the run."""
        return self.window.size

    @gradient_accumulation_steps.setter
    def gradient_accumulation_steps(self, value: int) -> None:
        raise ConfigurationError(
            f"strategy.accumulation_steps must be set in the config, because it decides the global batch that a "
            f"resumed run keeps, but the loop sets {value}: write strategy.accumulation_steps={value}, or "
            "runtime.accumulate(size=...) in a loop of your own."
        )

    @property
    def mixed_precision(self) -> str:
        """`strategy.precision` in Accelerate's words: no, bf16 or fp16."""
        return {"fp32": "no"}.get(self.settings.strategy.precision, self.settings.strategy.precision)

    @property
    def optimizer_step_was_skipped(self) -> bool:
        """Whether an optimizer's last step was skipped because a scaled gradient overflowed."""
        return bool(self.window.skipped)

    def accumulate(self, *models: torch.nn.Module, size: int | None = None) -> AbstractContextManager[Any]:
        """Around one micro-batch of a loop of one's own: ranks exchange gradients in the last of each window only.

        In a loop over `steps` or `epochs` it may stand there and does nothing, because the loop sees to it.

        Args:
            models: As Accelerate has it; whichever were prepared are meant.
            size: Micro-batches in the window that begins here, where there are fewer than
                `strategy.accumulation_steps` left. The same on every rank.

        Raises:
            ConfigurationError: An argument is not a model, or a size is given inside `steps` or `epochs`.
        """
        for model in models:
            if not isinstance(model, torch.nn.Module):
                raise ConfigurationError(f"runtime.accumulate takes models, or size=..., but got {model!r}.")
        if self._boundary is not None and self._boundary.loop is not None:
            if size is not None:
                raise ConfigurationError(
                    "runtime.accumulate takes a size in a loop of one's own only, because runtime.steps knows how "
                    f"many micro-batches a window has, but got size={size}: leave it out."
                )
            return _NOTHING
        if self.window.is_last:
            self.precision.close_window()
        self.window.begin(size or self.window.size)
        self.strategy.set_sync(self.window.is_last)
        return _Closing(self.strategy)

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Gradients of a micro-batch's mean loss; a window's are the mean over its micro-batches, weighed or not.

        Args:
            loss: One element.
            kwargs: Those of `torch.Tensor.backward`.
        """
        weighed = self.window.weigh(loss)
        self.finite.note("loss", weighed)
        if (boundary := self._boundary) is None:
            self._tell_of_plain_loop()
            self.strategy.backward(weighed, **kwargs)
            return
        boundary.in_step = True
        if is_timed := boundary.pace.is_on and self.window.is_last:
            boundary.pace.arrive(boundary.step)
        self.strategy.backward(weighed, **kwargs)
        if is_timed:
            boundary.pace.leave(boundary.step)

    def clip_grad_norm_(self, *arguments: Any, **named: Any) -> torch.Tensor | None:
        """Clip the true gradients at the end of a window; returns their norm before that, or None inside a window.

        Both `clip_grad_norm_(max_norm)`, over all parameters that prepared optimizers train, and Accelerate's and
        torch's `clip_grad_norm_(parameters, max_norm)`.

        Args:
            arguments: `max_norm`, the largest L2 norm over all parameters together; before it, `parameters`.
            named: The same by name.

        Raises:
            ConfigurationError: They are neither, or ask for another norm than L2.
        """
        parameters, max_norm = clipping(arguments, named)
        if not self.window.is_last:
            return None
        norm = self.strategy.clip_grad_norm_(max_norm, parameters)
        if not self.training_state.engines:  # an engine tells the norm when it steps
            self.finite.note("grad_norm", norm)
        return norm

    def clip_grad_value_(self, parameters: Iterable[torch.Tensor] | torch.Tensor, clip_value: float) -> None:
        """Clip each element of the true gradients at the end of a window; does nothing inside one.

        Args:
            parameters: Whose gradients.
            clip_value: The largest absolute value of an element.

        Raises:
            ConfigurationError: The value is no number, or DeepSpeed clips, which knows norms only.
        """
        value = clip_limit(clip_value)
        if self.window.is_last:
            given = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
            self.strategy.clip_grad_value_(value, given)

    @contextlib.contextmanager
    def no_sync(self, model: torch.nn.Module) -> Iterator[None]:
        """In a loop of one's own: backward passes in this block leave their gradients on their ranks.

        Args:
            model: From `prepare`.

        Raises:
            ConfigurationError: The loop sees to it, there are several models, or DeepSpeed exchanges by itself.
        """
        is_deepspeed = self.settings.strategy.name == "deepspeed"
        if is_deepspeed or len(self.training_state.models) > 1 or (self._boundary and self._boundary.loop is not None):
            raise ConfigurationError(
                "runtime.no_sync is for a loop of one's own, over one model, and not for strategy=deepspeed, because "
                f"otherwise gradients of the {type(model).__name__} would be exchanged all the same or too late: set "
                "strategy.accumulation_steps, and leave it out."
            )
        self.strategy.set_sync(False)
        try:
            yield
        finally:
            self.strategy.set_sync(True)

    def autocast(self, autocast_handler: None = None) -> torch.autocast:
        """The run's precision, for computations outside a prepared model.

        Raises:
            ConfigurationError: A handler is given, as Accelerate takes it.
        """
        if autocast_handler is not None:
            raise ConfigurationError(
                "runtime.autocast takes nothing, because strategy.precision decides, but got a "
                f"{type(autocast_handler).__name__}: write torch.autocast(...) for another precision."
            )
        return self.precision.autocast()

    def _tell_of_plain_loop(self) -> None:
        if not self._has_told and self.world.rank == 0:
            self._has_told = True
            warn(
                "this loop trains outside of runtime.steps and runtime.epochs: nothing of it is saved, and a "
                "preempted job starts it anew; write `for batch in runtime.steps(loader, total=...)`, or call "
                "runtime.resume() before it and runtime.end_step() after each step."
            )


class _Closing:
    """After a micro-batch of the user's own loop, whatever runs next exchanges gradients again."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def __enter__(self) -> None:
        """The strategy knows already."""

    def __exit__(self, *_: object) -> None:
        self.strategy.set_sync(True)
