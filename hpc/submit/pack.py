"""How do several points share a job? Side by side, each as a step of its own, with its share of what the job has.

The job asks for the hardware of a point so many times over on its node; srun's --exact gives each step what one point
asks for, and the steps run beside each other. The script is the usual one, but for how ranks are started and for its
epilogue, which is run for each point; see slurm_templates/pack.sh.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from hpc.config import Hardware
from hpc.paths import TEMPLATE_DIR

COMMAND = "hpc_run_lanes"
"""What the script does where it starts the ranks of its point otherwise."""


def times(hardware: Hardware, count: int) -> Hardware:
    """What a job of so many points asks for."""
    if count == 1:
        return hardware
    return replace(
        hardware,
        name=f"{hardware.name} × {count}",
        tasks_per_node=(hardware.tasks_per_node or 1) * count,
        gpus_per_node=hardware.gpus_per_node * count,
        memory_gb=None if hardware.memory_gb is None else hardware.memory_gb * count,
    )


def share(hardware: Hardware, gres: str | None) -> list[str]:
    """What srun is told of one point's share.

    Args:
        hardware: Of a point.
        gres: As --gres has it, or None.
    """
    tasks = hardware.tasks_per_node or 1
    memory = [] if hardware.memory_gb is None else [f"--mem={hardware.memory_gb}G"]
    gpus = [f"--gres={gres}"] if gres else []
    return ["--exact", "--nodes=1", f"--ntasks={tasks}", f"--ntasks-per-node={tasks}", *memory, *gpus]


def setup(count: int, srun: Sequence[str], worker: str) -> list[str]:
    """Lines of the script, after everything else that is set up.

    Args:
        count: Points in a job.
        srun: Its arguments.
        worker: The command line of a rank, with hpc_sweep and hpc_point in it.
    """
    log = '--job-name="lane-$1" --output="$hpc_sweep/submitit/$hpc_job.$1_%t_log.out"'
    return [
        f"hpc_per_job={count}",
        *_template("pack.sh"),
        "hpc_start_lane() {",
        f"    srun --unbuffered {log} {shlex.join(srun)} {worker}",
        "}",
    ]


def teardown(epilogue: Sequence[str]) -> list[str]:
    """The epilogue for each point, and the end of the job."""
    return [
        "hpc_epilogue() (",
        "hpc_end=$? hpc_wishes=$1",
        "shift",
        'scontrol() { hpc_wish "$@"; }',
        '(exit "$hpc_end")',
        *epilogue,
        ")",
        "hpc_conclude_lanes",
    ]


def _template(name: str) -> list[str]:
    return (TEMPLATE_DIR / name).read_text().splitlines()
