"""Optimizer and scheduler as the user's loop sees them: silent between accumulation windows, unscaled, in step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from hpc.runtime.precision import Precision


@dataclass
class Window:
    """Where in an accumulation window the loop is; shared by everything that was prepared together.

    Args:
        size: Micro-batches per optimizer step.
        micro: Micro-batches of this window that were begun.
        skipped: Whether the last optimizer step was skipped because a scaled gradient overflowed.
    """

    size: int
    micro: int = 0
    skipped: bool = False

    @property
    def is_last(self) -> bool:
        """Whether this micro-batch ends the window: gradients are exchanged and the optimizer steps."""
        return self.micro == self.size


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
        self._unscaled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def step(self) -> None:
        """Take one step at the end of a window; skipped on every rank when a gradient overflowed."""
        if not self.window.is_last:
            return
        if not self.precision.scales:
            self.optimizer.step()
            return
        scaler, before = self.precision.scaler, self.precision.scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        self._unscaled = False
        self.window.skipped = scaler.get_scale() < before  # the scale falls exactly when a step was skipped

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients at the end of a window."""
        if self.window.is_last:
            self.optimizer.zero_grad(set_to_none=set_to_none)

    def unscale(self) -> None:
        """Make the gradients true before they are clipped; a second call in one window does nothing."""
        if self.precision.scales and not self._unscaled:
            self.precision.scaler.unscale_(self.optimizer)
            self._unscaled = True


class PreparedScheduler:
    """The user's scheduler; it advances once per optimizer step that was taken.

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
        if self.window.is_last and not self.window.skipped:
            self.scheduler.step(*args)
