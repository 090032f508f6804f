"""How did the last life of a point end? By its report, by its journal where there is none, and by what Slurm says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hpc.attempt.cause import Cause
from hpc.attempt.evidence import Evidence
from hpc.attempt.first_cause import first_cause
from hpc.attempt.report import evidence, shown, with_last_lines
from hpc.attempt.statement import Statement
from hpc.files import read_tail
from hpc.run.directory import RunDirectory
from hpc.run.events import Failed, Started
from hpc.run.lives import Life
from hpc.run.queue import QueueFiles
from hpc.run.submissions import LOGS, Job
from hpc.slurm.queue import QueuedJob
from hpc.slurm.step_end import StepEnd, step_end

LOG_TAIL_BYTES = 16384
LIFE = "hpc: job "
"""The batch script begins a line so where a life of its job ends or a later one begins."""


def evidence_of_end(directory: str, last: Life | None, job: Job | None, queued: QueuedJob | None) -> Evidence:
    """What is known of the end of a point's last life.

    Args:
        directory: The point's.
        last: Its last life; None where it had none.
        job: What held it; None where that is not known.
        queued: That job as squeue has it.
    """
    end = _slurms(queued, log_tail(directory, job))
    if last is None:
        return Evidence(end=end)
    seen = evidence(RunDirectory(Path(directory)).failure(last.attempt), end)
    started = [event for event in last.events if isinstance(event, Started)]
    return replace(
        seen,
        statements=seen.statements or tuple(_told_by_journal(last)),
        world_size=seen.world_size or (started[-1].world_size if started else 0),
    )


def report(directory: str, last: Life | None, job: Job | None, queued: QueuedJob | None) -> str:
    """The report of a point's last life, as a person reads it; "" where nothing says that it failed."""
    seen = evidence_of_end(directory, last, job, queued)
    cause = first_cause(seen)
    if cause is None:
        return ""
    if job is None:
        return shown(cause, seen)
    sweep = Path(_sweep_of(directory, job))
    return shown(cause, with_last_lines(seen, lambda rank: sweep / log_path(job, rank)))


def cause_of_end(directory: str, last: Life | None, job: Job | None, queued: QueuedJob | None) -> Cause | None:
    """Why a point's last life ended; None where nothing says that it failed."""
    return first_cause(evidence_of_end(directory, last, job, queued))


def log_path(job: Job, rank: int = 0) -> Path:
    """Where what a task of a job wrote is kept, below the sweep's directory."""
    if job.local:
        return QueueFiles(Path()).log(job.id, rank)
    return Path(LOGS) / f"{job.id}_{rank}_log.out"


def log_tail(directory: str, job: Job | None) -> str:
    """The end of what a job wrote in its last life; "" where nothing is there."""
    if job is None:
        return ""
    try:
        text = read_tail(f"{_sweep_of(directory, job)}/{log_path(job)}", LOG_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
    lives = text.split(f"\n{LIFE}")
    is_told_of_end = len(lives) > 1 and "\n" not in lives[-1].rstrip()
    return lives[-2 if is_told_of_end else -1]


def _sweep_of(directory: str, job: Job) -> str:
    """A run of one point that was submitted as a whole is its own sweep."""
    return directory if job.submission.points == (".",) else directory.rpartition("/")[0]


def _slurms(queued: QueuedJob | None, log: str) -> StepEnd:
    """The state that Slurm remembers comes before its words in the log, but FAILED, which says least, after them."""
    end = step_end(log)
    state = () if queued is None else (queued.state,)
    is_vague = state == ("FAILED",)
    return replace(end, states=(*end.states, *state) if is_vague else (*state, *end.states))


def _told_by_journal(last: Life) -> Iterator[Statement]:
    for event in last.events:
        if isinstance(event, Failed):
            reason = event.reason or f"exit code {event.code}"
            yield Statement(event.rank, "", event.time, event.time, event.code, reason, (reason,))
