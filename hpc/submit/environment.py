"""Which environment variables a new job must not inherit from the one it is submitted from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")
LEAKING = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "PMI_", "PMIX_", "OMPI_", "TORCHELASTIC_", "SUBMITIT_")
RANK_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what an enclosing job would leak into the new one; where Slurm is stays known."""
    return {
        name: value
        for name, value in environ.items()
        if name in KEPT or not (name.startswith(LEAKING) or name in RANK_VARIABLES)
    }


def for_child(**changes: str) -> dict[str, str]:
    """This process's environment variables with some changes, for a process that it starts."""
    return {**os.environ, **changes}


@contextmanager
def scrubbed_process() -> Iterator[None]:
    """Scrub this process's own environment for a while: submitit starts sbatch and ranks with it."""
    before = dict(os.environ)
    try:
        for name in before.keys() - scrubbed(before).keys():
            del os.environ[name]
        yield
    finally:
        os.environ.update(before)
