"""Which job holds which point? `submissions.jsonl` in a sweep's directory says it, a line for each sbatch call.

Other lines say which jobs were cancelled, and which calls were begun (`hpc.run.calls`). The file is only ever added to,
so a point's newest line counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import LoadError
from hpc.files import append_text
from hpc.run.journal import read_journal
from hpc.run.json_lines import json_objects
from hpc.run.lives import lives

SUBMISSIONS_FILE = "submissions.jsonl"
LOGS = "submitit"
"""Where scripts and logs of jobs in Slurm lie, below a sweep's directory."""
SLURM, LOCAL = "slurm", "local"


@dataclass(frozen=True)
class Process:
    """A process of this machine, told from a later one with the same id by when it was started.

    Args:
        host: Where it runs.
        pid: Its process id.
        started: When, in seconds since the epoch, as psutil says it.
    """

    host: str
    pid: int
    started: float


@dataclass(frozen=True)
class Submission:
    """One call of sbatch, or one start on this machine.

    Args:
        job: What squeue calls the job or the array; on this machine, what submitit calls it.
        points: Names of the points, in the order of the array's indices.
        time: When, in seconds since the epoch.
        scheduler: slurm or local.
        clusters: Other clusters than this one, as --clusters names them.
        is_array: Whether the points are tasks of an array.
        process: What starts the ranks, where this machine does.
        after: By point: the newest attempt it had before.
        first_index: Of the array; what follows a job of an array is an array of that one task.
        per_job: So many points share a job, in their order.
    """

    job: str
    points: tuple[str, ...]
    time: float
    scheduler: str = SLURM
    clusters: str | None = None
    is_array: bool = False
    process: Process | None = None
    after: Mapping[str, str] = field(default_factory=dict)
    first_index: int = 0
    per_job: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """What holds one point.

    Args:
        id: `105_1`, or `105` where it is no array; `105_1.2` where it is the third point of that job.
        submission: The call that sent it.
        is_cancelled: Whether `hpc cancel` has ended it.
        after: The newest attempt that the point had before; "" where it had none.
        local: Its state in the queue of a machine, see `hpc.run.queue`; "" where it is in none.
    """

    id: str
    submission: Submission
    is_cancelled: bool = False
    after: str = ""
    local: str = ""

    @property
    def in_queue(self) -> str:
        """What squeue has of it: the job that it may share."""
        return self.id if self.local else self.id.partition(".")[0]

    @property
    def is_shared(self) -> bool:
        """Whether other points may have the same job."""
        return self.submission.per_job > 1


def record_submission(directory: Path, submission: Submission) -> None:
    """Add a submission to a sweep's list.

    Raises:
        OSError: It cannot be written.
    """
    append_text(directory / SUBMISSIONS_FILE, json.dumps({"event": "submitted", **asdict(submission)}) + "\n")


def record_cancelled(directory: Path, jobs: Sequence[str]) -> None:
    """Note that these jobs were cancelled, each as `Job.id` has it.

    Raises:
        OSError: It cannot be written.
    """
    append_text(directory / SUBMISSIONS_FILE, json.dumps({"event": "cancelled", "jobs": list(jobs)}) + "\n")


def newest_attempts(directory: Path, points: Iterable[str]) -> dict[str, str]:
    """By point: the newest attempt that it had; a point that had none, or whose journal cannot be read, is left out."""
    found: dict[str, str] = {}
    for point in points:
        if not (directory / point).is_dir():
            continue
        with suppress(LoadError):
            past = lives(read_journal(directory / point))
            found |= {point: past[-1].attempt} if past else {}
    return found


def newest_jobs(directory: Path) -> dict[str, Job]:
    """The job of every point that was submitted; none where nothing was recorded.

    A line that was cut short is passed over.

    Raises:
        OSError: The file is there and cannot be read.
    """
    found: dict[str, Job] = {}
    for told in _told(directory):
        # A job may have sent another one before it was cancelled: that one is newer.
        found |= {point: job for point, job in told.items() if not job.is_cancelled or found[point].id == job.id}
    return found


def all_jobs(directory: Path) -> dict[str, list[Job]]:
    """By point: every job that it was submitted in, oldest first.

    Raises:
        OSError: The file is there and cannot be read.
    """
    found: dict[str, dict[str, Job]] = {}
    for told in _told(directory):
        for point, job in told.items():
            found.setdefault(point, {})[job.id] = job
    return {point: [*jobs.values()] for point, jobs in found.items()}


def _told(directory: Path) -> Iterator[dict[str, Job]]:
    """What each line says about points, oldest first."""
    found: dict[str, tuple[str, Job]] = {}
    for line in json_objects(directory / SUBMISSIONS_FILE):
        if line.get("event") == "cancelled":
            ended = [found[job] for job in line.get("jobs", ()) if job in found]
            yield {point: Job(job.id, job.submission, True, job.after) for point, job in ended}
            continue
        if line.get("event") != "submitted":
            continue
        jobs = list(_jobs(line))
        found.update({job.id: (point, job) for point, job in jobs})
        yield dict(jobs)


def submission_of(line: Mapping[str, Any], job: str | None = None) -> Submission:
    """What a line of the record says of a submission.

    Args:
        line: Of a call, or of its answer.
        job: Its job, where the line has none.

    Raises:
        TypeError, KeyError, AttributeError: It says nothing of one.
    """
    known = {name: value for name, value in line.items() if name in Submission.__dataclass_fields__}
    process = Process(**line["process"]) if line.get("process") else None
    asked = {} if job is None else {"job": job}
    return Submission(**{**known, **asked, "points": tuple(line["points"]), "process": process})


def _jobs(line: Mapping[str, Any]) -> Iterable[tuple[str, Job]]:
    try:
        submission = submission_of(line)
        return [
            (point, Job(_id(submission, number), submission, False, submission.after.get(point, "")))
            for number, point in enumerate(submission.points)
        ]
    except (TypeError, KeyError, AttributeError):
        return []


def _id(submission: Submission, number: int) -> str:
    task, lane = divmod(number, submission.per_job)
    job = f"{submission.job}_{submission.first_index + task}" if submission.is_array else submission.job
    return job if submission.per_job == 1 else f"{job}.{lane}"
