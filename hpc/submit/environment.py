"""Which environment variables a new job must not inherit from where it is submitted.

Whatever a launcher has set describes another job than the new one. What a login shell exports for sbatch
(SBATCH_ACCOUNT) is the user's wish, as with every other way to submit; inside a job it is a leftover, and what the plan
sets itself wins, so that what is printed is what is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from hpc.environ import process_environ, without
from hpc.world.launchers import is_a_launchers

KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")
"""Where Slurm is stays known."""
NEVER = ("SBATCH_ARRAY_INX", "SBATCH_ERROR", "SBATCH_WAIT")
"""What would make another job of it than the one that is printed, or keep sbatch until the job has ended."""
GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task")
GPU_VARIABLES = ("SBATCH_GPUS", "SBATCH_GPUS_PER_NODE", "SBATCH_GPUS_PER_TASK", "SBATCH_GPUS_PER_SOCKET")
"""Several ways to ask for GPUs, of which one is meant."""
OTHER_NAMES = {
    "array": ("SBATCH_ARRAY_INX",),
    "mem": ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"),
    "requeue": ("SBATCH_NO_REQUEUE",),
    "no-requeue": ("SBATCH_REQUEUE",),
    "cpus-per-task": ("SBATCH_CPUS_PER_GPU",),
    "switches": ("SBATCH_REQ_SWITCH",),
    "time": ("SBATCH_TIMELIMIT",),
    "gres": GPU_VARIABLES,
}
"""Variables of options that are not called SBATCH_ and the option's name (sbatch(1), input environment variables)."""


def scrubbed(environ: Mapping[str, str], options: Iterable[str] = ()) -> dict[str, str]:
    """Without what an enclosing job would leak into the new one.

    Args:
        environ: The environment of the process that submits.
        options: Names of sbatch options that the script sets: their SBATCH_ variables would win over it.
    """
    inside = "SLURM_JOB_ID" in environ
    given = tuple(options)
    set_already = {*NEVER, *(name for option in given for name in variables_of(option))}
    if not set(GPU_OPTIONS).isdisjoint(given):
        set_already |= set(GPU_VARIABLES)
    return {
        name: value
        for name, value in environ.items()
        if name in KEPT or not (is_a_launchers(name) or name in set_already or (inside and name.startswith("SBATCH_")))
    }


@contextmanager
def scrubbed_process(options: Iterable[str] = ()) -> Iterator[None]:
    """Scrub this process's own environment for a while: submitit starts sbatch and ranks with it."""
    here = process_environ()
    with without(here.keys() - scrubbed(here, options).keys()):
        yield


def variables_of(option: str) -> tuple[str, ...]:
    """The environment variables that sbatch takes for an option of this name."""
    return (f"SBATCH_{option.upper().replace('-', '_')}", *OTHER_NAMES.get(option, ()))
