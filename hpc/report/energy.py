"""How much energy have points taken, where their nodes tell?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from hpc.errors import SlurmError
from hpc.report.history import History
from hpc.run.submissions import LOCAL, Job, all_jobs
from hpc.slurm.energy import Consumed, consumed

JOULES_PER_KWH = 3.6e6
OLDER_SECONDS = 7 * 86400
"""What began so long before a job was sent is another one: their numbers begin anew one day."""
Records = Mapping[str, Sequence[Consumed]]


@dataclass(frozen=True)
class Energy:
    """What the nodes have told, in kWh; empty where they tell nothing.

    Args:
        total: Of all jobs; what points share a job with others for is in here only.
        points: By the place of a point in the sweep: all its jobs.
        attempts: By that place and the number of the life, from 1, as `Span.life` has it.
    """

    total: float | None = None
    points: Mapping[int, float] = field(default_factory=dict)
    attempts: Mapping[tuple[int, int], float] = field(default_factory=dict)


def energy(directory: Path, found: Sequence[History], environ: Mapping[str, str]) -> Energy:
    """Ask the accounting, which need not be there.

    Args:
        directory: The sweep's.
        found: Its points.
        environ: This process's environment variables, for sacct.

    Raises:
        OSError: The list of submissions cannot be read.
    """
    sent = all_jobs(directory)
    jobs = {each.point.index: _jobs(each, sent.get(each.point.name, [])) for each in found}
    records = _records({job.id: job for own in jobs.values() for job in own}.values(), environ)
    told = [record.joules for own in records.values() for record in own if record.joules]
    if not told:
        return Energy()
    points, attempts = dict[int, float](), dict[tuple[int, int], float]()
    for each in found:
        own = [record for job in jobs[each.point.index] if not job.is_shared for record in records.get(job.id, ())]
        points |= {each.point.index: _kwh(own)} if any(record.joules for record in own) else {}
        for number, life in enumerate((life for life in each.past if life.has_started), 1):
            held = [record for record in own if record.joules and _holds(record, life.events[0].time)]
            attempts |= {(each.point.index, number): _kwh(held)} if held else {}
    return Energy(sum(told) / JOULES_PER_KWH, points, attempts)


def _jobs(history: History, sent: Sequence[Job]) -> list[Job]:
    """A batch script of the user's own is in no list of submissions."""
    jobs = sent or [job for job in (history.point.job,) if job is not None]
    return [job for job in jobs if job.submission.scheduler != LOCAL]


def _records(jobs: Iterable[Job], environ: Mapping[str, str]) -> Records:
    """By job, or task of an array: its lives; none where the accounting gives no answer."""
    ordered = sorted(jobs, key=lambda job: job.submission.clusters or "")
    found: dict[str, list[Consumed]] = {}
    for clusters, some in groupby(ordered, key=lambda job: job.submission.clusters):
        sent = {job.in_queue: job.submission for job in some}
        try:
            told = consumed((submission.job for submission in sent.values()), environ, clusters)
        except SlurmError:
            continue
        for record in told:
            if record.job in sent and record.begin is not None and record.begin > sent[record.job].time - OLDER_SECONDS:
                found.setdefault(record.job, []).append(record)
    return found


def _holds(record: Consumed, time: float) -> bool:
    return record.begin is not None and record.begin <= time <= (record.end or float("inf"))


def _kwh(records: Sequence[Consumed]) -> float:
    return sum(record.joules or 0 for record in records) / JOULES_PER_KWH
