"""What is this process doing? Those who do it say so, by setting a name: nothing is written, and nothing is waited for.

The phases that hpc itself goes through are the constants below. A user's own is whatever `runtime.phase` is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from hpc.stop.pace import Pace

BUILDING, RESTORING, DATA, FIRST_STEP = "building", "restoring", "data", "first step"
TRAINING, SAVING, EVALUATING, ENDING = "training", "saving", "evaluating", "ending"

IN_A_STEP = (FIRST_STEP, TRAINING)
"""Here a rank takes the step after those that it has taken."""


class Activity:
    """What this process does. There is one per process: see `activity`."""

    def __init__(self) -> None:
        self.phase, self.began = BUILDING, time.time()
        self.steps: Callable[[], int] = lambda: 0
        """Tells how many optimizer steps were taken; asked by the watchdog, so that a step costs nothing here."""
        self.batches = 0
        """Batches of evaluation passes; they are progress as well."""
        self.pace = Pace()
        """How long its own part of a step takes, in the run at hand."""

    @property
    def step(self) -> int | None:
        """The step that it takes, or has taken last; None before the first one."""
        taken = self.steps()
        return taken + 1 if self.phase in IN_A_STEP else taken or None

    def enter(self, phase: str) -> None:
        """From now on it does this."""
        self.phase, self.began = phase, time.time()

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """It does this inside the block, and afterwards what it did before."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            if self.phase == phase:  # it may have come to something else without an end of this one
                self.enter(before)


@cache
def activity() -> Activity:
    """This process's."""
    return Activity()
