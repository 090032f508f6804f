"""Were the losses and gradient norms of this rank finite?

Those on a CPU are looked at at once, which costs a third of a microsecond. Those on another device are kept there:
zero times a number that is not finite is NaN, so one small kernel a value remembers it, and nobody waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


class Finite:
    """What is not finite on this rank, from the first step of this life.

    Args:
        device: Where losses are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._found = ""
        self._of_step = ""
        self.found_step = 0
        """The first step that was not finite; 0 while all were, or where only the device knows."""
        self.has_news = device.type != "cpu"
        """Whether `close_step` and `seems_wrong` have anything to do; on a device, only it knows."""
        self._flag = torch.zeros((), device=device)
        self._flag_of_step = torch.zeros((), device=device)
        self._copy = torch.zeros((), pin_memory=device.type == "cuda")

    def note(self, name: str, value: torch.Tensor) -> None:
        """Remember a loss or a norm of the step that is being taken.

        Args:
            name: What it is called in the sentence.
            value: One element; looked at, never waited for.
        """
        if not value.is_cpu:
            self._flag_of_step.add_(value.detach(), alpha=0)
        elif not self._of_step and not math.isfinite(number := value.item()):
            self._of_step = f"{name} must stay finite, but is {number}"
            self.has_news = True

    def close_step(self, step: int, skipped: bool) -> None:
        """A step has ended.

        Args:
            step: Which one.
            skipped: Loss scaling skipped it: an infinite gradient was dealt with, and is no divergence.
        """
        if self._of_step and not skipped and not self._found:
            self._found, self.found_step = f"{self._of_step} at step {step}", step
        self._of_step = ""
        self.has_news = bool(self._found) or not self._flag.is_cpu
        if not self._flag.is_cpu:
            if not skipped:
                self._flag.add_(self._flag_of_step, alpha=0)
            self._flag_of_step.zero_()

    def seems_wrong(self) -> bool:
        """Whether something was found; without waiting, so that a device's answer is that of an earlier call."""
        if not self._flag.is_cpu:
            known = bool(self._copy.isnan())
            self._copy.copy_(self._flag, non_blocking=True)
            return known
        return bool(self._found)

    def as_of_now(self) -> Callable[[], tuple[int, str]]:
        """What was not finite until now, to be asked later: since which step, and the beginning of a sentence, or "".

        Only the answer waits for the device; what happens in between does not change it.
        """
        step, found = self.found_step, self._found
        flag = None if found or self._flag.is_cpu else self._flag.clone()

        def answer() -> tuple[int, str]:
            if flag is not None and bool(flag.isnan()):
                return step, "loss and gradient norm must stay finite, but one of them is not"
            return step, found

        return answer
