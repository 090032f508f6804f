"""Which checkpoints stay when a newer one has been committed?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Retention:
    """The rule for which checkpoints stay.

    Args:
        keep: How many of the newest stay.
        keep_every_steps: Those of steps that this divides, for ever; 0 for none.
        best_metric: The one with the best value of this metric; empty for none.
        best_mode: min or max.
    """

    keep: int = 2
    keep_every_steps: int = 0
    best_metric: str = ""
    best_mode: str = "min"

    def kept(self, steps: Sequence[int], metrics_of: Callable[[int], dict[str, float]]) -> set[int]:
        """Those of `steps` that stay.

        Args:
            steps: Of all complete checkpoints, newest first.
            metrics_of: What was logged when a step was saved; asked only where a best one is wanted.
        """
        kept = set(steps[: self.keep])
        if self.keep_every_steps:
            kept |= {step for step in steps if step % self.keep_every_steps == 0}
        best = self.best(steps, metrics_of) if self.best_metric else None
        return kept if best is None else kept | {best}

    def best(self, steps: Sequence[int], metrics_of: Callable[[int], dict[str, float]]) -> int | None:
        """The step with the best metric, the newest of equals; None when none was saved with it."""
        values = {step: metrics_of(step).get(self.best_metric, math.nan) for step in steps}
        sign = 1 if self.best_mode == "min" else -1
        comparable = [step for step in steps if not math.isnan(values[step])]
        return min(comparable, key=lambda step: (sign * values[step], -step), default=None)
