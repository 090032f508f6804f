"""What one submission asks for, as a value: printed by `hpc script`, sent by `-m`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hpc.config import Cluster, Hardware, Settings
from hpc.run.code import Code
from hpc.run.points import Point, Sweep


@dataclass(frozen=True)
class Plan:
    """One sbatch call: points that ask for the same resources in the same place.

    Args:
        sweep_directory: Absolute; the points, the scripts and the logs lie below it.
        job_name: What squeue shows.
        points: Names of the points, in the order of the array's indices.
        hardware: How much each point gets.
        cluster: Where.
        scheduler: What starts them: slurm, or local for this machine.
        parallel_points: How many of them may run at once.
        code: What they run; None where it is what lies there when they start.
    """

    sweep_directory: Path
    job_name: str
    points: tuple[str, ...]
    hardware: Hardware
    cluster: Cluster
    scheduler: str
    parallel_points: int
    code: Code | None = None

    @property
    def log_directory(self) -> Path:
        """Where submitit keeps the scripts and every task's output."""
        return self.sweep_directory / "submitit"


def make_plans(sweep: Sweep, max_array_size: int, scheduler_of: Callable[[Point], str]) -> list[Plan]:
    """Group the points by what they ask for, in arrays the scheduler accepts.

    Args:
        sweep: Points that were checked.
        max_array_size: Most tasks in one array; Slurm refuses a larger one.
        scheduler_of: Whether a point goes to slurm or stays local.
    """
    chunks = [
        (first, scheduler, chunk)
        for first, scheduler, names in _by_resources(sweep.points, scheduler_of)
        for chunk in _chunks(names, max_array_size)
    ]
    return [
        Plan(
            sweep_directory=sweep.directory,
            job_name=first.settings.experiment.name,
            points=chunk,
            hardware=first.settings.hardware,
            cluster=first.settings.cluster,
            scheduler=scheduler,
            parallel_points=max(1, _most_at_once(first.settings) // len(chunks)),
            code=sweep.code,
        )
        for first, scheduler, chunk in chunks
    ]


def _most_at_once(settings: Settings) -> int:
    site = settings.cluster.max_parallel_points
    return min(site, settings.launch.max_parallel or site)


def _by_resources(
    points: tuple[Point, ...], scheduler_of: Callable[[Point], str]
) -> Iterator[tuple[Point, str, list[str]]]:
    """Groups in order of first appearance; equal resources share a group wherever they stand in the sweep."""
    groups: dict[str, tuple[Point, str, list[str]]] = {}
    for point in points:
        settings, scheduler = point.settings, scheduler_of(point)
        key = repr((scheduler, settings.hardware, settings.cluster, settings.experiment.name))
        groups.setdefault(key, (point, scheduler, []))[2].append(point.name)
    yield from groups.values()


def _chunks(names: list[str], size: int) -> Iterator[tuple[str, ...]]:
    remaining = iter(names)
    while chunk := tuple(islice(remaining, size)):
        yield chunk
