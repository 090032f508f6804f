"""What do the launchers of MPI say? Most give rank, size, local rank and local size; hosts and nodes are derived.

Under Slurm, mpirun starts its daemons as a job step, and the ranks inherit the variables of that step. Its numbers
count daemons, not ranks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hpc.errors import WorldError
from hpc.world.hostlist import expand_hostlist
from hpc.world.readings import numbers
from hpc.world.readings.numbers import Environ
from hpc.world.readings.slurm import PMI_RANKS, is_step, slurm_attempt, slurm_job, srun_pmi
from hpc.world.world import World

DAEMON_ADDRESSES = re.compile(r"tcp://([0-9.,]+):")
"""Where mpirun runs, in OMPI_MCA_orte_hnp_uri (Open MPI 4.1); rank 0 is nearly always there."""


@dataclass(frozen=True)
class Names:
    """Which variables give the four numbers.

    Args:
        rank: Of this process.
        size: Of the world.
        local_rank: On this node.
        local_size: On this node.
        node: This node among the nodes, where a variable tells it.
        identity: A variable whose value no other world has, where there is one.
        proxies: This launcher starts one proxy on each node as a Slurm step, so that the step lists the nodes.
    """

    rank: str
    size: str
    local_rank: str
    local_size: str
    node: str = ""
    identity: str = ""
    proxies: bool = False


OPENMPI = Names(
    *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    identity="PMIX_NAMESPACE",
)
MVAPICH2 = Names(
    *("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE")
)
INTEL = Names(
    *("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"), identity="I_MPI_HYDRA_UUID", proxies=True
)
HYDRA = Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", proxies=True)
CRAY = Names("PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")
PALS = Names("PALS_RANKID", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE", "PALS_NODEID", "PALS_APID")
JSRUN = Names(
    *("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE"),
    identity="LSB_JOBID",
)


def reader(source: str, names: Names) -> Callable[[Environ], World]:
    """The function that reads these variables."""
    return lambda environ: _read(environ, source, names)


def doubt(names: Names) -> Callable[[Environ], str]:
    """Tells why these variables do not count: srun set them, or they claim one rank inside a larger step."""

    def reason(environ: Environ) -> str:
        ours = [name for name in srun_pmi(environ) if PMI_RANKS[name] == names.rank]
        if ours:
            return f"{ours[0]}={environ[ours[0]]} shows that srun has set them"
        step = environ.get("SLURM_STEP_NUM_TASKS", "")
        if environ.get(names.size) == "1" and is_step(environ) and step != "1":
            return f"{names.size}=1 is a world of one, inside a Slurm step of {step} tasks"
        return ""

    return reason


def advice(_: Environ, world: World) -> str:
    """Advice where no variable tells which host rank 0 is on."""
    if world.hosts:
        return ""
    return (
        f"Nothing names the hosts of these {world.node_count} nodes, so rank 0 will not be found: export MASTER_ADDR"
        " with the name of rank 0's host to every rank (`mpirun -x MASTER_ADDR`, `mpiexec -genvlist MASTER_ADDR`)."
    )


def read_bare_pmi(environ: Environ) -> World:
    """Raises a WorldError: without a local rank, two ranks would take the same GPU."""
    raise WorldError(
        f"MPI_LOCALRANKID or PMI_LOCAL_RANK must be set where PMI_RANK={environ['PMI_RANK']} is, to tell the ranks of"
        " one node apart, but neither is: start with MPICH 3.2 or later, srun or torchrun, or unset PMI_RANK."
    )


def read_bare_pmix(environ: Environ) -> World:
    """Raises a WorldError: PMIx tells the world size through calls only; the environment has only the rank."""
    raise WorldError(
        f"PMIX_RANK={environ['PMIX_RANK']} must come with a world size, but PMIx puts none into the environment: start"
        " with Open MPI's mpirun, `prterun --personality ompi`, srun or torchrun, or unset PMIX_RANK."
    )


def bare_pmix_doubt(environ: Environ) -> str:
    """A name space of Slurm's own PMIx means that srun started this process."""
    name = environ.get("PMIX_NAMESPACE", "")
    return f"PMIX_NAMESPACE={name} shows that srun has set it" if name.startswith("slurm.pmix.") else ""


