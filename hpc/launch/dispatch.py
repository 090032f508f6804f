"""Where does a sweep go: to sbatch, to this machine, or to the screen?"""

from __future__ import annotations

from hpc.config import settings_of
from hpc.errors import ConfigurationError, SubmissionError
from hpc.launch import local
from hpc.run.points import Sweep
from hpc.slurm import client
from hpc.submit.environment import scrubbed_process
from hpc.submit.plan import make_plans
from hpc.submit.send import send, show


def submit(sweep: Sweep) -> None:
    """Send every point of the sweep to where its `cluster` says.

    Raises:
        ConfigurationError: Something cannot work as asked; nothing was submitted or written.
        SystemExit: Points ran on this machine and one of them failed; with its code.
    """
    settings = settings_of(sweep.points[0].config)
    with scrubbed_process():
        if settings.launch.dry_run:
            _show(sweep, settings.cluster.scheduler)
        elif choose_scheduler(settings.cluster.scheduler, settings.hardware.gpus_per_node) == "slurm":
            send(sweep)
        else:
            sweep.write_or_continue()
            local.run(make_plans(sweep, max_array_size=len(sweep.points)))


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


def _show(sweep: Sweep, scheduler: str) -> None:
    if scheduler == "local":
        raise ConfigurationError("cluster must be slurm to print a script, but is local, which needs none.")
    show(sweep)
