"""Where does a sweep go: to sbatch, to this machine, or to the screen?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from hpc.config.limits import typed
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, SubmissionError
from hpc.launch import local
from hpc.run.aside import set_aside
from hpc.run.calls import Turn
from hpc.run.index import record_sweep
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.slurm import client
from hpc.submit.again import part_of, send_again
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
    here, place = _here(sweep)
    is_sent = len(here) < len(sweep.points)
    if is_sent:
        send(sweep, _scheduler)
    if place is None:
        record_sweep(sweep.directory, process_environ())
        return
    with local.claimed(sweep.directory, None if is_sent else sweep.write_or_continue) as record:
        record_sweep(sweep.directory, process_environ())
        code = local.run(record, here, place)
    if code:
        raise SystemExit(code)


def submit_again(
    sweep: Sweep, names: Collection[str], is_changed: bool, turn: Turn, anew: Collection[str] = ()
) -> None:
    """Send some points of a sweep that exists already to where their own `cluster` says.

    Args:
        sweep: As it is to be.
        names: Of the points. None of them may be in the queue or run.
        is_changed: Whether the sweep on disk is another; see `hpc.submit.again.changed`.
        turn: Begun before it was looked where the points stand.
        anew: Those that begin anew.

    Raises:
        ConfigurationError: Something cannot work as asked.
        SystemExit: Points ran on this machine and one of them failed; with its code.
    """
    with scrubbed_process():
        part = part_of(sweep, names)
        _check_alike(part)
        here, place = _here(part)
        is_sent = len(here) < len(part.points)

        def write() -> None:
            if anew:
                set_aside(sweep.directory, anew)
            if is_changed:
                sweep.write_or_continue()

        if is_sent:
            send_again(sweep, names, _scheduler, write, turn)
        if place is None:
            return
        with local.claimed(sweep.directory, None if is_sent else write) as record:
            code = local.run(record, here, place)
        if code:
            raise SystemExit(code)


def _here(sweep: Sweep) -> tuple[list[Point], local.Place | None]:
    """The points that stay on this machine, and the machine, on which each of them can run."""
    points = [point for point in sweep.points if _scheduler(point) == "local"]
    return points, local.place_for(points) if points else None


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
