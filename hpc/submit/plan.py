"""What one submission asks for, as a value: printed by `hpc script`, sent by `-m`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hpc.config import Cluster, Container, Hardware, Settings
from hpc.errors import ConfigurationError
from hpc.run.code import Code
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.submissions import LOGS
from hpc.submit.pack import times


@dataclass(frozen=True)
class Retries:
    """How often a job goes on by itself.

    Args:
        max_crashes: Of launch.
        max_lives: runtime.max_lives_without_progress.
        exceptions: launch.retry_exceptions.
        exclude_nodes: launch.exclude_failed_nodes.
    """

    max_crashes: int = 3
    max_lives: int = 5
    exceptions: bool = False
    exclude_nodes: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Retries:
        """Those of one point."""
        launch, lives = settings.launch, settings.runtime.max_lives_without_progress
        return cls(launch.max_crashes, lives, launch.retry_exceptions, launch.exclude_failed_nodes)


@dataclass(frozen=True)
class Plan:
    """One sbatch call: points that ask for the same resources in the same place.

    Args:
        sweep_directory: Absolute; the points, the scripts and the logs lie below it.
        job_name: What squeue shows.
        points: Names of the points, in the order of the array's indices.
        hardware: How much each job gets.
        cluster: Where.
        parallel_points: How many of them may run at once.
        code: What they run; None where it is what lies there when they start.
        retries: How often each of them goes on by itself.
        number: Of the sweep's sbatch calls; see `hpc.run.calls`.
        waits_for: Jobs or tasks that must have ended before one of its points starts.
        per_job: So many points share a job, in their order; see `hpc.submit.pack`.
        of_point: How much each point gets, where several share a job.
        container: In what.
    """

    sweep_directory: Path
    job_name: str
    points: tuple[str, ...]
    hardware: Hardware
    cluster: Cluster
    parallel_points: int
    code: Code | None = None
    retries: Retries = Retries()
    number: int = 0
    waits_for: tuple[str, ...] = ()
    per_job: int = 1
    of_point: Hardware | None = None
    container: Container = field(default_factory=Container)

    @property
    def jobs(self) -> int:
        """How many jobs it is, each task of an array counted."""
        return -(-len(self.points) // self.per_job)

    @property
    def log_directory(self) -> Path:
        """Where submitit keeps the scripts and every task's output."""
        return self.sweep_directory / LOGS


def asked_clusters(plan: Plan, environ: Mapping[str, str]) -> str | None:
    """Other clusters than this one, as sbatch's --clusters names them; None for this one."""
    asked = plan.cluster.sbatch.get("clusters") or plan.cluster.sbatch.get("cluster")
    if not asked:
        return environ.get("SBATCH_CLUSTERS") or None
    return ",".join(map(str, asked)) if isinstance(asked, list) else str(asked)


def make_plans(sweep: Sweep, max_array_size: int, scheduler_of: Callable[[Point], str]) -> list[Plan]:
    """Group the points that go to Slurm by what they ask for, in arrays that it accepts.

    Args:
        sweep: Points that were checked.
        max_array_size: Most tasks in one array; Slurm refuses a larger one.
        scheduler_of: Whether a point goes to slurm or stays local, where it needs no plan.

    Raises:
        ConfigurationError: There are more arrays than points may run at once.
    """
    per_job = sweep.points[0].settings.launch.per_job if sweep.points else 1
    chunks = [
        (first, chunk)
        for first, names in _by_resources(sweep.points, scheduler_of)
        for chunk in _chunks(names, max_array_size * per_job)
    ]
    limit = most_at_once(first for first, _ in chunks) // per_job
    if len(chunks) > limit:
        raise _too_many(len(chunks), limit, per_job)
    at_once = shares(limit, [-(-len(chunk) // per_job) for _, chunk in chunks])
    return [
        Plan(
            sweep_directory=sweep.directory,
            job_name=first.settings.experiment.name,
            points=chunk,
            hardware=times(first.settings.hardware, min(per_job, len(chunk))),
            cluster=first.settings.cluster,
            parallel_points=share,
            code=sweep.code,
            retries=Retries.of(first.settings),
            container=first.settings.container,
            per_job=per_job,
            of_point=first.settings.hardware,
        )
        for (first, chunk), share in zip(chunks, at_once, strict=True)
    ]


def _too_many(arrays: int, limit: int, per_job: int) -> ConfigurationError:
    if per_job > 1:
        return ConfigurationError(
            f"launch.max_parallel and cluster.max_parallel_points must be at least {arrays * per_job}, because "
            f"{per_job} points share a job (launch.per_job) and the sweep is sent as {arrays} of them or more, but one "
            "is less."
        )
    return ConfigurationError(
        f"launch.max_parallel and cluster.max_parallel_points must be at least {arrays}, because the sweep is "
        f"sent as {arrays} arrays, of which each runs at least one point at a time, but one is {limit}."
    )


def most_at_once(points: Iterable[Point]) -> int:
    """How many points of a sweep may run at once."""
    asked = [(point.settings.cluster.max_parallel_points, point.settings.launch.max_parallel) for point in points]
    return min((min(site, own or site) for site, own in asked), default=1)


def shares(limit: int, sizes: list[int]) -> list[int]:
    """How many points of each array run at once: evenly, and what a small array leaves goes to the others."""
    found = [0] * len(sizes)
    for left, position in zip(range(len(sizes), 0, -1), sorted(range(len(sizes)), key=sizes.__getitem__), strict=True):
        found[position] = min(sizes[position], (limit - sum(found)) // left)
    return found


def _by_resources(points: tuple[Point, ...], scheduler_of: Callable[[Point], str]) -> Iterator[tuple[Point, list[str]]]:
    """Groups in order of first appearance; equal resources share a group wherever they stand in the sweep."""
    groups: dict[str, tuple[Point, list[str]]] = {}
    known: dict[tuple[Any, ...], str | None] = {}  # most points share their sections: asked once for all of them
    for point in points:
        settings = point.settings
        sections = (settings.hardware, settings.cluster, settings.container, settings.experiment.name)
        retries = Retries.of(settings)
        shared = (*map(id, sections), retries)
        if shared not in known:
            known[shared] = repr((*sections, retries)) if scheduler_of(point) == "slurm" else None
        key = known[shared]
        if key is not None:
            groups.setdefault(key, (point, []))[1].append(point.name)
    yield from groups.values()


def _chunks(names: list[str], size: int) -> Iterator[tuple[str, ...]]:
    remaining = iter(names)
    while chunk := tuple(islice(remaining, size)):
        yield chunk
