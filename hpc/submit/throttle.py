"""How many points of a sweep run at once when some of its arrays are in the queue already? No more than the sweep may.

Every array gets a share, as when all were sent together (Slurm's `--array=...%n`); that of an array which is in the
queue is changed there. What it runs above its new share is waited for: the new arrays depend on the end of so many of
its tasks. Where there are more arrays than points may run at once, the new ones wait for all of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.errors import SlurmError
from hpc.run.submissions import LOCAL, newest_jobs
from hpc.slurm import client
from hpc.slurm.queue import QueuedJob, queued_jobs
from hpc.submit.plan import Plan, shares


@dataclass(frozen=True)
class Array:
    """An array, or a job, of the sweep that is in the queue.

    Args:
        job: As squeue shows it.
        running: Those of its tasks that have nodes.
        waiting: How many others it has.
    """

    job: str
    running: tuple[str, ...]
    waiting: int

    @property
    def size(self) -> int:
        """Tasks that have not ended."""
        return len(self.running) + self.waiting


def arrays_in_queue(directory: Path, environ: Mapping[str, str], clusters: str | None) -> list[Array]:
    """The sweep's arrays on a cluster of which something waits or runs.

    Raises:
        SlurmError: squeue gives no answer.
        OSError: The sweep's record cannot be read.
    """
    jobs = [job.submission for job in newest_jobs(directory).values()]
    ids = {each.job for each in jobs if each.scheduler != LOCAL and each.clusters == clusters}
    queued = [job for job in queued_jobs(sorted(ids), environ, clusters).values() if not job.has_ended]
    found: dict[str, list[QueuedJob]] = {}
    for job in queued:
        found.setdefault(job.id.partition("_")[0], []).append(job)
    return [
        Array(name, tuple(job.id for job in jobs if not job.is_waiting), sum(job.is_waiting for job in jobs))
        for name, jobs in found.items()
    ]


def beside(plans: Sequence[Plan], arrays: Sequence[Array], limit: int) -> list[Plan]:
    """The plans as they are to be sent beside these arrays, whose own shares are changed.

    Args:
        plans: New ones.
        arrays: In the queue.
        limit: How many points may run at once, all taken together.
    """
    if not arrays:
        return list(plans)
    found = shares(limit, [*(array.size for array in arrays), *(plan.jobs for plan in plans)])
    if min(found) < 1 or not _set_shares(arrays, found):
        return [replace(plan, waits_for=tuple(array.job for array in arrays)) for plan in plans]
    above = [task for array, share in zip(arrays, found, strict=False) for task in array.running[share:]]
    new = found[len(arrays) :]
    return [
        replace(plan, parallel_points=share, waits_for=tuple(above)) for plan, share in zip(plans, new, strict=True)
    ]


def _set_shares(arrays: Iterable[Array], found: Sequence[int]) -> bool:
    """Whether every array that has tasks left to start has its share now."""
    try:
        for array, share in zip(arrays, found, strict=False):
            if array.waiting and array.size > 1 and _throttle(array) != share:
                client.ask(["scontrol", "update", f"JobId={array.job}", f"ArrayTaskThrottle={share}"])
    except SlurmError:
        return False
    return True


def _throttle(array: Array) -> int | None:
    """What is set now; 0 where nothing is."""
    told = re.search(r"ArrayTaskThrottle=(\d+)", client.ask(["scontrol", "show", "job", array.job, "--oneliner"]))
    return int(told[1]) if told else None
