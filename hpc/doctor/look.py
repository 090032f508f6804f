"""All checks, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.doctor import controller, machine, partitions, place
from hpc.doctor.finding import HERE, PROBLEM, Finding
from hpc.errors import SlurmError
from hpc.run.events import Committed
from hpc.run.journal import read_journal
from hpc.slurm.client import has_slurm
from hpc.slurm.survey import Record, Survey, survey
from hpc.status.find import known_sweeps

SWEEPS_READ, POINTS_READ = 5, 20
"""So many of the newest are searched for a save."""


@dataclass(frozen=True)
class Answer:
    """What was found.

    Args:
        cluster: Its name; "" without Slurm.
        release: Of Slurm, as it says it.
        findings: In the order of the checks.
    """

    cluster: str
    release: str
    findings: tuple[Finding, ...]


def look(directory: Path, environ: Mapping[str, str]) -> Answer:
    """Ask the controller, where there is one, and try this machine.

    Args:
        directory: Where runs are to lie.
        environ: This process's environment variables: they say where the list of sweeps is.
    """
    here = tuple(_of_machine(directory))
    if not has_slurm():
        return Answer("", "", here)
    try:
        found = survey()
    except SlurmError as error:
        advice = "Ask again when the controller answers; jobs that run are not touched by that."
        return Answer("", "", (Finding("controller", PROBLEM, f"{error}.", advice), *here))
    slurm = of_slurm(found, last_save_seconds(directory, environ))
    return Answer(found.text("ClusterName"), found.text("SLURM_VERSION"), (*slurm, *here))


def of_slurm(found: Survey, save_seconds: float | None) -> tuple[Finding, ...]:
    """What a cluster's own words mean.

    Args:
        found: What it said.
        save_seconds: What the last save took.
    """
    of_all = itertools.chain(*(check(found) for check in controller.CHECKS))
    of_each = itertools.chain(*(_of_partition(found, each, save_seconds) for each in found.partitions))
    return (*of_all, *of_each)


def _of_partition(found: Survey, partition: Record, save_seconds: float | None) -> Iterator[Finding]:
    told = itertools.chain(*(check(found, partition, save_seconds) for check in partitions.CHECKS))
    return (replace(finding, about=f"partition {partition['PartitionName']}") for finding in told)


def last_save_seconds(directory: Path, environ: Mapping[str, str]) -> float | None:
    """How long this user's last save took, of those in the newest sweeps."""
    for sweep in known_sweeps(environ, directory)[:SWEEPS_READ]:
        saves = [event for point in _points(sweep) for event in read_journal(point, (Committed,))]
        known = [event for event in saves if isinstance(event, Committed) and event.seconds]
        if known:
            return max(known, key=lambda event: event.time).seconds
    return None


def _points(sweep: Path) -> Iterator[Path]:
    try:
        found = sorted(each.parent for each in sweep.glob("*/journal"))
    except OSError:
        return
    yield from (sweep, *found[-POINTS_READ:])


def _of_machine(directory: Path) -> Iterator[Finding]:
    of_place = itertools.chain(*(check(directory) for check in place.CHECKS))
    told = itertools.chain(of_place, *(check() for check in machine.CHECKS))
    return (replace(finding, about=HERE) for finding in told)
