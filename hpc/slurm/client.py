"""Asks Slurm's commands, patiently, and parses what they print.

Text with explicit delimiters only: the `--json` schemas change from release to release.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hpc.environ import process_environ
from hpc.errors import SlurmError

TIMEOUT_SECONDS = 30
STEERING = ("SQUEUE_", "SINFO_", "SCANCEL_", "SACCT_", "SCONTROL_")
"""Variables that begin so are a person's habits: SCANCEL_INTERACTIVE asks, SQUEUE_PARTITION hides jobs."""
DEFAULT_MAX_ARRAY_SIZE = 1001


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one partition that are alike, as sinfo groups them.

    Where they are not (`is_mixed`), CPUs and memory are those of the smallest.
    """

    partition: str
    is_default: bool
    time_limit_minutes: float
    nodes: int
    cpus: int
    memory_mb: int
    gres: str
    is_mixed: bool = field(default=False, compare=False)


def has_slurm() -> bool:
    """Whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None


def ask(command: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Run a Slurm command and return what it printed.

    Args:
        command: The program and its arguments.
        environ: Its environment variables, this process's unless given; those that steer Slurm's commands are left out.

    Raises:
        SlurmError: It failed, or gave no answer within 30 seconds; a missing controller takes 9 (Slurm 22.05).
    """
    typed = shlex.join(command)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, env=_calm(environ)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(typed, str(error)) from error
    if done.returncode:
        raise SlurmError(typed, done.stderr)
    return done.stdout


def show_job(job_id: str) -> dict[str, str]:
    """The controller's record of a job; array tasks are named ARRAY_TASK."""
    return parse_record(ask(["scontrol", "show", "job", job_id, "--oneliner"]))


def parse_record(text: str) -> dict[str, str]:
    """`Key=value` words of one `scontrol show --oneliner` line; values with spaces keep their first word."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z][\w:/]*)=(\S*)", text))


def end_time(record: Mapping[str, str]) -> float | None:
    """When the allocation ends, in seconds since the epoch, on the clock of this node."""
    try:
        return datetime.fromisoformat(record["EndTime"]).timestamp()
    except (KeyError, ValueError):
        return None


def node_groups(clusters: str | None = None) -> list[NodeGroup]:
    """Every partition's nodes, here or on other clusters, grouped by what they have; hidden partitions, too."""
    text = ask(["sinfo", *at(clusters), "--noheader", "--all", "--exact", "-o", "%P|%l|%D|%c|%m|%G"])
    found = (_node_group(line.split("|")) for line in text.splitlines())
    return [group for group in found if group]


def cancel(job_id: str, clusters: str | None = None) -> None:
    """End a job, here or on another cluster.

    Raises:
        SlurmError: scancel failed.
    """
    ask(["scancel", *at(clusters), job_id])


def at(clusters: str | None) -> list[str]:
    """The option of any of Slurm's commands for other clusters than this one; nothing for this one."""
    return [f"--clusters={clusters}"] if clusters else []


def minutes(text: str) -> float:
    """Slurm's `days-hours:minutes:seconds` in minutes; `infinite` has no end."""
    if not text[:1].isdigit():
        return float("inf")
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins, seconds = ([0] * (3 - len(parts)) + parts) if not days else [*parts, 0, 0][:3]
    return int(days or 0) * 1440 + hours * 60 + mins + seconds / 60


def _calm(environ: Mapping[str, str] | None) -> dict[str, str]:
    given = process_environ() if environ is None else environ
    kept = {name: value for name, value in given.items() if not name.startswith(STEERING)}
    return {**kept, "SLURM_TIME_FORMAT": "standard"}


def _node_group(columns: list[str]) -> NodeGroup | None:
    """None for a line that is no group: sinfo writes a cluster's name above its partitions."""
    try:
        name, limit, nodes, cpus, memory, gres = columns
        int(nodes), int(cpus.rstrip("+")), int(memory.rstrip("+"))
    except ValueError:
        return None
    return NodeGroup(
        partition=name.rstrip("*"),
        is_default=name.endswith("*"),
        time_limit_minutes=minutes(limit),
        nodes=int(nodes),
        cpus=int(cpus.rstrip("+")),
        memory_mb=int(memory.rstrip("+")),
        gres=gres,
        is_mixed=cpus.endswith("+") or memory.endswith("+"),
    )
