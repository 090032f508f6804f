"""What became of points that a sweeper waits for, as Hydra's JobReturns. Imported only where one waits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

if TYPE_CHECKING:  # Hydra imports this module in every app
    from hpc.run.point import Point
    from hpc.run.points import Sweep
    from hpc.status.sweep import PointStatus, SweepStatus

PRUNED = "TrialPruned"


def submit_and_wait(sweep: Sweep, must_finish: bool) -> tuple[Sweep, SweepStatus]:
    """Submit a sweep, and come back when all of its points have ended; it has its names in its directory then.

    Args:
        sweep: Points that were checked.
        must_finish: Whether a point that has failed ends this process.

    Raises:
        ConfigurationError: It cannot be submitted; nothing was.
        SystemExit: The points were stopped before their end; or one of them failed, with its code.
    """
    from hpc.environ import process_environ  # deferred, as above
    from hpc.errors import EXIT_CONTINUE, EXIT_INTERRUPTED  # deferred, as above
    from hpc.status.standing import FINISHED, past_of  # deferred, as above
    from hpc.status.waiting import wait_for  # deferred, as above
    from hydra_plugins.hpc.again import submit_or_continue  # deferred, as above

    try:
        sweep = submit_or_continue(sweep)
    except SystemExit as end:  # points of this machine
        if must_finish or end.code in (EXIT_CONTINUE, EXIT_INTERRUPTED):
            raise
    status = wait_for(sweep.directory, process_environ())
    names = {point.name for point in sweep.points}
    failed = [point for point in status.points if point.state != FINISHED and point.name in names]
    if must_finish and failed:
        past = past_of(failed[0].directory)
        first = past[-1].first_failure if past else None
        raise SystemExit(first.code if first is not None else 1)
    return sweep, status


def returns(sweep: Sweep, status: SweepStatus) -> list[JobReturn]:
    """The value of each point; one that has none raises when it is looked at, as a job of Hydra's does."""
    found = {point.name: point for point in status.points}
    return [_return(point, found[point.name]) for point in sweep.points]


def _return(point: Point, found: PointStatus) -> JobReturn:
    from pathlib import Path  # deferred, as above

    from hpc.config import as_config  # deferred, as above
    from hpc.run.result import read_result  # deferred, as above

    result = read_result(Path(found.directory))
    job = JobReturn(
        overrides=list(point.overrides),
        cfg=as_config(point.config),
        hydra_cfg=OmegaConf.create({"hydra": dict(point.hydra)}),
        working_dir=found.directory,
        task_name=point.settings.experiment.name,
        status=JobStatus.FAILED if result is None else JobStatus.COMPLETED,
    )
    job.return_value = _failure(found) if result is None else result.value
    return job


def _failure(found: PointStatus) -> Exception:
    """A trial that was pruned is no failure: sweepers know Optuna's own exception for it."""
    from hpc.errors import HpcError  # deferred, as above

    cause = found.standing.cause
    told = "" if cause is None else f": {cause.text}"
    if PRUNED in told:
        words = f"Point {found.name} was pruned, in {found.directory}{told}"
        pruned: Exception = importlib.import_module("optuna").TrialPruned(words)
        return pruned
    return HpcError(f"Point {found.name} is {found.state} and has no value, in {found.directory}{told}")
