"""In which state is a point? Decided from its own files, the job that holds it, and what Slurm says of that job."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.attempt.cause import UNKNOWN, Cause
from hpc.errors import LoadError
from hpc.run.directory import RunDirectory
from hpc.run.events import Closed, Ended, Failed, Finished, SlowRank, Started, Stopped
from hpc.run.journal import read_journal
from hpc.run.lives import Life, lives
from hpc.run.processes import is_running
from hpc.run.progress import read_progress
from hpc.run.queue import RUNNING as LOCALLY_RUNNING
from hpc.run.queue import WAITING
from hpc.run.submissions import LOCAL, Job
from hpc.slurm.queue import QueuedJob
from hpc.status.ending import cause_of_end

UNSUBMITTED, PENDING, RUNNING, SAVING = "unsubmitted", "pending", "running", "saving"
FINISHED, FAILED, STOPPED, CANCELLED, LOST, DAMAGED = "finished", "failed", "stopped", "cancelled", "lost", "damaged"
STATES = (FINISHED, RUNNING, SAVING, PENDING, STOPPED, FAILED, LOST, CANCELLED, DAMAGED, UNSUBMITTED)
"""In the order in which a summary has them."""
HEARD_SECONDS = 900.0
"""A run that nothing watches over counts as running when it told something this long ago at most."""
FINISHED_FILE, CHECKPOINTS = RunDirectory(Path()).finished.name, RunDirectory(Path()).checkpoints.name
TELLING = (Started, SlowRank, Stopped, Failed, Closed, Finished, Ended)
"""The events that say how many lives there were, and how the last one ended."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a point stands.

    Args:
        state: One of STATES.
        cause: Why it failed, or what is known of how it was lost.
        past: The lives of the point, where its journal had to be read to tell.
    """

    state: str
    cause: Cause | None = None
    past: Sequence[Life] | None = None


def standing(directory: str, job: Job | None, queued: QueuedJob | None, slurm_answers: bool) -> Standing:
    """Decide the state of one point.

    Args:
        directory: The point's.
        job: What holds it; None where it was never submitted, or runs without our submission.
        queued: That job as squeue has it; None where squeue does not have it.
        slurm_answers: Whether squeue was asked and gave an answer.
    """
    if os.path.exists(f"{directory}/{FINISHED_FILE}"):  # noqa: PTH110 (ten thousand of them)
        return Standing(FINISHED)
    is_alive = _is_alive(job, queued, slurm_answers)
    if job is not None and job.local == WAITING:
        return Standing(PENDING)
    if is_alive and queued is not None and job is not None and job.is_shared:
        ended = _ended_before_others(directory, job, queued)
        if ended is not None:
            return ended
    if is_alive and queued is not None:
        return Standing(PENDING if queued.is_waiting else _under_way(directory, queued))
    if is_alive:
        return Standing(RUNNING)
    try:
        past = past_of(directory)
    except LoadError as error:
        return Standing(DAMAGED, Cause(UNKNOWN, str(error)))
    found = _from_files(directory, past, job, queued, is_alive)
    return Standing(found.state, found.cause, past)


def _ended_before_others(directory: str, job: Job, queued: QueuedJob) -> Standing | None:
    """How a point has ended whose job goes on with other points; None where it has not."""
    try:
        past = past_of(directory)
    except LoadError as error:
        return Standing(DAMAGED, Cause(UNKNOWN, str(error)))
    last = past[-1] if past and past[-1].attempt != job.after else None
    if last is not None and last.first_failure is not None:
        return Standing(FAILED, cause_of_end(directory, last, job, queued), past)
    has_left = last is None or last.left_well or queued.is_waiting
    return Standing(CANCELLED, None, past) if job.is_cancelled and has_left else None


def past_of(directory: str) -> list[Life]:
    """The lives of a point.

    Raises:
        LoadError: Its journal cannot be read.
    """
    return lives(read_journal(directory, TELLING))


def _is_alive(job: Job | None, queued: QueuedJob | None, slurm_answers: bool) -> bool | None:
    """None where nobody can say."""
    if job is None:
        return None
    if job.local:
        return job.local == LOCALLY_RUNNING
    if job.submission.scheduler == LOCAL:
        return None if job.submission.process is None else is_running(job.submission.process)
    if queued is None:
        return False if slurm_answers else None
    return not queued.has_ended


def _under_way(directory: str, queued: QueuedJob) -> str:
    """Whether a checkpoint of this life is being written: its directory has a name of its own until it is complete."""
    try:
        unfinished = [entry for entry in os.scandir(f"{directory}/{CHECKPOINTS}") if ".tmp-" in entry.name]
        is_new = any(entry.stat().st_mtime >= (queued.start or 0.0) for entry in unfinished)
    except OSError:
        is_new = False
    return SAVING if is_new else RUNNING


def _from_files(
    directory: str, past: Sequence[Life], job: Job | None, queued: QueuedJob | None, is_alive: bool | None
) -> Standing:
    last = past[-1] if past and (job is None or past[-1].attempt != job.after) else None
    if job is not None and is_alive is False and (job.is_cancelled or (queued and queued.state == "CANCELLED")):
        return Standing(CANCELLED)
    if last is None:
        if job is None:
            return Standing(UNSUBMITTED)
        return Standing(PENDING) if is_alive is None else _ended_badly(directory, None, job, queued)
    if last.first_failure is not None:
        return _ended_badly(directory, last, job, queued)
    if last.is_done:
        return Standing(FINISHED)
    if last.left_well:
        return Standing(STOPPED)
    if is_alive is None and (job is not None or _was_heard(directory, last)):
        return Standing(RUNNING)
    return _ended_badly(directory, last, job, queued)


def _ended_badly(directory: str, last: Life | None, job: Job | None, queued: QueuedJob | None) -> Standing:
    """It is in no queue any more; where it told of no end, others may have."""
    cause = cause_of_end(directory, last, job, queued)
    if cause is not None:
        return Standing(FAILED, cause)
    words = "it ended before its ranks came up" if last is None else "it ended without a word"
    return Standing(LOST, Cause(UNKNOWN, words))


def _was_heard(directory: str, last: Life) -> bool:
    progress = read_progress(directory)
    heard = max(last.events[-1].time, progress.time if progress is not None else 0.0)
    return time.time() - heard < HEARD_SECONDS
