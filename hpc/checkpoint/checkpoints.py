"""What does this run go on from, and what happens to training while it saves?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc.checkpoint.background import BackgroundSaver, Flight, Staging
from hpc.checkpoint.load import load_latest
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.save import snapshot
from hpc.checkpoint.schedule import Schedule
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from hpc.config import CheckpointOptions
from hpc.connect.process_group import ProcessGroup
from hpc.errors import DivergedError, HpcError, LoadError, SaveError
from hpc.run.directory import RunDirectory
from hpc.run.events import Committed, Diverged, Resumed, SaveFailed
from hpc.run.grace import seconds_to_leave
from hpc.run.journal import Journal
from hpc.run.lives import last_committed_step, lives
from hpc.say import phase
from hpc.stop.requests import StopCause, StopRequests

PATIENCE_SECONDS = 1.0
"""Wait this long before warning that a save is late."""


@dataclass(frozen=True)
class Position:
    """Where training is at a step boundary.

    Args:
        step: Optimizer steps taken.
        shared: What else all ranks have in common.
        own: What this rank alone knows: where its loader is.
        metrics: The newest logged values.
        doubt: Asked while this is committed, in the thread that saves: since which step something was not finite on
            this rank, and the beginning of a sentence about it, which is "" when all was.
        alike: Name -> value of what must be the same on all ranks, besides what is trained.
    """

    step: int
    shared: dict[str, Any]
    own: Any
    metrics: dict[str, float]
    doubt: Callable[[], tuple[int, str]] = lambda: (0, "")
    alike: Mapping[str, str] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run, as its step boundaries see them.

    Args:
        journal: Told what happens; its run directory holds checkpoints/.
        options: When to save, and what stays.
        group: All ranks.
        state: What is saved and restored.
        requests: Told when a save has failed; knows how much time is left.
        say: Tells the user something, on rank 0.
    """

    def __init__(
        self,
        journal: Journal,
        options: CheckpointOptions,
        group: ProcessGroup,
        state: TrainingState,
        requests: StopRequests,
        say: Callable[[str], None],
    ) -> None:
        self.options, self.group, self.state, self.requests, self.say = options, group, state, requests, say
        self.journal = journal
        self.store = CheckpointStore(RunDirectory(journal.directory).checkpoints, _retention(options))
        self.schedule = Schedule(options, group, journal, say)
        self.saver = BackgroundSaver(self.store, group.beside(), self._landed)
        self.staging = Staging()
        self.saved_step = 0
        self._durable_seconds = 0.0
        self._has_warned = False

    def resume(self) -> dict[str, Any] | None:
        """Take over the run directory and load the newest good checkpoint; returns its trainer state. Collective.

        Raises:
            ConfigurationError: Something was prepared or registered that no checkpoint can hold.
            LoadError: Checkpoints were committed and none of them can be trusted, or they are of something else.
            SaveError: The directory cannot be written.
        """
        committed = self.group.broadcast(self._take_over() if self._is_main else None)
        if isinstance(committed, HpcError):
            raise committed
        self._check_state()
        self.state.begin()
        with phase("Reading the newest checkpoint"):
            found = load_latest(self.store, self.state, self.group, self.say)
        self._check_journal(found.checkpoint.step if found else None, committed)
        self.saved_step = found.checkpoint.step if found else 0
        self.schedule.begin(self.saved_step)
        return found.trainer if found else None

    def save(self, position: Position) -> None:
        """Begin to save this step; training may go on. Collective, but ranks do not wait for each other.

        Raises:
            SaveError: This save or the one before has failed, and `checkpoint.on_error` is stop; alike on all ranks.
        """
        began = time.monotonic()
        self._warn_of_waiting(position.step)
        self._land(self.options.on_error)
        self._start(position, began)
        self.schedule.begin(position.step)
        if not self._is_behind_training():
            self._land(self.options.on_error)

    def save_now(self, position: Position) -> int:
        """The last save of a life; returns the step that is committed: an older one if time is too short for this one.

        A save in flight is waited for, and one of this very step that has failed is tried again.

        Raises:
            SaveError: It could not be made durable; alike on all ranks.
        """
        self._land("continue")
        if position.step != self.saved_step and self._has_time():
            with phase("Writing the last checkpoint of this life"):
                self._start(position, time.monotonic())
                self._land("stop")
        return self.saved_step

    def ask_to_stop_if_failed(self) -> None:
        """At a step boundary: have all ranks stop at the same one when a save behind training has failed."""
        failure = self.saver.failure
        if failure is None:
            return
        if self.options.on_error == "stop" or not isinstance(failure, SaveError):  # no later save can go better
            self.requests.ask(StopCause.SAVE_FAILED)
        else:
            self._land("continue")

    def raise_failure(self) -> None:
        """All ranks have agreed to stop because a save has failed: say why.

        Raises:
            SaveError: What the save ended with.
        """
        self.requests.cause = StopCause.NONE
        self._land("stop")

    def close(self, failed: bool) -> None:
        """Wait for the save in flight; not where training has failed and other ranks may be gone.

        Raises:
            SaveError: It has failed, and `checkpoint.on_error` is stop.
        """
        if not failed:
            self._land(self.options.on_error)
        elif self.group.world.world_size == 1:
            self.saver.land()

    def _start(self, position: Position, began: float) -> None:
        state, rank = self.state, self.group.world.rank
        contents = snapshot(
            state, position.step, rank, position.shared, position.metrics, position.own, position.doubt, position.alike
        )
        if self._is_behind_training():
            contents = self.staging.hold(contents)
            self.saver.start(contents, began)
        else:
            self.saver.run(contents, began)

    def _is_behind_training(self) -> bool:
        """Whether training goes on while the save is written. An engine writes its live tensors, so it does not."""
        return self.options.asynchronous and not self.state.engines

    def _land(self, on_error: str) -> None:
        """Wait for the save in flight."""
        flight = self.saver.land()
        if flight is None:
            return
        if not isinstance(flight.outcome, Exception):
            self.saved_step = flight.step
        elif on_error == "continue" and isinstance(flight.outcome, SaveError):
            self.say(f"hpc: {flight.outcome} Training goes on without the checkpoint of step {flight.step}.")
        else:
            raise flight.outcome

    def _landed(self, flight: Flight) -> None:
        """In the saver's thread: note what happened."""
        self._durable_seconds = flight.durable_seconds
        if not self._is_main:
            return
        if isinstance(flight.outcome, Exception):
            kind = Diverged if isinstance(flight.outcome, DivergedError) else SaveFailed
            self.journal.write(kind(flight.step, str(flight.outcome)))
        else:
            seconds = round(flight.durable_seconds, 3), round(flight.blocked_seconds, 3)
            self.journal.write(Committed(flight.step, *seconds))
            self.requests.needs(seconds_to_leave(flight.durable_seconds))
            self.schedule.measured(flight)

    def _warn_of_waiting(self, step: int) -> None:
        if not self._has_warned and self.saver.is_running(PATIENCE_SECONDS):
            self._has_warned = True
            self.say(
                f"hpc: the save before the one of step {step} is still being written to {self.store.directory}: "
                "training waits for it; save less often (checkpoint.every_minutes), or to a faster disk."
            )

    def _has_time(self) -> bool:
        """Whether another save fits before the allocation ends. Where the end is not known, it is tried."""
        left = self.requests.seconds_left()
        return bool(self.group.broadcast(left is None or not self.saved_step or left > self._durable_seconds))

    def _take_over(self) -> HpcError | int | None:
        """On rank 0: the newest step that was committed once; an error is for all ranks to raise.

        Where no journal came along with the checkpoints, as with a downloaded run, they tell it themselves.
        """
        try:
            self.store.acquire()
            committed = last_committed_step(lives(self.journal.events()))
            return committed or next((each.step for each in self.store.list()), None)
        except HpcError as error:
            return error

    def _check_state(self) -> None:
        """Refuse at the start what the first save would refuse, on all ranks alike."""
        problem: HpcError | None = None
        try:
            self.state.contents({})
        except HpcError as error:
            problem = error
        for found in self.group.all_gather(problem):
            if found is not None:
                raise found

    def _check_journal(self, step: int | None, committed: int | None) -> None:
        """Refuse to start from step 0 where there has been a committed checkpoint."""
        if step is None and committed is not None:
            raise LoadError(
                f"{self.store.directory} must hold the checkpoint of step {committed} that was committed, "
                "but nothing there can be trusted: restore it, or choose another run_dir to start anew."
            )
        if self._is_main:
            self.journal.write(Resumed(step or 0))

    @property
    def _is_main(self) -> bool:
        return self.group.world.rank == 0


def _retention(options: CheckpointOptions) -> Retention:
    return Retention(options.keep, options.keep_every_steps or 0, options.best_metric or "", options.best_mode)
