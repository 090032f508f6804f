"""What can happen to a job, done to one on purpose, and undone afterwards.

Every fault is what the real one is: a job of a higher partition, SIGKILL, a cable that is unplugged, a disk that is
full. None knows anything of the program that it meets.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

from hpc.testing.daemons import wait_until
from hpc.testing.ranks import rank_of, send, state_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hpc.testing.cluster import SlurmCluster

SETTLE_SECONDS = 120
"""How long Slurm may take to notice, on a machine that is busy."""


class Faults:
    """The faults of one test. As a context manager it ends with every cable, disk, node and daemon as it was.

    Args:
        cluster: A running one.
    """

    def __init__(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Faults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def preempt(self, job: str, grace_seconds: int = 0) -> str:
        """Give the nodes of a job to one of a higher partition, for a second.

        Returns once Slurm has decided so. The job gets SIGCONT and SIGTERM at once, and SIGKILL KillWait seconds
        later, or after `grace_seconds`; then it is requeued, or whatever its PreemptMode says.

        Args:
            job: Its id; of an array, one task's, such as 5_0.
            grace_seconds: GraceTime of its partition from now on.

        Returns:
            The id of the other job.
        """
        record = self.cluster.job(job)
        self.cluster.set_grace(record["Partition"], grace_seconds)
        self._undo.callback(self.cluster.set_grace, record["Partition"], 0)
        command = ("sbatch", "--parsable", "--partition=high", "--exclusive", f"--nodelist={record['NodeList']}")
        winner = self.cluster.run(*command, "--output=/dev/null", "--wrap=sleep 1").stdout.strip()
        self._undo.callback(self.cluster.run, "scancel", winner, check=False)
        self._wait(lambda: self._is_being_preempted(job, record["Restarts"]), f"Job {job} is not preempted")
        return winner

    def signal_rank(self, job: str, rank: int, number: signal.Signals) -> int:
        """Send a signal to one rank alone, once it is there; returns its process id."""
        pid = rank_of(self.cluster, job, rank)
        send(pid, number)
        return pid

    def kill_rank(self, job: str, rank: int = 0) -> int:
        """End one rank as a crash does, by SIGKILL; returns the process id that it had."""
        return self.signal_rank(job, rank, signal.SIGKILL)

    def stop_rank(self, job: str, rank: int = 0) -> int:
        """Let one rank hang (SIGSTOP); returns its process id once it does. It is woken when the test ends."""
        pid = self.signal_rank(job, rank, signal.SIGSTOP)
        self._undo.callback(_wake, pid)
        self._wait(lambda: state_of(pid) in ("T", "t", ""), f"Process {pid} is not stopped")
        return pid

    def time_limit(self, job: str, minutes: int = 1) -> None:
        """Change the time limit of a job; one that has run for longer already is at it now."""
        self.cluster.run("scontrol", "update", f"jobid={job}", f"timelimit={minutes}")

    def node_down(self, node: str) -> None:
        """Set a node DOWN, as an administrator or a health check does. Its jobs end as NODE_FAIL, or are requeued.

        It is drained as well: with ReturnToService=2 a node that is only DOWN is back once its slurmd reports again.
        """
        for state in ("down", "drain"):
            self.cluster.run("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")
        self._undo.callback(self.node_up, node)

    def node_up(self, node: str) -> None:
        """Let a node take jobs again; one that does already is no error. Returns once it may."""

        def usable() -> bool:
            state = self.cluster.run("sinfo", "--noheader", f"--nodes={node}", "--partition=low", "--format=%T").stdout
            if "down" in state or "drain" in state:  # also draining and drained
                self.cluster.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
            return state.strip() in ("idle", "mixed", "allocated", "completing")

        self._wait(usable, f"{node} takes no jobs")

    def slurmd_kill(self, node: str) -> None:
        """End a node's slurmd by SIGKILL. The ranks on it go on, and nobody tells them what Slurm decides."""
        self.cluster.daemon(node).kill()
        self._undo.callback(self.node_up, node)
        self._undo.callback(self.slurmd_start, node)

    def slurmd_start(self, node: str) -> None:
        """Start a node's slurmd again."""
        self.cluster.daemon(node).start_again()

    def network_cut(self, node: str) -> None:
        """Unplug a node: its ranks, its slurmd and the file systems of this machine go on, and nobody hears it."""
        self.cluster.network.cut(node)
        self._undo.callback(self.node_up, node)
        self._undo.callback(self.network_heal, node)

    def network_heal(self, node: str) -> None:
        """Plug a node in again."""
        self.cluster.network.heal(node)

    def controller_down(self) -> None:
        """End slurmctld by SIGKILL. Jobs go on, and every command of Slurm fails."""
        self.cluster.daemon("slurmctld").kill()
        self._undo.callback(self.controller_up)

    def controller_up(self) -> None:
        """Start slurmctld again, with the state it had, and return once it answers."""
        self.cluster.daemon("slurmctld").start_again()
        ping = ("scontrol", "ping")
        self._wait(lambda: self.cluster.run(*ping, check=False).returncode == 0, "slurmctld does not answer")

    def controller_restart(self, away_seconds: float = 0) -> None:
        """End slurmctld by SIGKILL and start it again after some time."""
        self.controller_down()
        time.sleep(away_seconds)
        self.controller_up()

    def full_disk(self) -> None:
        """Fill `cluster.small_disk` to its last byte: whoever writes there gets ENOSPC."""
        filling = self.cluster.small_disk / "filling"
        self._undo.callback(self.free_disk)
        with filling.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass

    def free_disk(self) -> None:
        """Take away what `full_disk` wrote."""
        (self.cluster.small_disk / "filling").unlink(missing_ok=True)

    def _is_being_preempted(self, job: str, restarts: str) -> bool:
        record = self.cluster.job(job)
        return record["Restarts"] != restarts or record["PreemptTime"] != "None" or record["JobState"] != "RUNNING"

    def _wait(self, condition: Callable[[], bool], story: str) -> None:
        wait_until(condition, lambda: f"{story} after {SETTLE_SECONDS} s.", SETTLE_SECONDS, interval_seconds=0.2)


def _wake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        send(pid, signal.SIGCONT)
