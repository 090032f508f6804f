"""How long does this rank need for its own part of a step, in which it waits for nobody?

Under DDP the steps of all ranks take equally long, because each waits in the exchange of gradients for the slowest one.
What tells them apart is the time from one exchange to the next: the optimizer, whatever the loop does, the batch, and
the forward pass. It is taken at some steps only; the others cost one look.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from time import perf_counter

KEPT, LEAST = 20, 5
"""So many steps are kept, and so few tell nothing."""


class Pace:
    """Of the run at hand."""

    def __init__(self) -> None:
        self.is_on = False
        """Whether the next two exchanges are to be told of; one part of a step is timed then."""
        self._began, self._step = 0.0, 0
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def arrive(self, step: int) -> None:
        """This rank has come to an exchange.

        Args:
            step: Steps taken; of a step with several backward passes, the time between them is not taken.
        """
        if self._began and step != self._step:
            self._seconds.append(perf_counter() - self._began)
            self.is_on = False
        self._began = 0.0

    def leave(self, step: int) -> None:
        """The exchange is over.

        Args:
            step: Steps taken.
        """
        if self.is_on:
            self._began, self._step = perf_counter(), step

    @property
    def own_seconds(self) -> float:
        """The median of the parts that were timed last; 0.0 while they are too few. For other threads, too."""
        seconds = list(self._seconds)
        return median(seconds) if len(seconds) >= LEAST else 0.0
