"""How does a test get a real Slurm with several nodes, ask it things, and be sure that nothing of it remains?

The cluster is started by hand (no systemd, no Docker) from Debian's packages, which install.sh installs. Its
nodes share this machine's disks and CPUs, and have each an address, a host name and a port space of their own::

    with SlurmCluster(tmp_path / "cluster") as cluster:
        job = cluster.run("sbatch", "--parsable", "--wrap=hostname").stdout.strip()
        cluster.wait_for(job, "COMPLETED", timeout_seconds=30)
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.testing.cgroups import remove
from hpc.testing.configuration import CONTROLLER, ClusterOptions, write_configuration
from hpc.testing.daemons import READY_SECONDS, Daemon, Site, start_daemons, tail, wait_until
from hpc.testing.network import Network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["ClusterOptions", "CommandFailedError", "NodeProcess", "SlurmCluster"]

LEAKS = re.compile(r"(SLURM|SBATCH|SRUN|SALLOC|SACCT|SQUEUE|SINFO|SCANCEL|SCONTROL|PMI)")
"""Variables that begin like this steer Slurm's commands, and lie around inside any job."""

LONGEST_DIRECTORY = 60
"""Bytes; slurmstepd's socket is spool/NODE/NODE_JOB.STEP below it, and a socket's path has at most 107."""

RECORD_FIELDS = (
    *("JobID", "JobIDRaw", "JobName", "Partition", "State", "ExitCode", "DerivedExitCode"),
    *("Submit", "Start", "End", "ElapsedRaw", "NodeList", "AllocTRES"),
)


class CommandFailedError(subprocess.CalledProcessError):
    """A command ended with an exit status other than 0; unlike its base it says what the command printed."""

    def __str__(self) -> str:
        return f"{super().__str__()}\nstdout: {self.stdout}\nstderr: {self.stderr}"


@dataclass(frozen=True)
class NodeProcess:
    """A process that lives on a node.

    Attributes:
        pid: Its process id, the same on the node as on this machine.
        command: Its arguments, joined by spaces.
    """

    pid: int
    command: str


