"""What is an attempt called? Alike on all of its ranks, and unlike every other attempt in the same run directory.

    linux.42-1.0                                    step 0 of Slurm job 42, which was requeued once
    linux.42-1.alone.20261125-170501-9f3a1c         a program in that job's batch script, outside of any step
    linux.42-1.torchrun.none-0.20261125-170501-…    torchrun in that batch script, not restarted
    submitit-local.20261125-170501-9f3a1c-0         a rehearsal on this machine
    alone-0.20261125-170501-9f3a1c                  a program on a laptop

What a Slurm job is called before its step is what the batch script can build by itself: its epilogue looks for the
failure records that begin with `linux.42-1.`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping

from hpc.world import World
from hpc.world.readings.slurm import slurm_attempt, slurm_job

TOLD_APART = ("slurm", "srun-pmi", "submitit-local")
"""Launchers whose job no other world has. The others give numbers that come again: torchrun's run id is `none`, a port
is used by one program after another, and a pod is restarted under its own name."""
LONGEST_NAME = 160
"""A file name has 255 bytes; the stamp and the endings of files come after this."""


def name_of(world: World, environ: Mapping[str, str]) -> str:
    """What the launcher says, alike on all ranks; several attempts may be called so where `needs_stamp`.

    Args:
        world: This rank.
        environ: Where SLURM_JOB_ID and its like may be.
    """
    if not environ.get("SLURM_JOB_ID"):
        return _safe(f"{world.job}-{world.attempt}")
    job, restarts = slurm_job(environ, ""), slurm_attempt(environ)
    inside = world.job.removeprefix(job) if world.job.startswith(job) else f"{world.job}-{world.attempt}"
    return _safe(f"{job.removesuffix('.')}-{restarts}.{inside}")


def needs_stamp(world: World) -> bool:
    """Whether the name alone does not tell the attempt from every other one."""
    return world.source not in TOLD_APART


def new_stamp() -> str:
    """A text that no other attempt has: the time (UTC), and random digits for those of the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def _safe(name: str) -> str:
    """The name as a part of a file name, because torchrun's run id may be any text."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:LONGEST_NAME].lstrip(".") or "attempt"
