"""Optimizer and scheduler as the user's loop sees them: silent between accumulation windows, unscaled, in step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from hpc.runtime.precision import Precision


@dataclass
class Window:
    """Where in an accumulation window the loop is; shared by everything that was prepared together.

    Args:
        size: Micro-batches per optimizer step.
    """

    size: int
    length: int = field(init=False)
    """Micro-batches in the window at hand: `size`, or fewer where the caller says so."""
    micro: int = field(init=False)
    """Micro-batches of this window that were begun."""
    share: torch.Tensor | None = field(init=False, default=None)
    """Scalar: this micro-batch's part of the weight on all ranks, times the ranks; None: all weigh the same."""
    skipped: set[Optimizer] = field(init=False, default_factory=set)
    """Optimizers whose last step was skipped because a scaled gradient overflowed."""

    def __post_init__(self) -> None:
        self.length = self.micro = self.size  # as after a whole window, so that the next micro-batch opens one

    @property
    def is_last(self) -> bool:
        """Whether this micro-batch ends the window: gradients are exchanged and the optimizer steps."""
        return self.micro == self.length

    def note_step(self, optimizer: Optimizer, taken: bool) -> None:
        """Remember whether an optimizer's last step was taken or skipped."""
        if taken:
            self.skipped.discard(optimizer)
        else:
            self.skipped.add(optimizer)

    def weigh(self, loss: torch.Tensor) -> torch.Tensor:
        """A micro-batch's part of the loss of which the window's gradient is taken.

        Args:
            loss: Mean over the micro-batch.
        """
        if self.share is not None:
            return torch.where(self.share > 0, loss * self.share, 0.0)  # a mean over nothing is NaN
        return loss / self.length if self.length > 1 else loss


class PreparedOptimizer:
    """The user's optimizer; `step` and `zero_grad` act at the end of an accumulation window only.

    Args:
        optimizer: As torch made it; every other attribute is its own.
        precision: Unscales the gradients, once, before clipping or stepping.
        window: Shared with the loop.
    """

    def __init__(self, optimizer: Optimizer, precision: Precision, window: Window) -> None:
        self.optimizer = optimizer
        self.precision = precision
        self.window = window

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def step(self) -> None:
        """Take one step at the end of a window; skipped on every rank when a gradient overflowed."""
        if not self.window.is_last:
            return
        if not self.precision.scales:
            self.optimizer.step()
        else:
            self.window.note_step(self.optimizer, taken=self.precision.step(self.optimizer))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients at the end of a window."""
        if self.window.is_last:
            self.optimizer.zero_grad(set_to_none=set_to_none)


class PreparedScheduler:
    """The user's scheduler; it advances once per step that its optimizer took.

    Args:
        scheduler: As torch made it; every other attribute is its own.
        window: Shared with the loop.
    """

    def __init__(self, scheduler: Any, window: Window) -> None:
        self.scheduler = scheduler
        self.window = window

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheduler, name)

    def step(self, *args: Any) -> None:
        """Advance at the end of a window, unless its optimizer step was skipped."""
        if self.window.is_last and self.scheduler.optimizer not in self.window.skipped:
            self.scheduler.step(*args)
