"""Where does a sweep go: to sbatch, to this machine, or to the screen?"""

from __future__ import annotations

from dataclasses import fields

from hpc.config.limits import typed
from hpc.errors import ConfigurationError, SubmissionError
from hpc.launch import local
from hpc.run.points import Point, Sweep
from hpc.slurm import client
from hpc.submit.environment import scrubbed_process
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
    _check_alike(sweep)
    if sweep.points[0].settings.launch.dry_run:
        _show(sweep)
        return
    here = [point for point in sweep.points if _scheduler(point) == "local"]
    place = local.place_for(here) if here else None
    if len(here) < len(sweep.points):
        send(sweep, _scheduler)
    if place is not None:
        with local.written(sweep) as record:
            code = local.run(record, here, place)
        if code:
            raise SystemExit(code)


def _check_alike(sweep: Sweep) -> None:
    """The launch section is about the sweep as a whole."""
    first = sweep.points[0].settings.launch
    for option in fields(first):
        name, value = option.name, getattr(first, option.name)
        others = [each for point in sweep.points if (each := getattr(point.settings.launch, name)) != value]
        if others:
            raise ConfigurationError(
                f"launch.{name} must be the same for all points of a sweep, but is {typed(value)} and "
                f"{typed(others[0])}."
            )


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
