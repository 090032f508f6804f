"""Who started this process? One table, one row for each launcher.

A row is data and one small function of `hpc.world.readings`. A new launcher is one more row, placed by how explicit it
is: what was started last, innermost, stands first. A launcher that numbers every process under it although an outer
one left its own numbers there, as mpirun does under sbatch, goes above the Slurm step with `starts_inside=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpc.world import readings
from hpc.world.readings import Environ
from hpc.world.value import World


def _nothing(_: Environ) -> str:
    return ""


@dataclass(frozen=True)
class Launcher:
    """One row.

    Args:
        name: Its word in `World.source` and in HPC_LAUNCHER.
        title: What it is called in a sentence.
        signs: Where any of these is set, the launcher claims this process; without signs it always does.
        needs: What must be set, too, once it does.
        read: From a complete environment to a World; raises WorldError when the numbers cannot be.
        facts: Where the meaning of the variables was learned, with versions.
        starts_inside: It may run inside one task of another launcher, whose numbers then describe another world.
        doubt: Why the signs do not count this time, or "".
        advice: What the user should know about this world, or "".
    """

    name: str
    title: str
    signs: tuple[str, ...]
    needs: tuple[str, ...]
    read: Callable[[Environ], World]
    facts: str
    starts_inside: bool = False
    doubt: Callable[[Environ], str] = _nothing
    advice: Callable[[Environ], str] = _nothing

    def refusal(self, environ: Environ) -> str:
        """Why this launcher did not start this process, or "" when it did."""
        if self.signs and not any(environ.get(sign) for sign in self.signs):
            return f"{enumerate_words(self.signs, 'and')} {'is' if len(self.signs) == 1 else 'are'} not set"
        return self.doubt(environ)

    def missing(self, environ: Environ) -> tuple[str, ...]:
        """The needed variables that are not set, or are empty."""
        return tuple(name for name in self.needs if not environ.get(name))


def enumerate_words(words: tuple[str, ...], last: str) -> str:
    """Join words as a sentence does: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


LAUNCHERS = (
    Launcher(
        name="torchrun",
        title="torchrun",
        signs=("TORCHELASTIC_RUN_ID",),
        needs=(
            *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
            *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
        ),
        read=readings.read_torchrun,
        facts="torch 2.6 to 2.15, elastic/agent/server/local_elastic_agent.py; --virtual-local-rank since 2.13",
        starts_inside=True,
    ),
    Launcher(
        name="env",
        title="torch's env:// variables",
        signs=("RANK", "WORLD_SIZE"),
        needs=("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        read=readings.read_env,
        facts="torch 2.6 to 2.15, distributed/rendezvous.py; LOCAL_RANK and its kin are a custom, not a rule",
        advice=readings.env_advice,
    ),
    Launcher(
        # Above the Slurm step: a rehearsal started in a one-task step, or in a shell that srun opened, is the inner
        # of the two. In a step of several tasks neither can be told from the other's leftovers, so they must agree.
        name="submitit-local",
        title="submitit's local executor",
        signs=("SUBMITIT_EXECUTOR",),
        needs=("SUBMITIT_LOCAL_JOB_ID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID"),
        read=readings.read_submitit_local,
        facts="submitit 1.5.4, local/local.py",
        doubt=readings.submitit_doubt,
    ),
    Launcher(
        name="slurm",
        title="a Slurm job step",
        signs=("SLURM_STEP_NUM_TASKS",),
        needs=(
            *(
                "SLURM_JOB_ID",
                "SLURM_STEP_ID",
                "SLURM_STEP_NUM_NODES",
                "SLURM_STEP_NODELIST",
                "SLURM_STEP_TASKS_PER_NODE",
            ),
            *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
        ),
        read=readings.read_slurm,
        facts="captured on Slurm 22.05.8 (tests/slurm_env); srun alone sets SLURM_STEP_NUM_TASKS (src/common/env.c)",
        doubt=readings.slurm_doubt,
    ),
    Launcher(
        name="none",
        title="no launcher",
        signs=(),
        needs=(),
        read=readings.read_none,
        facts="a process that nobody numbered is rank 0 of 1",
        advice=readings.srun_advice,
    ),
)
"""Every launcher we know, most explicit first; the first that claims the process is believed."""