class SlurmCluster:
    """A Slurm of its own: a controller, nodes, and this process as the login side.

    Two partitions hold all nodes: `low` (the default) is preempted by `high`, whose victims are requeued. Jobs run
    as root. Inside a job Slurm's commands work and the hosts `ctl`, `node1`, `node2`, ... resolve.

    Args:
        directory: The cluster's own folder, made if need be; all state, logs and sockets lie in it.
        options: How big it is and how its scheduler behaves.

    Attributes:
        directory: As given.
        options: As given.
        environment: The whole environment for client commands: this process's without what would steer Slurm,
            plus SLURM_CONF.

    Raises:
        ValueError: The path of the folder is too long for the sockets in it.
    """

    def __init__(self, directory: Path, options: ClusterOptions | None = None) -> None:
        if len(os.fsencode(directory)) > LONGEST_DIRECTORY:
            raise ValueError(f"The path {directory} is too long for sockets; it may have {LONGEST_DIRECTORY} bytes.")
        self.directory = directory
        self.options = options or ClusterOptions()
        clean = {name: value for name, value in os.environ.items() if not LEAKS.match(name)}
        self.environment = clean | {"SLURM_CONF": f"{directory}/etc/slurm.conf"}
        self._network = Network(CONTROLLER, self.options.node_names)
        self._daemons: dict[str, Daemon] = {}
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up and return when all nodes are idle. What a failed start had made is removed.

        Raises:
            RuntimeError: Something could not be created, or a daemon ended; carries what it printed.
            TimeoutError: A daemon or a node is not ready in time.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._network.close)
            self._network.open()
            if self.options.cgroups:
                undo.callback(remove, self.options.node_names)
            write_configuration(self.directory, self.options, self._network)
            self._mount_small_disk(undo)
            site = Site(self.directory, self._network, self.environment)
            for daemon in start_daemons(site, self.options.node_names, self.options.accounting):
                undo.callback(daemon.stop)
                self._daemons[daemon.name] = daemon
            wait_until(self._all_idle, self._nodes_story, READY_SECONDS)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """End every daemon and every process left on a node; remove namespaces and interfaces. Files stay."""
        self._undo.close()

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout: float = 30,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login side.

        Args:
            command: The program and its arguments.
            check: Whether an exit status other than 0 is an error.
            timeout: Seconds until it is killed.
            cwd: Its working directory; the cluster's folder unless given.
            env: Variables on top of `environment`.

        Raises:
            CommandFailedError: `check` is true and the exit status is not 0.
            subprocess.TimeoutExpired: It took too long.
        """
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            cwd=cwd or self.directory,
            env={**self.environment, **(env or {})},
            check=False,
        )
        if check and done.returncode:
            raise CommandFailedError(done.returncode, command, done.stdout, done.stderr)
        return done

    def jobs(self, job_id: int | str) -> list[dict[str, str]]:
        """What the controller knows of a job, one dictionary for each task of an array.

        Raises:
            CommandFailedError: The controller knows no such job, or has forgotten it (MinJobAge).
        """
        lines = self.run("scontrol", "show", "job", "--oneliner", str(job_id)).stdout.splitlines()
        return [_parse_fields(line) for line in lines if line.strip()]

    def job(self, job_id: int | str) -> dict[str, str]:
        """What the controller knows of one job: the fields of ``scontrol show job``.

        Raises:
            CommandFailedError: The controller knows no such job, or has forgotten it (MinJobAge).
            ValueError: It is an array; its tasks are jobs of their own, such as 5_0.
        """
        first, *others = self.jobs(job_id)
        if others:
            raise ValueError(f"Job {job_id} is an array of {1 + len(others)}; name one task, as {job_id}_0.")
        return first

    def records(self, job_id: int | str) -> list[dict[str, str]]:
        """What accounting knows of a job: every life that a requeue began, and every step, oldest first.

        Slurmctld reports to slurmdbd in its own time: a job it calls COMPLETED may be RUNNING here for a moment.

        Raises:
            CommandFailedError: There is no accounting.
        """
        columns = f"--format={','.join(RECORD_FIELDS)}"
        done = self.run("sacct", "--duplicates", "--parsable2", "--noheader", columns, "-j", str(job_id))
        return [dict(zip(RECORD_FIELDS, line.split("|"), strict=True)) for line in done.stdout.splitlines()]

    def wait_for(self, job_id: int | str, *states: str, timeout_seconds: float) -> str:
        """Wait until a job, or every task of an array, is in one of some states.

        Args:
            job_id: The job, array or array task.
            states: JobState as scontrol spells it, such as PENDING, RUNNING, COMPLETED.
            timeout_seconds: When to give up.

        Returns:
            The state; of an array, its first task's.

        Raises:
            TimeoutError: It is in another state; carries the job's record, its output and slurmctld's log.
            CommandFailedError: The controller knows no such job.
        """
        seen: list[str] = []

        def arrived() -> bool:
            seen[:] = [job["JobState"] for job in self.jobs(job_id)]
            return all(state in states for state in seen)

        wait_until(arrived, lambda: self._job_story(job_id, states), timeout_seconds, interval_seconds=0.2)
        return seen[0]

    def set_grace(self, partition: str, seconds: int) -> None:
        """Give the preempted jobs of a partition this long between SIGTERM and SIGKILL."""
        self.run("scontrol", "update", f"partitionname={partition}", f"gracetime={seconds}")

    @property
    def name(self) -> str:
        """Its ClusterName, unique on this machine; its network namespaces are called `<name>-<host>`."""
        return self._network.name

    def processes_on(self, node: str) -> list[NodeProcess]:
        """Every process on a node except slurmd: steps, the tasks of jobs, and what those left behind."""
        pids = (pid for pid in self._network.processes(node) if pid != self._daemons[node].pid)
        return [NodeProcess(pid, _command_of(pid)) for pid in pids]

    def log_tail(self, name: str, lines: int = 40) -> str:
        """The end of a log: `slurmctld`, `slurmdbd`, `mariadbd`, `munged`, or a node's name for its slurmd."""
        logs = self.directory / "log"
        own = logs / f"{name}.log"
        return tail(own if own.exists() else logs / f"{name}.out", lines)

    @property
    def network(self) -> Network:
        """Its hosts' namespaces, addresses and cables."""
        return self._network

    def daemon(self, name: str) -> Daemon:
        """A daemon, by the name of its log: `slurmctld`, `slurmdbd`, or a node's name for its slurmd."""
        return self._daemons[name]

    @property
    def small_disk(self) -> Path:
        """A folder on a file system of its own, of `small_disk_mb`, which every host sees and a test may fill."""
        return self.directory / "small"

    def _mount_small_disk(self, undo: contextlib.ExitStack) -> None:
        """Before the daemons start: each has mounts of its own, and sees only those that were there by then."""
        self.small_disk.mkdir(exist_ok=True)
        size = f"--options=size={self.options.small_disk_mb}m"
        self.run("mount", "-t", "tmpfs", size, "hpc-small-disk", str(self.small_disk))
        undo.callback(self.run, "umount", "--lazy", str(self.small_disk))

    def _all_idle(self) -> bool:
        states = self.run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T").stdout.split()
        return states == ["idle"] * self.options.nodes

    def _nodes_story(self) -> str:
        nodes = self.run("scontrol", "show", "nodes", "--oneliner", check=False).stdout
        return f"The nodes are not idle in time:\n{nodes}\nslurmctld's log:\n{self.log_tail('slurmctld')}"

    def _job_story(self, job_id: int | str, states: tuple[str, ...]) -> str:
        jobs = self.jobs(job_id)
        parts = [f"Job {job_id} is {', '.join(job['JobState'] for job in jobs)}, not {' or '.join(states)}."]
        for job in jobs:
            parts.append("\n".join(f"  {key}={value}" for key, value in job.items()))
            if "StdOut" in job:
                parts.append(f"{job['StdOut']}:\n{tail(Path(job['StdOut']), 20)}")
        return "\n\n".join([*parts, f"slurmctld's log:\n{self.log_tail('slurmctld')}"])


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # it ended since it was listed
        return "(ended)"


def _parse_fields(line: str) -> dict[str, str]:
    """Split ``Key=value Key=value``; a value may hold spaces, and text like a later key's, so the first one counts."""
    fields: dict[str, str] = {}
    for field in re.split(r" (?=[A-Za-z][\w:/]*=)", line.strip()):
        key, _, value = field.partition("=")
        fields.setdefault(key, value)
    return fields
