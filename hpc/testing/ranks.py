"""Which process is a rank of a job?"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.testing.daemons import wait_until

if TYPE_CHECKING:
    from hpc.testing.cluster import SlurmCluster

APPEAR_SECONDS = 120
"""How long a step may take to start its tasks on a busy machine."""


def ranks_of(cluster: SlurmCluster, job: str) -> dict[int, int]:
    """The process id of every task that srun started for a job and that runs now, by its rank (SLURM_PROCID).

    Of a task that is a shell around a program, it is the program. What a rank itself has started is no rank.

    Args:
        cluster: Where the job runs.
        job: Its id; of an array, one task's, such as 5_0.
    """
    number = cluster.job(job)["JobId"]
    found: dict[int, list[int]] = {}
    for node in cluster.options.node_names:
        for process in cluster.processes_on(node):
            environ = _environment(process.pid)
            if environ.get("SLURM_JOB_ID") == number and environ.get("SLURM_STEP_ID", "").isdigit():
                found.setdefault(int(environ["SLURM_PROCID"]), []).append(process.pid)
    return {rank: _program(pids) for rank, pids in sorted(found.items()) if pids}


def rank_of(cluster: SlurmCluster, job: str, rank: int) -> int:
    """The process id of one rank, once it is there.

    Raises:
        TimeoutError: The job starts no such rank.
    """
    found: dict[int, int] = {}

    def there() -> bool:
        found.update(ranks_of(cluster, job))
        return rank in found

    wait_until(there, lambda: f"Job {job} has the ranks {sorted(found)}, and no {rank}.", APPEAR_SECONDS, 0.2)
    return found[rank]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to the very process that has this number now.

    Raises:
        ProcessLookupError: It has ended.
    """
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def state_of(pid: int) -> str:
    """What the kernel calls the state of a process, such as S, R, T (stopped) or Z; "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _program(pids: list[int]) -> int:
    """The process that slurmstepd started, or what a shell there runs in its place."""
    parents = {pid: _parent(pid) for pid in pids}
    (first, *_) = [pid for pid in pids if parents[pid] not in parents] or pids
    while _is_shell(first) and (children := [pid for pid in pids if parents[pid] == first]):
        first = children[0]
    return first


def _is_shell(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in {"sh", "bash", "dash", "zsh"}
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        found = re.search(r"^PPid:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _environment(pid: int) -> dict[str, str]:
    """What a process was started with; nothing where it has ended."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return {
        name.decode(): value.decode(errors="replace") for name, _, value in (word.partition(b"=") for word in words)
    }
