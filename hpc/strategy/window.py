"""How far has the loop come in its accumulation window?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.optim import Optimizer


@dataclass
class Window:
    """The micro-batches of one optimizer step; shared by everything that was prepared together.

    Whoever runs the loop opens windows and counts: `runtime.steps`, or `runtime.accumulate` in a loop of one's own.

    Args:
        size: Micro-batches per optimizer step.
    """

    size: int
    length: int = field(init=False, default=1)
    """Micro-batches in the window at hand: `size`, or fewer at the end of an epoch."""
    micro: int = field(init=False, default=1)
    """Micro-batches of this window that have begun. It equals `length` while no window is open."""
    is_last: bool = field(init=False, default=True)
    """Whether this micro-batch ends the window: gradients are exchanged and the optimizer steps."""
    share: torch.Tensor | None = field(init=False, default=None)
    """Scalar: this micro-batch's share of the weight on all ranks, times the number of ranks. None: all count alike."""
    has_backward: bool = field(init=False, default=False)
    """Whether the micro-batch at hand had a backward pass."""
    has_stepped: bool = field(init=False, default=False)
    """Whether an optimizer was told to step in this window."""
    skipped: set[Optimizer] = field(init=False, default_factory=set)
    """Optimizers whose last step was skipped because a scaled gradient overflowed."""

    def begin(self, length: int) -> None:
        """Begin a micro-batch; the first one after a window's end opens a window of `length`."""
        if self.is_last:
            self.micro, self.length, self.has_stepped = 0, length, False
        self.micro += 1
        self.is_last = self.micro >= self.length
        self.has_backward = False

    def leave_out(self) -> None:
        """Do not count the micro-batch at hand; the next one takes its place."""
        self.micro -= 1
        self.is_last = False

    def abandon(self) -> None:
        """Close a window in which no more micro-batches will come."""
        self.micro, self.is_last, self.has_stepped, self.share = self.length, True, False, None

    def note_step(self, optimizer: Optimizer, taken: bool) -> None:
        """Remember whether an optimizer's last step was taken or skipped."""
        self.has_stepped = True
        if taken:
            self.skipped.discard(optimizer)
        else:
            self.skipped.add(optimizer)

    def weigh(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to call backward on, so that the window's gradient is that of the mean over its micro-batches.

        Args:
            loss: The mean over this micro-batch.
        """
        self.has_backward = True
        if self.share is not None:
            return torch.where(self.share > 0, loss * self.share, 0.0)  # the mean over no tokens is NaN
        return loss / self.length if self.length > 1 else loss
