"""At which step boundaries is a save due? All ranks give the same answer; the clock is rank 0's."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpc.checkpoint.background import Flight
from hpc.checkpoint.group import Group
from hpc.checkpoint.interval import MIN_SECONDS, Choice, choose
from hpc.config import CheckpointOptions
from hpc.run.events import IntervalChosen
from hpc.run.journal import Journal
from hpc.run.lives import hours_between_failures, lives

SECONDS_PER_MINUTE = 60.0
CHANGE = 0.1
"""An interval that changes by a smaller share than this gets no line in the journal."""


class Schedule:
    """When to save: every N steps, every N minutes, or as often as it pays.

    Minutes are turned into steps: rank 0 says at which step to look at its clock next, which is half-way to when the
    save is due, so that nothing is exchanged at other boundaries and a step that becomes slower is noticed.

    Args:
        options: Steps, minutes, or neither.
        group: Rank 0 and those who ask it.
        journal: Tells how often this run has failed, and is told what was chosen.
        report: Told once what was chosen, and why.
    """

    def __init__(
        self, options: CheckpointOptions, group: Group, journal: Journal, report: Callable[[str], None]
    ) -> None:
        self.options, self.group, self.journal, self.report = options, group, journal, report
        self.next_look = 1
        self._choice = Choice(MIN_SECONDS, "nothing was measured yet")
        if options.every_minutes is not None:
            self._choice = Choice(options.every_minutes * SECONDS_PER_MINUTE, "checkpoint.every_minutes")
        self._reported = False
        self._saved_at = (time.monotonic(), 0)

    def begin(self, step: int) -> None:
        """Training goes on from a step, or has just been saved at it."""
        self._saved_at = (time.monotonic(), step)
        self.next_look = step + 1

    def next_step(self, step: int) -> int:
        """The next boundary after `step` at which `is_due` must be asked."""
        every = self.options.every_steps
        return self.next_look if every is None else step + every - step % every

    def is_due(self, step: int) -> bool:
        """Whether to save at this boundary. Collective at the few steps where the clock is looked at."""
        if self.options.every_steps is not None:
            return step % self.options.every_steps == 0
        if step < self.next_look:
            return False
        is_due, self.next_look = self.group.broadcast(self._look(step) if self.group.world.rank == 0 else None)
        return bool(is_due)

    def measured(self, flight: Flight) -> None:
        """On rank 0, when a save has ended: choose the interval anew from what the save cost."""
        if self.options.every_steps is not None or self.options.every_minutes is not None:
            return
        hours, source = self.options.mean_hours_between_failures, " by checkpoint.mean_hours_between_failures"
        if hours is None:
            hours, source = hours_between_failures(lives(self.journal.events())), ""
        chosen = choose(flight.blocked_seconds, flight.durable_seconds, hours, source)
        changed = abs(chosen.seconds - self._choice.seconds) > CHANGE * self._choice.seconds
        self._choice = chosen
        if changed or not self._reported:
            self.journal.write(IntervalChosen(round(chosen.seconds, 1), chosen.reason))
        if not self._reported:
            self.report(f"Saving every {chosen.seconds:.0f} s ({chosen.reason}).")
            self._reported = True

    def _look(self, step: int) -> tuple[bool, int]:
        """On rank 0: whether it is time, and the next step to look at the clock."""
        began, first_step = self._saved_at
        elapsed = time.monotonic() - began
        remaining = self._choice.seconds - elapsed
        step_seconds = elapsed / max(1, step - first_step)
        return remaining <= step_seconds / 2, step + max(1, int(remaining / 2 / max(step_seconds, 1e-6)))
