"""What do the daemons of a pretended cluster read: slurm.conf, gres.conf, slurmdbd.conf and the hosts file?

The values are those that worked with Slurm 22.05.8 (Debian 12). Two kinds of choice are behind them. Fast: the
scheduler looks every two seconds and a requeued job may start after `cred_expire_seconds`. Apart from the
machine: every path lies in the cluster's own folder, every address in its own network namespaces.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc.testing.cgroups import CGROUP_CONF, slurm_conf_lines

if TYPE_CHECKING:
    from pathlib import Path

    from hpc.testing.network import Network

CONTROLLER = "ctl"
"""Host name of the machine that slurmctld, slurmdbd, MariaDB and munge run on."""

MOST_NODES = 200
"""Node i has the address 10.77.x.i; the controller and the login side need two addresses above the nodes'."""


@dataclass(frozen=True)
class ClusterOptions:
    """How big the cluster is and how its scheduler behaves.

    Attributes:
        nodes: How many nodes, named node1, node2, ...
        gpus_per_node: GPUs of type `gpu_type` on each node; 0 configures no gres at all.
        gpu_type: The type in ``--gres=gpu:TYPE:N``.
        cpus_per_node: CPUs that each node pretends to have.
        memory_mb: Memory that each node pretends to have. A job gets an equal share per CPU unless it asks.
        accounting: Whether slurmdbd and MariaDB run. Without them there is no sacct, as on many small sites.
        kill_wait_seconds: KillWait, the time between SIGTERM and SIGKILL.
        cred_expire_seconds: A requeued job starts no sooner than one second after this time.
        max_array_size: MaxArraySize; the highest array index is one less.
        cgroups: Whether a job gets no more memory than it has asked for, and nothing that it has started outlives it;
            `hpc.testing.cgroups.reason_no_cgroups_here` says whether this machine can.
        small_disk_mb: Size of `SlurmCluster.small_disk`, in MiB; takes memory only as it is filled.
        extra_conf: Lines for the end of slurm.conf; they win over the ones above.

    Raises:
        ValueError: A number is out of its range.
    """

    nodes: int = 4
    gpus_per_node: int = 8
    gpu_type: str = "a100"
    cpus_per_node: int = 16
    memory_mb: int = 16000
    accounting: bool = True
    kill_wait_seconds: int = 5
    cred_expire_seconds: int = 10
    max_array_size: int = 1001
    cgroups: bool = False
    small_disk_mb: int = 64
    extra_conf: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST_NODES:
            raise ValueError(f"nodes is {self.nodes}; it may be 1 to {MOST_NODES}.")
        # Sooner, a requeued job meets its own dying predecessor: "Duplicate jobid", node drained, job held.
        if self.cred_expire_seconds < self.kill_wait_seconds + 5:
            raise ValueError(
                f"cred_expire_seconds is {self.cred_expire_seconds}; it may be no less than "
                f"kill_wait_seconds + 5 = {self.kill_wait_seconds + 5}."
            )

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes' names, node1 first."""
        return tuple(f"node{number}" for number in range(1, self.nodes + 1))


def write_configuration(directory: Path, options: ClusterOptions, network: Network) -> None:
    """Write everything that the daemons read, and make the folders that they write to.

    Args:
        directory: The cluster's own folder; configuration goes to its `etc`.
        options: How big the cluster is.
        network: Which addresses its hosts have.
    """
    for name in ("etc", "log", "state", "spool", "gpus"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    etc = directory / "etc"
    _make_gpus(directory / "gpus", options.gpus_per_node)
    _write_private(etc / "munge.key", secrets.token_bytes(1024), mode=0o400)
    _write_private(etc / "slurmdbd.conf", _slurmdbd_conf(directory, network).encode(), mode=0o600)
    (etc / "hosts").write_text(_hosts(network))
    (etc / "slurm.conf").write_text(_slurm_conf(directory, options, network))
    if options.cgroups:
        (etc / "cgroup.conf").write_text(CGROUP_CONF)
    if options.gpus_per_node:
        (etc / "gres.conf").write_text(
            f"Name=gpu Type={options.gpu_type} File={directory}/gpus/gpu[0-{options.gpus_per_node - 1}]\n"
        )


def _make_gpus(directory: Path, count: int) -> None:
    """Slurm hands out any character device that gres.conf names; these are all /dev/null's (1, 3)."""
    for index in range(count):
        os.mknod(directory / f"gpu{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _write_private(path: Path, content: bytes, mode: int) -> None:
    """Munge and slurmdbd refuse to start on secrets that others may read."""
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)


def _hosts(network: Network) -> str:
    lines = [f"{address} {name}" for name, address in network.addresses.items()]
    return "\n".join(["127.0.0.1 localhost", *lines, ""])


def _slurmdbd_conf(directory: Path, network: Network) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
DbdHost={CONTROLLER}
DbdAddr={network.addresses[CONTROLLER]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=root
LogFile={directory}/log/slurmdbd.log
PidFile={directory}/slurmdbd.pid
"""


def _slurm_conf(directory: Path, options: ClusterOptions, network: Network) -> str:
    sections = (
        _daemon_lines(directory, options, network),
        _scheduling_lines(options),
        _accounting_lines(directory, options, network),
        _node_lines(options, network),
        slurm_conf_lines() if options.cgroups else "",
        # The last of two lines with one key wins, as slurmctld itself reports in its log.
        "\n".join(options.extra_conf),
    )
    return "\n".join((*sections, ""))


def _daemon_lines(directory: Path, options: ClusterOptions, network: Network) -> str:
    return f"""\
ClusterName={network.name}
SlurmctldHost={CONTROLLER}({network.addresses[CONTROLLER]})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire={options.cred_expire_seconds}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait={options.kill_wait_seconds}
MaxArraySize={options.max_array_size}"""


def _scheduling_lines(options: ClusterOptions) -> str:
    # Without a default share the first job of a node takes all of its memory, and no second one fits.
    return f"""\
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={options.memory_mb // options.cpus_per_node}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0"""


def _accounting_lines(directory: Path, options: ClusterOptions, network: Network) -> str:
    if not options.accounting:
        return "AccountingStorageType=accounting_storage/none"
    gpus = ",gres/gpu" if options.gpus_per_node else ""
    # What is called a password is, with munge, the socket for connections to slurmdbd; AuthInfo does not count there.
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={network.addresses[CONTROLLER]}
AccountingStoragePass={directory}/munge.socket
AccountingStorageTRES=cpu,mem,node{gpus}"""


def _node_lines(options: ClusterOptions, network: Network) -> str:
    gres = f" Gres=gpu:{options.gpu_type}:{options.gpus_per_node}" if options.gpus_per_node else ""
    size = f"CPUs={options.cpus_per_node} RealMemory={options.memory_mb}{gres}"
    nodes = [f"NodeName={name} NodeAddr={network.addresses[name]} {size}" for name in options.node_names]
    names = ",".join(options.node_names)
    return "\n".join(
        [
            *(["GresTypes=gpu"] if options.gpus_per_node else []),
            *nodes,
            f"PartitionName=low Nodes={names} Default=YES PriorityTier=1 PreemptMode=REQUEUE MaxTime=7-00:00:00",
            f"PartitionName=high Nodes={names} PriorityTier=10 MaxTime=7-00:00:00",
        ]
    )
