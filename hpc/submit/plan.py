"""What one submission asks for, as a value: printed by `hpc script`, sent by `-m`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hpc.config import Cluster, Hardware, Settings, settings_of
from hpc.run.points import Point, Sweep


@dataclass(frozen=True)
class Plan:
    """One sbatch call: points that ask for the same resources in the same place.

    Args:
        sweep_directory: Absolute; the points, the pickles and the logs lie below it.
        job_name: What squeue shows.
        points: Names of the points, in the order of the array's indices.
        hardware: How much each point gets.
        cluster: Where.
        parallel_points: How many of them may run at once.
    """

    sweep_directory: Path
    job_name: str
    points: tuple[str, ...]
    hardware: Hardware
    cluster: Cluster
    parallel_points: int

    @property
    def log_directory(self) -> Path:
        """Where submitit keeps its pickles and every task's output."""
        return self.sweep_directory / "submitit"


def make_plans(sweep: Sweep, max_array_size: int) -> list[Plan]:
    """Group the points by what they ask for, in arrays the scheduler accepts.

    Args:
        sweep: Points that were checked.
        max_array_size: Most tasks in one array; Slurm refuses a larger one.
    """
    chunks = [
        (hardware, cluster, job_name, chunk)
        for hardware, cluster, job_name, points in _by_resources(sweep.points)
        for chunk in _chunks(points, max_array_size)
    ]
    return [
        Plan(
            sweep_directory=sweep.directory,
            job_name=job_name,
            points=chunk,
            hardware=hardware,
            cluster=cluster,
            parallel_points=max(1, cluster.max_parallel_points // len(chunks)),
        )
        for hardware, cluster, job_name, chunk in chunks
    ]


def _by_resources(points: tuple[Point, ...]) -> Iterator[tuple[Hardware, Cluster, str, list[str]]]:
    """Groups in order of first appearance; equal resources share a group wherever they stand in the sweep."""
    groups: dict[str, tuple[Settings, list[str]]] = {}
    for point in points:
        settings = settings_of(point.config)
        key = repr((settings.hardware, settings.cluster, settings.experiment.name))
        groups.setdefault(key, (settings, []))[1].append(point.name)
    for settings, names in groups.values():
        yield settings.hardware, settings.cluster, settings.experiment.name, names


def _chunks(names: list[str], size: int) -> Iterator[tuple[str, ...]]:
    remaining = iter(names)
    while chunk := tuple(islice(remaining, size)):
        yield chunk
