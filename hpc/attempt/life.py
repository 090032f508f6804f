"""The attempt that this process is in, from its start to its end. There is at most one at a time."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from hpc import say
from hpc.attempt.attempt import Attempt
from hpc.attempt.budgets import check_progress
from hpc.attempt.failure import leave_if_another_failed, note_failure
from hpc.attempt.hang import keep_stacks, watchdog_of
from hpc.attempt.report import gather
from hpc.attempt.software import with_software
from hpc.config import Settings
from hpc.run.directory import RunDirectory
from hpc.run.events import Closed, Started
from hpc.run.grace import grace_seconds
from hpc.slurm.deadline import allocation_end
from hpc.stop.shell import warn_of_shell_in_between
from hpc.stop.watchdog import Watchdog

_current: list[Attempt] = []
_watchdogs: list[Watchdog] = []


def current() -> Attempt | None:
    """The attempt that was started in this process and has not ended."""
    return _current[-1] if _current else None


def start(attempt: Attempt, settings: Settings) -> None:
    """Every rank gets its log; rank 0 counts the life, and watches the clock of the allocation.

    Raises:
        NoProgressError: The run has begun too often without a new checkpoint; on rank 0.
        LoadError: Its journal cannot be read; on rank 0.
        SaveError: Its journal cannot be written; on rank 0.
        ConfigurationError: This rank's log cannot be written.
    """
    world = attempt.world
    _current.append(attempt)
    attempt.requests.on_sigterm = partial(_on_sigterm, attempt)
    say.set_up(world.rank, RunDirectory(attempt.directory).log(world.rank))
    if world.rank == 0:
        with suppress(OSError):  # they are read where they are as well
            gather(RunDirectory(attempt.directory).failures, attempt.record)
        check_progress(attempt.directory, settings.runtime.max_lives_without_progress)
        started, change = with_software(Started(world.source, world.world_size, world.hosts), attempt.directory)
        attempt.journal.write(started)
        if change:
            say.warn(change)
        if "SLURM_JOB_ID" in attempt.environ:
            warn_of_shell_in_between()
        grace = grace_seconds(settings.cluster, settings.hardware, attempt.journal.events())
        attempt.requests.watch_clock(allocation_end(attempt.environ), grace, settings.cluster.grace_seconds is None)
    _watchdogs.append(watchdog_of(attempt, settings.runtime))
    _watchdogs[-1].start()


def end(attempt: Attempt, cause: BaseException | None) -> None:
    """End an attempt that a Runtime has begun by itself, and tell the journal how it ended.

    Args:
        attempt: The current one.
        cause: What ended it. SystemExit is not a failure: with 75 the journal says already that the run stopped, and
            any other code is chosen by the program itself.
    """
    try:
        if cause is not None and not isinstance(cause, SystemExit):
            note_failure(attempt, cause)
        elif attempt.world.rank == 0 and not getattr(cause, "code", None):
            attempt.journal.write(Closed())
    finally:
        forget(attempt)


def forget(attempt: Attempt) -> None:
    """Forget the attempt: this process does not take part in it any more."""
    _current.remove(attempt)
    while _watchdogs:
        _watchdogs.pop().end()
    attempt.requests.on_sigterm = lambda: None


def _on_sigterm(attempt: Attempt) -> None:
    keep_stacks(attempt)
    leave_if_another_failed(attempt)
