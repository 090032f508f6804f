"""What does squeue say of some jobs? Asked once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hpc.errors import SlurmError
from hpc.slurm import client
from hpc.slurm.states import ENDED, WAITING, state_word

FIELDS = "%i|%T|%S|%L|%N|%r"
"""Job, state, start, time left, nodes and reason, which comes last because it may have any character in it."""
UNKNOWN_JOB = "Invalid job id"
"""What squeue says of a single job that the controller has forgotten (MinJobAge, 300 seconds after its end)."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job, or a task of an array, as the controller knows it.

    Args:
        id: `105`, or `105_1` for a task of an array.
        state: Slurm's word: PENDING, RUNNING, FAILED, ...
        reason: Slurm's code for why it waits or how it ended; "" where it has none.
        nodes: Their names, as Slurm shortens them; "" before it has any.
        start: When it started or is expected to, in seconds since the epoch; None where that is not known.
        seconds_left: Until its time limit; None where it has none, or has not started.
    """

    id: str
    state: str
    reason: str = ""
    nodes: str = ""
    start: float | None = None
    seconds_left: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has no nodes yet, or none again."""
        return self.state in WAITING

    @property
    def has_ended(self) -> bool:
        """Whether it has no nodes any more."""
        return self.state in ENDED


def queued_jobs(jobs: Iterable[str], environ: Mapping[str, str], clusters: str | None = None) -> dict[str, QueuedJob]:
    """Every one of these jobs that the controller still knows, each task of an array by itself.

    Args:
        jobs: Jobs and arrays, by their numbers.
        environ: This process's environment variables.
        clusters: Other clusters than this one, as --clusters names them.

    Raises:
        SlurmError: There is no squeue, or it gives no answer.
    """
    asked = ",".join(dict.fromkeys(jobs))
    if not asked:
        return {}
    command = [
        "squeue",
        *client.at(clusters),
        f"--jobs={asked}",
        "--states=all",
        "--array",
        "--noheader",
        f"--format={FIELDS}",
    ]
    try:
        text = client.ask(command, environ)
    except SlurmError as error:
        if UNKNOWN_JOB in error.stderr:
            return {}
        raise
    return {job.id: job for job in _parsed(text.splitlines())}


def _parsed(lines: Sequence[str]) -> Iterator[QueuedJob]:
    """A line that is no job is passed over: squeue writes a cluster's name above its jobs."""
    for line in lines:
        fields = line.split("|", 5)
        if len(fields) == 6:
            job, state, start, left, nodes, reason = (field.strip() for field in fields)
            yield QueuedJob(job, state_word(state), _known(reason), _known(nodes), _time(start), _seconds(left))


def _known(text: str) -> str:
    return "" if text in ("None", "(null)", "N/A", "n/a") else text


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    """`1-02:03:04` in seconds; None for UNLIMITED, NOT_SET, INVALID."""
    return client.minutes(text) * 60 if text[:1].isdigit() else None
