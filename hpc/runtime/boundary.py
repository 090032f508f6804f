"""What happens between two optimizer steps: the run resumes, shows, saves, agrees with the other ranks, and stops."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import Any

from hpc.checkpoint.checkpoints import Checkpoints, Position
from hpc.checkpoint.random_state import restore_random_state
from hpc.checkpoint.trainer import understood
from hpc.config import plain
from hpc.config.secrets import masked
from hpc.errors import ConfigurationError, DivergedError
from hpc.run.events import EndedEarly
from hpc.runtime.leaving import leave, leave_if_asked
from hpc.runtime.parts import Parts
from hpc.runtime.positions import LoopPosition, Positions, RunningLoop
from hpc.runtime.seeds import seed_rank
from hpc.say import say
from hpc.stop.activity import ENDING, EVALUATING, FIRST_STEP, RESTORING, SAVING, TRAINING, activity
from hpc.stop.agreement import Agreement, all_end_here
from hpc.stop.pace import Pace
from hpc.stop.requests import StopCause
from hpc.strategy.optimizer import check_schedulers
from hpc.tracking.profiler import ProfilerWindow
from hpc.tracking.report import Report
from hpc.tracking.trackers import TrackedRun

OF_THIS_RUN = (StopCause.EARLY, StopCause.SAVE_FAILED, StopCause.DIVERGED)
"""What ends one run, and not the next one in this process, as a signal does."""
_numbers = itertools.count()
"""Tells the Runtimes of this process apart in the store; every rank makes the same ones in the same order."""


class Boundary:
    """Counts the optimizer steps of a run, and does what is due after each.

    Args:
        parts: The Runtime's.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.requests, self.finite = parts, parts.requests, parts.finite
        self.step = 0
        self.in_step = False
        self.early_reason = ""
        self.has_ended = False
        self.positions = Positions()
        self.loop: RunningLoop | None = None
        self.entered: set[str] = set()
        self.report: Report | None = None
        self.checkpoints = Checkpoints(
            parts.journal, parts.settings.checkpoint, parts.group, parts.state, parts.requests, say
        )
        self._saver = self.checkpoints.saver
        self.agreement = Agreement(parts.requests, parts.group.side)
        self.profiler = ProfilerWindow(
            parts.settings.runtime.profile, parts.directory, parts.group.world.rank, parts.group.device
        )
        self._number = next(_numbers)
        self._has_asked = False
        self._next_step = 0
        self._looked = (0.0, 0)
        self._activity = activity()
        self._activity.steps = partial(getattr, self, "step")
        self._activity.pace = self.pace = Pace()
        self.requests.on_save = self.ask_save

    def resume(self) -> None:
        """Load the newest good checkpoint, and go on from it. Collective.

        Raises:
            LoadError: Checkpoints were committed and none of them can be trusted.
            SaveError: The directory cannot be written.
            SystemExit: With 75 or 130, where a rank was asked to stop while it built its model or loaded it.
        """
        with self._activity.during(RESTORING):
            found = self.checkpoints.resume()
        with understood():
            self._set_random_state(found["ranks"] if found else [])
            self.step = found["step"] if found else 0
            self.positions = Positions(found, self.parts.group.world.rank)
        if self.parts.is_main:
            self.report = self._open_report(found)
        self.profiler.after(self.step)
        self._looked = (time.monotonic(), self.step)
        leave_if_asked(self.parts, self.step)
        self._activity.enter(FIRST_STEP)

    def ask_end(self, reason: str) -> None:
        """End the loop at hand, once all ranks know of it."""
        self.early_reason, self._next_step = reason, 0

    def ask_save(self) -> None:
        """Save after a step, once all ranks know of it."""
        self.agreement.wants_save, self._next_step = True, 0

    def settle(self) -> None:
        """Where the user has left the loop at hand, save as after a whole step. Collective then."""
        if self.loop is not None:
            self.loop.settle()

    def enter(self, loop: RunningLoop) -> LoopPosition:
        """A loop begins, or one that was left in this life goes on.

        Raises:
            ConfigurationError: Another loop is under way.
        """
        self.settle()
        if self.loop is not None:
            raise ConfigurationError(
                f"The loop {self.loop.name} must end before another one begins, but {loop.name} was begun inside it: "
                "take both loaders' batches in one loop, or one loop after the other."
            )
        self.loop = loop
        return self.positions.of(loop.name)

    def leave(self) -> None:
        """The loop at hand has come to its end; its loader's position stays with the others."""
        if self.loop is not None:
            self.positions.keep_own(self.loop.name, self.loop.own_position())
        self.loop = None
        self._activity.enter(ENDING)
        if self.report is not None:
            self.report.end()

    def end_early(self) -> str:
        """Why the loop at hand was ended with `runtime.stop`, or ""; forgotten afterwards."""
        reason, self.early_reason = self.early_reason if self.has_ended else "", ""
        if self.requests.cause is StopCause.EARLY:
            self.requests.cause = StopCause.NONE
        self.has_ended = self._has_asked = False
        return reason

    def end_step(self, is_last: bool = False) -> None:
        """A step was taken: show it, save it, and stop if the ranks have agreed to. Collective when something is due.

        Each call here finds cold caches and costs microseconds, so a step at which nothing is due looks at four values.

        Args:
            is_last: This is the loop's last step: it ends by itself, and is not stopped.

        Raises:
            SystemExit: With 75, after a committed save, when the scheduler wants the nodes back; with 130, when a
                person does (`hpc.stop.files`).
            DivergedError: A loss, a norm or a logged value is not finite; nothing was saved from there on.
            SaveError: A checkpoint could not be made durable.
        """
        self.step += 1
        self.in_step = False
        has_news = self.requests.cause or self.finite.has_news or self._saver.failure
        if has_news or is_last or self.step >= self._next_step:
            self._look(is_last)

    def _look(self, is_last: bool) -> None:
        """Do what is due after this step, and find out when something is due next."""
        self.finite.close_step(self.step, bool(self.parts.window.skipped))
        self.profiler.after(self.step)
        if is_last or self.step % self.parts.settings.runtime.log_every_steps == 0:
            self._show(is_last)
        if self.finite.seems_wrong():
            self.requests.ask(StopCause.DIVERGED)  # the other ranks hear of it when they next agree
        if self._activity.phase == FIRST_STEP:
            self.parts.state.first_step_taken()
        if self._activity.phase in (FIRST_STEP, EVALUATING):
            self._activity.enter(TRAINING)
        if self.checkpoints.schedule.is_due(self.step):
            with self._activity.during(SAVING):
                self.checkpoints.save(self.position())
        self.checkpoints.ask_to_stop_if_failed()
        cause = self.agreement.at_boundary(self.step, self._step_seconds())
        if self.agreement.takes_save():
            self._save_now()
        self._next_step = min(
            self.profiler.next_step,
            self._next_shown(),
            self.checkpoints.schedule.next_step(self.step),
            self.agreement.next_step,
        )
        self._obey(cause, is_last)
        self.pace.is_on = self.parts.group.world.world_size > 1

    def _next_shown(self) -> int:
        every = self.parts.settings.runtime.log_every_steps
        return self.step + every - self.step % every

    def _step_seconds(self) -> float:
        """The mean since it was last asked for."""
        (began, first), now = self._looked, time.monotonic()
        self._looked = (now, self.step)
        return (now - began) / max(1, self.step - first)

    def log(self, values: dict[str, Any]) -> None:
        """Note values of the step that is being taken; between two steps, of the one before."""
        if self.report is not None:
            skipped = bool(self.parts.window.skipped)
            self.report.metrics.log(self.step + self.in_step, values, skipped, self.in_step)

    def save(self) -> int:
        """Save this step, if it is not saved yet, and wait until it is durable. Collective.

        Returns:
            The step that is committed: an older one if the allocation ends before this one could be.

        Raises:
            DivergedError: There is nothing worth saving.
            SaveError: It could not be made durable; alike on all ranks.
        """
        self.agreement.finish()
        return self._save_now()

    def _save_now(self) -> int:
        with self._activity.during(SAVING):
            return self.checkpoints.save_now(self.position())

    def close(self, failed: bool = False) -> None:
        """Leave files and the progress bar whole; a second call does nothing.

        Args:
            failed: Training ended with an exception, and other ranks may be gone.

        Raises:
            SaveError: A save was still under way, and has failed.
        """
        if not failed:  # else it is still in what it has failed in
            self._activity.enter(ENDING)
        self._activity.steps = partial(int, self.step)  # a Runtime that is over must not be kept
        self.requests.on_save = None
        self.profiler.close()
        if self.requests.cause in OF_THIS_RUN:
            self.requests.cause = StopCause.NONE
        if self.report is not None:
            self.report.close()
            self.report = None
        self.checkpoints.close(failed)

    def position(self) -> Position:
        """What to save beside the training state.

        Whether losses were finite is asked while it is committed: behind training, so that no device is waited for.
        """
        check_schedulers(self.parts.strategy.prepared_optimizers, self.parts.state.others.values())
        logged = self.report.flush() if self.report is not None else ""
        shared = {"step": self.step, "loops": self.positions.shared()}
        if self.report is not None:
            shared["metrics_bytes"] = self.report.metrics.size_bytes()
        latest = self.report.latest if self.report is not None else {}
        own = self.positions.own
        if self.loop is not None:
            own = {**own, self.loop.name: self.loop.own_position()}
        finite, step = self.finite.as_of_now(), self.step

        def doubt() -> tuple[int, str]:
            since, problem = finite()
            return since or step, problem or logged

        alike = {
            f"number of samples in the loop {name}": str(each.samples) for name, each in self.positions.loops.items()
        }
        return Position(step, shared, {"loops": own}, latest, doubt, alike)

    def _obey(self, cause: StopCause, is_last: bool) -> None:
        """Do what all ranks have agreed to."""
        if self.early_reason and not self._has_asked:
            self._has_asked = True
            where = f"end/{self._number}/{self.step}"
            world = self.parts.group.world
            self.has_ended = all_end_here(self.parts.group.store, world.rank, world.world_size, where)
            self.requests.ask(StopCause.EARLY)
        if cause is StopCause.EARLY:
            self.has_ended = True
        elif cause is not StopCause.NONE and not is_last and not self.has_ended:
            self._stop(cause)
        if self.has_ended:
            self._end_early()

    def _end_early(self) -> None:
        """The user's own early stop, agreed by all ranks."""
        self.agreement.finish()
        reasons = self.parts.group.all_gather(self.early_reason)
        self.early_reason = next(reason for reason in reasons if reason)
        if self.parts.is_main:
            self.parts.journal.write(EndedEarly(self.step, self.early_reason))
            say(f"Ended at step {self.step}: {self.early_reason}.")

    def _stop(self, cause: StopCause) -> None:
        """Save, and leave with the code that asks for another life; unless there is nothing worth saving."""
        if cause is StopCause.SAVE_FAILED:
            self.checkpoints.raise_failure()
        saved = self._save_now()
        if cause is StopCause.DIVERGED:
            raise DivergedError(f"A loss or a norm was not finite at step {self.step} or before it; nothing was saved.")
        what = "saved" if saved == self.step else f"had no time to save more than step {saved}"
        of = f" of {self._shown_total()}" if self.loop is not None else ""
        leave(self.parts, self.step, of, cause, what)

    def _shown_total(self) -> int:
        """The run's step at which the loop at hand ends."""
        if self.loop is None:
            return self.step
        return self.step - self.positions.of(self.loop.name).step + self.loop.total_steps

    def _set_random_state(self, ranks: list[dict[str, Any]]) -> None:
        """Continue this rank's random stream, or give it one: until here all ranks drew alike, to build one model."""
        rank = self.parts.group.world.rank
        if rank < len(ranks):
            restore_random_state(ranks[rank]["random"])
        else:
            seed_rank(self.parts.settings.seed, rank)

    def _open_report(self, found: dict[str, Any] | None) -> Report:
        parts = self.parts
        run = TrackedRun(
            parts.directory, parts.settings.experiment.name, masked(plain(parts.config)), self.step, parts.group.environ
        )
        size_bytes = found.get("metrics_bytes") if found else None
        options = parts.settings.runtime.must_be_finite
        return Report(run, size_bytes, (parts.group.device, parts.group.world.world_size), parts.trackers, options)

    def _show(self, is_last: bool) -> None:
        if self.report is None or not (self.report.is_due or is_last):
            return
        self.report.show(self.step)
        if self.report.metrics.not_finite is not None:
            self.requests.ask(StopCause.DIVERGED)
