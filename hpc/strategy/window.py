"""Where in an accumulation window is the loop?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.optim import Optimizer


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
