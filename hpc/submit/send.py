"""Sends the plans of a sweep to sbatch, all of them or none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from hpc.errors import SlurmError, SubmissionError
from hpc.run.points import Sweep
from hpc.say import say
from hpc.slurm import client
from hpc.submit.fit import check_fits
from hpc.submit.payload import run_point
from hpc.submit.plan import Plan, make_plans
from hpc.submit.script import executor, script


def show(sweep: Sweep) -> None:
    """Print what `send` would send, byte for byte."""
    sys.stdout.write("\n".join(script(plan) for plan in make_plans(sweep, _max_array_size())))


def send(sweep: Sweep) -> None:
    """One sbatch call for each plan.

    Raises:
        SubmissionError: sbatch refused a plan, or a plan cannot start; nothing is left of the sweep.
    """
    plans = make_plans(sweep, _max_array_size())
    for plan in plans:
        check_fits(plan)
    existed = sweep.directory.exists()
    sweep.write()
    sent: list[str] = []
    try:
        for plan in plans:
            sent.append(_sbatch(plan))
    except SubmissionError:
        _undo(sweep, sent, existed)
        raise
    _announce(sweep, plans, sent)


def _sbatch(plan: Plan) -> str:
    """One array, or one job for one point; returns the id that squeue shows."""
    try:
        points = list(plan.points)
        jobs = executor(plan).map_array(run_point, [str(plan.sweep_directory)] * len(points), points)
    except (FailedJobError, FailedSubmissionError) as error:
        raise SubmissionError(_sbatch_words(error)) from error
    return str(jobs[0].job_id).partition("_")[0]


def _sbatch_words(error: Exception) -> str:
    """What sbatch itself said, on one line; submitit has passed it on as it came already."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line.removeprefix("sbatch: error: ") for line in lines if line.startswith("sbatch:")] or lines[-1:]
    return f"sbatch refused the job, and nothing was submitted: {' '.join(said).rstrip('.')}."


def _undo(sweep: Sweep, sent: list[str], existed: bool) -> None:
    """All of a sweep is submitted, or nothing of it."""
    for job_id in sent:
        client.ask(["scancel", job_id])
    shutil.rmtree(sweep.directory / "submitit", ignore_errors=True)
    for name in ("sweep.json", "points.jsonl"):
        (sweep.directory / name).unlink(missing_ok=True)
    if not existed:
        _remove_empty(sweep.directory)


def _remove_empty(directory: Path) -> None:
    """The directory, and the dated one above it if that leaves it empty."""
    for candidate in (directory, directory.parent):
        if any(candidate.iterdir()):
            return
        candidate.rmdir()


def _max_array_size() -> int:
    try:
        return client.max_array_size()
    except SlurmError:
        return client.DEFAULT_MAX_ARRAY_SIZE


def _announce(sweep: Sweep, plans: list[Plan], sent: list[str]) -> None:
    for job_id, plan in zip(sent, plans, strict=True):
        count = len(plan.points)
        shape = f"{plan.hardware.name}: {plan.hardware.nodes} node(s) × {plan.hardware.tasks_per_node or 1} task(s)"
        say(f"Submitted job {job_id}, {count} point{'s' * (count > 1)} on {shape}.")
    say(f"Directory: {sweep.directory}")
    say(f"Follow:    squeue --jobs {','.join(sent)}")
    say(f"           tail -F {sweep.directory}/submitit/{sent[0]}*_0_log.out")
