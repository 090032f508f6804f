"""What do batch systems other than Slurm say?

LSF, PBS and SGE count slots, not processes. Ranks come from mpiexec or jsrun inside the job; a process that neither has
started is a world of one.
"""

from __future__ import annotations

import re

from hpc.errors import WorldError
from hpc.world.readings import numbers
from hpc.world.readings.numbers import Environ
from hpc.world.world import World

MPIEXEC = "start one process for each rank with mpiexec, or one torchrun for each node"


def read_flux(environ: Environ) -> World:
    """Flux tells the local rank but not the local world size, so all nodes must have equally many ranks.

    Raises:
        WorldError: The ranks cannot be divided equally among the nodes.
    """
    size = numbers.count(environ, "FLUX_JOB_SIZE", 1)
    nodes = numbers.part(environ, "FLUX_JOB_NNODES", size, "FLUX_JOB_SIZE")
    rank = numbers.index(environ, "FLUX_TASK_RANK", size, "FLUX_JOB_SIZE")
    if size % nodes:
        raise WorldError(
            f"FLUX_JOB_SIZE must be a multiple of FLUX_JOB_NNODES, which is {nodes}, because Flux does not tell the"
            f" tasks of one node, but is {size}: use `flux run --tasks-per-node`, or one torchrun for each node."
        )
    local_size = size // nodes
    local_rank = numbers.index(environ, "FLUX_TASK_LOCAL_ID", local_size, "the tasks of one node")
    host = environ.get("MASTER_ADDR")
    hosts = numbers.LOOPBACK if nodes == 1 else (host,) if host else ()
    node = rank // local_size if rank % local_size == local_rank else rank % nodes
    return World(rank, size, local_rank, local_size, node, nodes, hosts, "flux", f"flux.{environ['FLUX_JOB_ID']}")


def read_htcondor(environ: Environ) -> World:
    """The parallel universe starts one process on each of its machines.

    Raises:
        WorldError: No variable tells where rank 0 is.
    """
    size = numbers.count(environ, "_CONDOR_NPROCS", 1)
    rank = numbers.index(environ, "_CONDOR_PROCNO", size, "_CONDOR_NPROCS")
    if size == 1:
        return numbers.alone("htcondor", "htcondor.alone")
    if not (environ.get("MASTER_ADDR") and environ.get("MASTER_PORT")):
        raise WorldError(
            f"MASTER_ADDR and MASTER_PORT must be set where _CONDOR_NPROCS={size}, because HTCondor names no hosts, but"
            " are not: set both in the submit file's environment, or let its wrapper script export them."
        )
    master = numbers.master(environ)
    return World(
        rank, size, 0, 1, rank, size, (master[0],), "htcondor", f"htcondor.{master[0]}:{master[1]}", master=master
    )


def read_hyperqueue(environ: Environ) -> World:
    """One process for each task; the SLURM_* it sees belong to the worker that runs it."""
    parts = (environ[name] for name in ("HQ_JOB_ID", "HQ_TASK_ID", "HQ_INSTANCE_ID") if environ.get(name))
    return numbers.alone("hyperqueue", ".".join(("hyperqueue", *parts)))


def hyperqueue_advice(environ: Environ, _: World) -> str:
    """Advice where a task has several nodes."""
    nodes = environ.get("HQ_NUM_NODES", "")
    if nodes in ("", "1"):
        return ""
    return f"This task has {nodes} nodes and HyperQueue starts one process on the first: {MPIEXEC} in HQ_NODE_FILE."


def read_lsf(environ: Environ) -> World:
    """A world of one in an LSF job."""
    return numbers.alone("lsf", _job("lsf", environ, "LSB_JOBID", "LSB_JOBINDEX"))


def lsf_advice(environ: Environ, _: World) -> str:
    """Advice where the job has several hosts."""
    hosts = dict.fromkeys(environ.get("LSB_MCPU_HOSTS", "").split()[::2])
    return _several("LSB_MCPU_HOSTS", len(hosts), MPIEXEC.replace("mpiexec", "jsrun or mpiexec"))


def read_pbs(environ: Environ) -> World:
    """A world of one in a PBS or Torque job. pbsdsh numbers tasks, but the batch script has the first task's number."""
    return numbers.alone("pbs", _job("pbs", environ, "PBS_JOBID"))


def pbs_advice(environ: Environ, _: World) -> str:
    """Advice where the job has several nodes, or pbsdsh started this process."""
    task = environ.get("PBS_TASKNUM", "")
    if task.isdecimal() and int(task) > 1:
        return f"PBS_TASKNUM={task} numbers what pbsdsh starts, but nothing tells how many there are: {MPIEXEC}."
    nodes = environ.get("PBS_NUM_NODES", "")
    return _several("PBS_NUM_NODES", int(nodes) if nodes.isdecimal() else 1, MPIEXEC)


def read_sge(environ: Environ) -> World:
    """A world of one in a Grid Engine job."""
    return numbers.alone("sge", _job("sge", environ, "JOB_ID", "SGE_TASK_ID"))


def sge_advice(environ: Environ, _: World) -> str:
    """Advice where the job has several hosts. NSLOTS is not looked at, because it counts CPUs."""
    hosts = environ.get("NHOSTS", "")
    return _several("NHOSTS", int(hosts) if hosts.isdecimal() else 1, MPIEXEC)


def _several(name: str, hosts: int, fix: str) -> str:
    return f"This job has {hosts} hosts ({name}) and this process is one alone: {fix}." if hosts > 1 else ""


def _job(source: str, environ: Environ, *names: str) -> str:
    told = [environ[name] for name in names if environ.get(name) not in (None, "", "0", "undefined")]
    return ".".join([source, *(re.sub(r"\s", "", text) for text in told)])


def read_submitit_local(environ: Environ) -> World:
    """A world on one node; submitit's local executor refuses more than one."""
    size = numbers.count(environ, "SUBMITIT_LOCAL_NTASKS", 1)
    return World(
        rank=numbers.index(environ, "SUBMITIT_LOCAL_GLOBALID", size, "SUBMITIT_LOCAL_NTASKS"),
        world_size=size,
        local_rank=numbers.index(environ, "SUBMITIT_LOCAL_LOCALID", size, "SUBMITIT_LOCAL_NTASKS"),
        local_world_size=size,
        node_rank=0,
        node_count=1,
        hosts=numbers.LOOPBACK,
        source="submitit-local",
        job=f"submitit-local.{environ['SUBMITIT_LOCAL_JOB_ID']}",
    )


def submitit_doubt(environ: Environ) -> str:
    """Under Slurm, submitit's tasks are an ordinary job step."""
    executor = environ["SUBMITIT_EXECUTOR"]
    return "" if executor == "local" else f"SUBMITIT_EXECUTOR is {executor}, whose tasks are the scheduler's own"
