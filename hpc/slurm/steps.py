"""Which steps does a job have, and how is one of them ended while the others go on?"""

from __future__ import annotations

from collections.abc import Mapping

from hpc.errors import SlurmError
from hpc.slurm import client


def running_steps(job: str, environ: Mapping[str, str], clusters: str | None = None) -> dict[str, str]:
    """By name, as srun's --job-name has it: what Slurm calls the step.

    Args:
        job: `105`, or `105_1` for a task of an array.
        environ: This process's environment variables.
        clusters: Other clusters than this one, as --clusters names them.

    Raises:
        SlurmError: squeue gives no answer.
    """
    command = ["squeue", *client.at(clusters), "--steps", f"--jobs={job}", "--noheader", "--format=%i|%j"]
    found = (line.strip().partition("|") for line in client.ask(command, environ).splitlines())
    return {name: step for step, _, name in found if name}


def end_step(step: str, signal: str, clusters: str | None = None) -> None:
    """Send a signal to all tasks of a step; one that has ended meanwhile is no error.

    Raises:
        SlurmError: scancel failed.
    """
    try:
        client.ask(["scancel", *client.at(clusters), f"--signal={signal}", step])
    except SlurmError as error:
        if "already" not in error.stderr and "Invalid job" not in error.stderr:
            raise
