"""The user's loop: which micro-batch is next, which one ends a step, and where the loop ends.

A loop owns the accumulation window. It opens it, counts micro-batches, and lets ranks exchange gradients in the last
one only. What happens between two steps is the boundary's (`hpc.runtime.boundary`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hpc.data.iterable import PreparedIterable
from hpc.data.loader import PreparedLoader
from hpc.errors import ConfigurationError
from hpc.runtime.boundary import Boundary
from hpc.runtime.epoch import Epoch
from hpc.runtime.left_over import tell_of_gradients
from hpc.runtime.micro_batches import Weigh, weighed
from hpc.runtime.parts import Parts
from hpc.runtime.positions import LoopPosition
from hpc.say import phase, say
from hpc.stop.activity import DATA, FIRST_STEP, activity
from hpc.tracking.usage import Work


@dataclass(frozen=True)
class LoopOptions:
    """What a loop was asked for.

    Args:
        name: Of its position; loops of one run have different ones.
        total: Optimizer steps in all, or epochs.
        work: What a sample costs.
        weigh: How much a micro-batch counts; None lets all count the same.
    """

    name: str
    total: int
    work: Work
    weigh: Weigh | None = None


class Loop:
    """The micro-batches of one loop, from wherever it was left to its end.

    Args:
        parts: The Runtime's.
        boundary: Does what is due after each step.
        loader: Where micro-batches come from.
        options: What was asked for.
    """

    def __init__(
        self, parts: Parts, boundary: Boundary, loader: PreparedLoader | PreparedIterable, options: LoopOptions
    ) -> None:
        self.parts, self.boundary, self.loader, self.options = parts, boundary, loader, options
        self.position = LoopPosition()
        self._drawn = 0
        self._has_had_backward = self._has_told = False
        self._was_left = self._epoch_was_left = False
        self.total_steps = options.total

    def steps(self) -> Iterator[Any]:
        """Micro-batches until `total` steps are done."""
        position = self._enter()
        if self._begin(self.options.total, bool(position.ended) or position.step >= self.options.total):
            size = self.parts.window.size
            batches = self.loader.stream(position.samples, self.boundary.positions.of_ranks(self.options.name))
            try:
                yield from self._train(batches, lambda: size, lambda: position.step + 1 == self.options.total)
            except GeneratorExit:
                self._was_left = True
                raise
        self._finish()

    def epochs(self, loader: PreparedLoader) -> Iterator[Epoch]:
        """Epochs until `total` of them are done."""
        position = self._enter()
        loader.check(self.boundary.positions.of_ranks(self.options.name))
        is_over = position.epoch * loader.samples_per_epoch + position.samples >= (
            self.options.total * loader.samples_per_epoch
        )
        self._begin(-(-len(loader) // self.parts.window.size) * self.options.total, bool(position.ended) or is_over)
        while position.epoch < self.options.total and not position.ended and not self.boundary.has_ended:
            epoch = Epoch.of(position.epoch, partial(self.epoch, loader), lambda: position.epoch)
            try:
                yield epoch
            except GeneratorExit:
                self._was_left = True
                raise
            epoch.check_taken()
            self.settle()
            if not self.boundary.has_ended:
                position.epoch, position.samples = position.epoch + 1, 0
        self._finish()

    def epoch(self, loader: PreparedLoader) -> Iterator[Any]:
        """The micro-batches that are left of the epoch at hand."""
        position, size, full = self.position, self.parts.window.size, loader.samples_per_epoch

        def length() -> int:
            return min(size, -(-(full - self._drawn) // loader.share.samples))

        def is_last_step() -> bool:
            return position.epoch + 1 == self.options.total and self._drawn >= full

        try:
            yield from self._train(loader.epoch_stream(position.epoch, position.samples), length, is_last_step)
        except GeneratorExit:
            self._epoch_was_left = True
            raise
        if not self.parts.window.is_last:
            raise ConfigurationError(
                f"Epoch {position.epoch} must end with a whole step, but its last micro-batches were left out of the "
                "loop with `continue`: multiply their loss by 0 instead."
            )
        position.samples = full
        if position.epoch + 1 == self.options.total:
            self.boundary.save()  # the evaluation that follows may take long

    def settle(self) -> None:
        """Where the user has left the loop, or an epoch, with `break`: save as after a whole step. Collective.

        Whether the step at hand counts is whether an optimizer has stepped in it. The next life does not come back.
        This cannot happen at the `break` itself, because Python closes the loop's iterator likewise for an exception.
        """
        if not (self._was_left or self._epoch_was_left):
            return
        window, position = self.parts.window, self.position
        if self.boundary.in_step and window.is_last and (window.has_stepped or not self.parts.state.optimizers):
            self._count_step()
            self.boundary.end_step(is_last=True)
        elif not window.is_last:
            for optimizer in self.parts.state.optimizers:
                optimizer.zero_grad()  # of a window that will not be filled
        self.boundary.in_step = False
        window.abandon()
        self.parts.strategy.set_sync(True)
        if isinstance(self.loader, PreparedLoader) and self._epoch_was_left:
            position.samples = self.loader.samples_per_epoch
        if self._was_left:
            position.ended = "it was left with break"
            self._finish()
        else:
            self.boundary.save()
        self._was_left = self._epoch_was_left = False

    def _train(
        self, batches: Iterator[Any], length: Callable[[], int], is_last_step: Callable[[], bool]
    ) -> Iterator[Any]:
        """Hand out micro-batches and end steps; `length` is asked for at the beginning of a window."""
        window, set_sync = self.parts.window, self.parts.strategy.set_sync
        samples, boundary, precision = self.loader.share.samples, self.boundary, self.parts.precision
        self._drawn = self.position.samples
        if self.options.weigh is not None:
            batches = weighed(batches, self.options.weigh, length, window, self.parts.group)
        for batch in _announced(batches):
            if window.is_last and precision.scales:
                precision.close_window()
            window.begin(length() if window.is_last else window.length)
            if window.size > 1:
                set_sync(window.is_last)
            self._drawn += samples
            boundary.in_step = True
            yield batch
            if window.size > 1 and not self._counts():
                window.leave_out()
            elif window.is_last:
                if window.has_backward and not window.has_stepped and not self._has_told:
                    self._has_told = tell_of_gradients(boundary.step + 1, self.parts.state.optimizers)
                is_last = is_last_step()
                self._count_step()
                boundary.end_step(is_last)
                if is_last or boundary.has_ended:
                    return

    def _counts(self) -> bool:
        """Whether the micro-batch counts: it had a backward pass, or no micro-batch has had one that we know of."""
        window = self.parts.window
        self._has_had_backward = self._has_had_backward or window.has_backward
        if self._has_had_backward and not window.has_backward and self.options.weigh is not None:
            raise ConfigurationError(
                "A micro-batch that is weighed must be trained on, because its weight was counted with the others', "
                "but the loop left one out with `continue`: give it the weight 0."
            )
        return window.has_backward or not self._has_had_backward

    def _count_step(self) -> None:
        self.position.step += 1
        self.position.samples = self._drawn

    @property
    def name(self) -> str:
        """See `RunningLoop`."""
        return self.options.name

    def own_position(self) -> Any:
        """See `RunningLoop`."""
        return self.loader.position()

    def _enter(self) -> LoopPosition:
        """Find the loop's position; its global batch stays what it was in its first life."""
        parts, boundary = self.parts, self.boundary
        self.position = position = boundary.enter(self)
        if self.name in boundary.entered:
            position.ended = ""  # it was left in this life, and goes on
        boundary.entered.add(self.name)
        parts.window.size = parts.settings.strategy.accumulation_steps
        if position.global_batch_size:
            self._keep_global_batch(position.global_batch_size)
        position.global_batch_size = self.loader.share.samples * parts.window.size
        return position

    def _begin(self, total_steps: int, is_done: bool) -> bool:
        """Show the loop; returns whether anything is left of it.

        Raises:
            ConfigurationError: Nothing is, because this very process has trained it already.
        """
        position, boundary = self.position, self.boundary
        self.total_steps = total_steps
        if is_done and (self.parts.directory, self.name) in trained_here():
            raise ConfigurationError(
                f"run_dir={self.parts.directory} must be new for each training of a process, but the loop {self.name} "
                "has come to its end there in this very process: give each fold a Runtime(cfg, name=...) of its own, "
                "and each further loop over runtime.steps a name."
            )
        if boundary.report is not None:
            steps = (boundary.step - position.step, position.step, total_steps)
            boundary.report.begin(steps, lambda: self._drawn, self.options.work)
        if position.ended:
            say(f"The loop {self.name} ended at its step {position.step}: {position.ended}.")
        elif position.step:
            say(f"Resumed at step {boundary.step} of {boundary.step - position.step + total_steps}.")
        return not is_done

    def _keep_global_batch(self, size: int) -> None:
        """On another number of ranks, accumulate so much more or less that a step takes as many samples as before."""
        window, share = self.parts.window, self.loader.share
        before, window.size = window.size, share.accumulation_steps(size)
        if window.size != before:
            say(
                f"The global batch stays {size} samples: {share.world_size} rank(s) × {share.batch_size} sample(s) × "
                f"{window.size} micro-batch(es)."
            )

    def _finish(self) -> None:
        """Save where the loop has ended."""
        self.position.ended = self.position.ended or self.boundary.end_early()
        self.boundary.save()
        self.boundary.leave()
        trained_here().add((self.parts.directory, self.options.name))


def _announced(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches; what takes long at the beginning says what it is."""

    def beginning() -> Iterator[Any]:
        activity().enter(DATA)
        with phase("Reading the first batch"):
            first = list(islice(batches, 1))
        activity().enter(FIRST_STEP)
        with phase("Taking the first step"):
            while first:
                yield first.pop()  # not kept: a batch may be large, and training long

    return chain(beginning(), batches)


@cache
def trained_here() -> set[tuple[Path, str]]:
    """Run directory and name of each loop that has come to its end in this process."""
    return set()
