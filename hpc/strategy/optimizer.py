"""Optimizer and scheduler as the user's loop sees them: silent between accumulation windows, unscaled, in step."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from hpc.strategy.precision import Precision
from hpc.strategy.window import Window


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
