"""Where does a sweep go: to sbatch, to this machine, or to the screen?"""

from __future__ import annotations

from collections.abc import Collection

from hpc.errors import ConfigurationError, SubmissionError
from hpc.launch import local
from hpc.run.index import record_sweep
from hpc.run.points import Point, Sweep
from hpc.slurm import client
from hpc.submit.again import part_of, send_again
from hpc.submit.environment import scrubbed_process, user_environment
from hpc.submit.plan import make_plans
from hpc.submit.send import plans_for_slurm, send, show


def submit(sweep: Sweep) -> None:
    """Send every point of the sweep to where its own `cluster` says.

    Raises:
        ConfigurationError: Something cannot work as asked; nothing was submitted or written.
        SystemExit: Points ran on this machine and one of them failed; with its code.
    """
    with scrubbed_process():
        _submit(sweep)


def _submit(sweep: Sweep) -> None:
    shown = {point.settings.launch.dry_run for point in sweep.points}
    if len(shown) > 1:
        raise ConfigurationError("launch.dry_run must be the same for all points of a sweep, but is true and false.")
    if True in shown:
        _show(sweep)
        return
    schedulers = {_scheduler(point) for point in sweep.points}
    if "slurm" in schedulers:
        send(sweep, _scheduler)
    else:
        sweep.write_or_continue()
    record_sweep(sweep.directory, user_environment())
    if "local" in schedulers:
        _run_here(sweep)


def submit_again(sweep: Sweep, names: Collection[str], is_changed: bool) -> None:
    """Send some points of a sweep that exists already to where their own `cluster` says.

    Args:
        sweep: As it is to be.
        names: Of the points. None of them may be in the queue or run.
        is_changed: Whether the sweep on disk is another; see `hpc.submit.again.changed`.

    Raises:
        ConfigurationError: Something cannot work as asked.
        SystemExit: Points ran on this machine and one of them failed; with its code.
    """
    with scrubbed_process():
        part = part_of(sweep, names)
        schedulers = {_scheduler(point) for point in part.points}
        if "slurm" in schedulers:
            send_again(sweep, names, _scheduler, is_changed)
        elif is_changed:
            sweep.write_or_continue()
        if "local" in schedulers:
            _run_here(part)


def _run_here(sweep: Sweep) -> None:
    plans = make_plans(sweep, len(sweep.points), _scheduler)
    local.run([plan for plan in plans if plan.scheduler == "local"])


def choose_scheduler(asked: str, gpus_per_node: int) -> str:
    """What `auto` means here.

    Raises:
        SubmissionError: Slurm is needed, and there is no sbatch.
    """
    if client.has_slurm():
        return "slurm" if asked == "auto" else asked
    if asked == "slurm" or (asked == "auto" and gpus_per_node):
        raise SubmissionError(
            "sbatch must be on PATH to submit, but is not: run this on a login node, "
            "or rehearse here with cluster=local runtime.device=cpu."
        )
    return "local"


def _scheduler(point: Point) -> str:
    return choose_scheduler(point.settings.cluster.scheduler, point.settings.hardware.gpus_per_node)


def _show(sweep: Sweep) -> None:
    """Print what is sent; a point that stays on this machine has nothing to print."""
    if any(point.settings.cluster.scheduler == "local" for point in sweep.points):
        raise ConfigurationError("cluster must be slurm to print a script, but is local, which needs none.")
    show(plans_for_slurm(sweep, lambda _: "slurm"))
