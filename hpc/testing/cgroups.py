"""Memory limits that hold, and jobs that leave nothing behind: Slurm's plugins for the kernel's control groups.

Version 1 of them, which a machine may have beside version 2. All slurmds of a machine share one tree, in which a node's
name and a job's number name a job, so each cluster counts its jobs from another number.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpuacct", "freezer", "memory")
CGROUP_CONF = f"""\
CgroupPlugin=cgroup/v1
CgroupMountpoint={MOUNTED}
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
"""


def reason_no_cgroups_here() -> str | None:
    """Why memory cannot be limited on this machine, as one sentence; None where it can."""
    missing = [name for name in CONTROLLERS if not os.access(MOUNTED / name / "cgroup.procs", os.W_OK)]
    if missing:
        return f"Limits of memory need {MOUNTED / missing[0]}, of cgroup version 1, which cannot be written here."
    return None


def slurm_conf_lines() -> str:
    """For slurm.conf."""
    return f"""\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
FirstJobId={1000 * secrets.randbelow(60_000) + 1}"""


def remove(nodes: tuple[str, ...]) -> None:
    """Take away what the slurmds of these nodes have left in the tree, unless another cluster's use it."""
    for controller in CONTROLLERS:
        for node in nodes:
            top = MOUNTED / controller / f"slurm_{node}"
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