def _read(environ: Environ, source: str, names: Names) -> World:
    size = numbers.count(environ, names.size, 1)
    rank = numbers.index(environ, names.rank, size, names.size)
    local_size = numbers.part(environ, names.local_size, size, names.size)
    local_rank = numbers.index(environ, names.local_rank, local_size, names.local_size)
    node, nodes, hosts = _nodes(environ, names, World(rank, size, local_rank, local_size, 0, 1, (), source, ""))
    rendezvous = not hosts or hosts == (environ.get("MASTER_ADDR"),)
    return World(
        *(rank, size, local_rank, local_size, node, nodes, hosts, source),
        job=f"{source}.{environ.get(names.identity) or _around(environ)}",
        attempt=slurm_attempt(environ) if environ.get("SLURM_JOB_ID") else 0,
        master=numbers.master(environ) if rendezvous and hosts and environ.get("MASTER_PORT") else None,
    )


def _around(environ: Environ) -> str:
    """The scheduler's job or step in which mpiexec runs; all ranks of one mpiexec see the same one."""
    if environ.get("SLURM_JOB_ID"):
        return slurm_job(environ, environ.get("SLURM_STEP_ID") or "batch")
    names = ("LSB_JOBID", "PBS_JOBID", "JOB_ID", "MASTER_PORT")
    return next((environ[name] for name in names if environ.get(name)), "alone")


def _nodes(environ: Environ, names: Names, ranks: World) -> tuple[int, int, tuple[str, ...]]:
    """Number of this node, number of nodes, and hosts."""
    if ranks.local_world_size == ranks.world_size:
        return 0, 1, numbers.LOOPBACK
    if names.proxies and _is_one_proxy_per_node(environ):
        hosts = expand_hostlist(environ["SLURM_STEP_NODELIST"])
        return numbers.index(environ, "SLURM_NODEID", len(hosts), "the nodes of the step"), len(hosts), hosts
    hosts = _hosts(environ)
    if environ.get(names.node):
        node = numbers.index(environ, names.node, ranks.world_size, names.size)
        return node, max(node + 1, -(-ranks.world_size // ranks.local_world_size)), hosts
    return *_derived_node(ranks, hosts, environ.get("PMIX_HOSTNAME", "")), hosts


def _is_one_proxy_per_node(environ: Environ) -> bool:
    step = (environ.get("SLURM_STEP_NUM_NODES", ""), environ.get("SLURM_STEP_NUM_TASKS", ""))
    return is_step(environ) and step[0] == step[1] and "SLURM_STEP_NODELIST" in environ and "SLURM_NODEID" in environ


def _derived_node(ranks: World, hosts: tuple[str, ...], host: str) -> tuple[int, int]:
    """Node rank and node count: computed where all nodes have equally many ranks, else this host's place in the list.

    Ranks are placed in blocks (0 1 on the first node, 2 3 on the second) or cyclically (0 2 and 1 3); the local rank
    shows which.
    """
    size, local_size = ranks.world_size, ranks.local_world_size
    nodes = -(-size // local_size)
    if host in hosts and (size % local_size or nodes > len(hosts)):
        place = hosts.index(host)
        return place, min(max(len(hosts), place + 1), size)
    in_blocks = ranks.rank % local_size == ranks.local_rank
    return ranks.rank // local_size if in_blocks else ranks.rank % nodes, nodes


def _hosts(environ: Environ) -> tuple[str, ...]:
    """All hosts of the allocation, where they are known; else the host that rank 0 is likely to be on.

    PBS_NODEFILE and PE_HOSTFILE exist on the first node only, so the other nodes could not read them.
    """
    if environ.get("SLURM_JOB_NODELIST"):
        return expand_hostlist(environ["SLURM_JOB_NODELIST"])
    if environ.get("LSB_MCPU_HOSTS"):
        return tuple(dict.fromkeys(environ["LSB_MCPU_HOSTS"].split()[::2]))
    if environ.get("MASTER_ADDR"):
        return (environ["MASTER_ADDR"],)
    daemon = DAEMON_ADDRESSES.search(environ.get("OMPI_MCA_orte_hnp_uri", ""))
    return tuple(daemon[1].split(",")) if daemon else ()
