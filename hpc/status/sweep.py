"""Where do all points of a sweep stand? The queue is asked once, and each point's files are looked at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigurationError, LoadError, SlurmError
from hpc.run.listing import list_points
from hpc.run.queue import STOPPED, read_queue
from hpc.run.submissions import LOCAL, Job, Submission, newest_jobs
from hpc.slurm.queue import QueuedJob, queued_jobs
from hpc.status.overrides import differing_keys, values_of
from hpc.status.standing import STATES, Standing, past_of, standing

IN_ATTEMPT = re.compile(r"\.(\d+)-\d+\.")
"""The job in the name of an attempt that a Slurm job has begun; see `hpc.attempt.identity`."""


@dataclass(frozen=True)
class PointStatus:
    """One point of a sweep, as it is now.

    Args:
        index: Its place in the sweep, from 0.
        name: Its directory below the sweep's.
        overrides: By key: the value as it was typed.
        directory: Where its files lie.
        job: What holds it; None where that is not known.
        queued: That job as squeue has it.
        standing: Its state.
    """

    index: int
    name: str
    overrides: Mapping[str, str]
    directory: str
    job: Job | None
    queued: QueuedJob | None
    standing: Standing

    @property
    def state(self) -> str:
        """One of STATES."""
        return self.standing.state


@dataclass(frozen=True)
class SweepStatus:
    """All points of a sweep, as they are now.

    Args:
        directory: The sweep's.
        points: In their order.
        problem: Why Slurm could not be asked, in one line; "" where it was, or need not be.
    """

    directory: Path
    points: Sequence[PointStatus]
    problem: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many points are in each state; a state without points is left out."""
        found = Counter(point.state for point in self.points)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def differing(self) -> list[str]:
        """The keys of overrides that tell the points apart."""
        return differing_keys([point.overrides for point in self.points])


def check_slurm_answers(status: SweepStatus) -> None:
    """Before something is sent: without an answer it is not known what is in the queue already.

    Raises:
        ConfigurationError: Slurm gave none.
    """
    if status.problem:
        raise ConfigurationError(
            f"Slurm must say what is in its queue before points are submitted again, but does not ({status.problem}): "
            "try again when it does."
        )


def look(directory: Path, environ: Mapping[str, str]) -> SweepStatus:
    """Look at a sweep once.

    Args:
        directory: Where it is.
        environ: This process's environment variables, for squeue.

    Raises:
        ConfigurationError: There is no sweep there.
        LoadError: What all its points need is damaged.
    """
    named = list(list_points(directory).overrides())
    jobs = _jobs(directory, [name for name, _ in named])
    queue, problem = _queue(jobs.values(), environ)
    points = []
    for index, (name, overrides) in enumerate(named):
        job = jobs.get(name)
        queued = queue.get(job.in_queue) if job is not None else None
        where = f"{directory}/{name}" if name != "." else str(directory)
        found = standing(where, job, queued, not problem)
        points.append(PointStatus(index, name, values_of(overrides), where, job, queued, found))
    return SweepStatus(directory, points, problem)


def _jobs(directory: Path, names: Sequence[str]) -> dict[str, Job]:
    """The jobs that were recorded, or the one that a batch script of the user's own has run the only point in."""
    try:
        jobs = {**newest_jobs(directory)}
        queue = read_queue(directory)
    except OSError as error:
        raise LoadError(f"{error.filename} must be readable, but is not: {error.strerror}.") from error
    for point in queue.points.values() if queue is not None else ():
        is_known = point.attempt or point.state != STOPPED
        if is_known and (point.name not in jobs or jobs[point.name].submission.time <= point.time):
            jobs[point.name] = point.held
    if not jobs and len(names) == 1:
        name = names[0]
        past = past_of(str(directory / name))
        found = IN_ATTEMPT.search(past[-1].attempt) if past else None
        if found:
            return {name: Job(found[1], Submission(found[1], (name,), past[-1].events[0].time))}
    return jobs


def _queue(jobs: Iterable[Job], environ: Mapping[str, str]) -> tuple[dict[str, QueuedJob], str]:
    """What squeue says of the jobs, in one call for each cluster, and why it could not be asked."""
    asked: dict[str | None, dict[str, None]] = {}
    for job in jobs:
        if job.submission.scheduler != LOCAL:
            asked.setdefault(job.submission.clusters, {})[job.submission.job] = None
    found: dict[str, QueuedJob] = {}
    for clusters, ids in asked.items():
        try:
            found |= queued_jobs(ids, environ, clusters)
        except SlurmError as error:
            return found, " ".join(error.stderr.split()) or str(error)
    return found, ""
