"""What do one launcher's variables say? One small function for each launcher in the table.

Every function takes a mapping in which the variables it needs are set, and returns a World, or names what is wrong.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from hpc.errors import WorldError
from hpc.world.hostlist import expand_hostlist, expand_tasks_per_node
from hpc.world.value import World

Environ = Mapping[str, str]

NOT_TASKS = {4294967290: "interactive step", 4294967291: "batch step", 4294967292: "extern step"}
"""Step ids without tasks of srun's: SLURM_INTERACTIVE_STEP, SLURM_BATCH_SCRIPT, SLURM_EXTERN_CONT (slurm.h, 22.05)."""


def _count(environ: Environ, name: str, at_least: int = 0) -> int:
    text = environ[name].strip()
    if not (text.isascii() and text.isdigit() and int(text) >= at_least):
        raise WorldError(f"{name} must be a whole number from {at_least} up, but is {text!r}: correct or unset it.")
    return int(text)


def _index(environ: Environ, name: str, size: int, size_name: str) -> int:
    """A number that counts from 0 up to, and without, a size."""
    index = _count(environ, name)
    if index >= size:
        raise WorldError(f"{name} must be below {size_name}, which is {size}, but is {index}: correct one of the two.")
    return index


def _size(environ: Environ, name: str, total: int, total_name: str) -> int:
    """A part, at least 1, of a total."""
    size = _count(environ, name, 1)
    if size > total:
        raise WorldError(
            f"{name} must be at most {total_name}, which is {total}, but is {size}: correct one of the two."
        )
    return size


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _master(environ: Environ) -> tuple[str, int]:
    return environ["MASTER_ADDR"], _size(environ, "MASTER_PORT", 65535, "the highest port")


def read_torchrun(environ: Environ) -> World:
    """Every rank of `--virtual-local-rank` sees LOCAL_RANK=0; agents of one size number their ranks node by node."""
    size = _count(environ, "WORLD_SIZE", 1)
    local_size = _size(environ, "LOCAL_WORLD_SIZE", size, "WORLD_SIZE")
    nodes = _size(environ, "GROUP_WORLD_SIZE", size, "WORLD_SIZE")
    rank = _index(environ, "RANK", size, "WORLD_SIZE")
    local_rank = _index(environ, "LOCAL_RANK", local_size, "LOCAL_WORLD_SIZE")
    return World(
        rank=rank,
        world_size=size,
        local_rank=local_rank or (rank % local_size if nodes * local_size == size else 0),
        local_world_size=local_size,
        node_rank=_index(environ, "GROUP_RANK", nodes, "GROUP_WORLD_SIZE"),
        node_count=nodes,
        hosts=(environ["MASTER_ADDR"],),
        source="torchrun",
        job=f"torchrun.{environ['TORCHELASTIC_RUN_ID']}",
        attempt=_count(environ, "TORCHELASTIC_RESTART_COUNT"),
        master=_master(environ),
        agent_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _env_local_size(environ: Environ, size: int) -> int:
    """Ranks on this node: as told, else all of them when the store is on loopback, else this one alone."""
    if environ.get("LOCAL_WORLD_SIZE"):
        return _size(environ, "LOCAL_WORLD_SIZE", size, "WORLD_SIZE")
    if _is_loopback(environ["MASTER_ADDR"]):
        return size
    if environ.get("LOCAL_RANK"):
        raise WorldError(
            "LOCAL_WORLD_SIZE must be set where LOCAL_RANK is, but is not: set it to the number of ranks on this node."
        )
    return 1


def env_advice(environ: Environ) -> str:
    """Say so when the place on the node is a guess."""
    told = environ.get("LOCAL_RANK") or environ.get("LOCAL_WORLD_SIZE")
    if told or environ["WORLD_SIZE"] == "1" or _is_loopback(environ["MASTER_ADDR"]):
        return ""
    return (
        "LOCAL_RANK and LOCAL_WORLD_SIZE are not set, so this rank is taken for the only one on its node: set both"
        " where a node runs several."
    )


def read_env(environ: Environ) -> World:
    """Four variables make a world; LOCAL_RANK, LOCAL_WORLD_SIZE and NODE_RANK are believed where they are set."""
    size = _count(environ, "WORLD_SIZE", 1)
    rank = _index(environ, "RANK", size, "WORLD_SIZE")
    local_size = _env_local_size(environ, size)
    nodes = -(-size // local_size)
    local = {"LOCAL_RANK": str(rank % local_size), "NODE_RANK": str(rank // local_size)}
    local |= {name: environ[name] for name in local if environ.get(name)}
    return World(
        rank=rank,
        world_size=size,
        local_rank=_index(local, "LOCAL_RANK", local_size, "LOCAL_WORLD_SIZE"),
        local_world_size=local_size,
        node_rank=_index(local, "NODE_RANK", nodes, "the number of nodes"),
        node_count=nodes,
        hosts=(environ["MASTER_ADDR"],),
        source="env",
        job=f"env.{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}",
        master=_master(environ),
    )


def read_submitit_local(environ: Environ) -> World:
    """One node: submitit's local executor refuses more."""
    size = _count(environ, "SUBMITIT_LOCAL_NTASKS", 1)
    return World(
        rank=_index(environ, "SUBMITIT_LOCAL_GLOBALID", size, "SUBMITIT_LOCAL_NTASKS"),
        world_size=size,
        local_rank=_index(environ, "SUBMITIT_LOCAL_LOCALID", size, "SUBMITIT_LOCAL_NTASKS"),
        local_world_size=size,
        node_rank=0,
        node_count=1,
        hosts=("127.0.0.1",),
        source="submitit-local",
        job=f"submitit-local.{environ['SUBMITIT_LOCAL_JOB_ID']}",
    )


def submitit_doubt(environ: Environ) -> str:
    """Under Slurm, submitit's tasks are an ordinary job step."""
    executor = environ["SUBMITIT_EXECUTOR"]
    return "" if executor == "local" else f"SUBMITIT_EXECUTOR is {executor}, whose tasks are the scheduler's own"


def slurm_doubt(environ: Environ) -> str:
    """The shell that salloc opens with use_interactive_step is a step of one task; SLURM_NTASKS counts the job's."""
    step = environ.get("SLURM_STEP_ID", "").strip()
    kind = NOT_TASKS.get(int(step) % 2**32) if step.lstrip("-").isdecimal() else None
    return f"SLURM_STEP_ID={step} is the {kind}, where no srun has started tasks" if kind else ""


def _slurm_nodes(environ: Environ, size: int, nodes: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Every node of the step, and its number of tasks."""
    hosts = expand_hostlist(environ["SLURM_STEP_NODELIST"])
    tasks = expand_tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])
    if (len(hosts), len(tasks), sum(tasks)) != (nodes, nodes, size):
        raise WorldError(
            f"SLURM_STEP_NUM_TASKS={size} and SLURM_STEP_NUM_NODES={nodes} must agree with SLURM_STEP_TASKS_PER_NODE"
            f" ({sum(tasks)} tasks on {len(tasks)} nodes) and SLURM_STEP_NODELIST ({len(hosts)} nodes), but do not:"
            " unset what an outer job exported, or start with srun again."
        )
    return hosts, tasks


def _slurm_job(environ: Environ, step: str) -> str:
    return f"{environ.get('SLURM_CLUSTER_NAME') or 'slurm'}.{environ['SLURM_JOB_ID']}.{step}"


def _slurm_attempt(environ: Environ) -> int:
    """The variable is absent in a job's first life (22.05)."""
    return _count(environ, "SLURM_RESTART_COUNT") if environ.get("SLURM_RESTART_COUNT") else 0


def read_slurm(environ: Environ) -> World:
    """Step scope only: SLURM_NTASKS, SLURM_NNODES and SLURM_JOB_* may describe the whole allocation."""
    size = _count(environ, "SLURM_STEP_NUM_TASKS", 1)
    nodes = _count(environ, "SLURM_STEP_NUM_NODES", 1)
    hosts, tasks = _slurm_nodes(environ, size, nodes)
    node = _index(environ, "SLURM_NODEID", nodes, "SLURM_STEP_NUM_NODES")
    return World(
        rank=_index(environ, "SLURM_PROCID", size, "SLURM_STEP_NUM_TASKS"),
        world_size=size,
        local_rank=_index(
            environ, "SLURM_LOCALID", tasks[node], f"the tasks of node {node} in SLURM_STEP_TASKS_PER_NODE"
        ),
        local_world_size=tasks[node],
        node_rank=node,
        node_count=nodes,
        hosts=hosts,
        source="slurm",
        job=_slurm_job(environ, environ["SLURM_STEP_ID"]),
        attempt=_slurm_attempt(environ),
    )


def read_none(environ: Environ) -> World:
    """A world of one; inside a Slurm job it carries the job's identity."""
    in_job = bool(environ.get("SLURM_JOB_ID"))
    return World(
        rank=0,
        world_size=1,
        local_rank=0,
        local_world_size=1,
        node_rank=0,
        node_count=1,
        hosts=("127.0.0.1",),
        source="none",
        job=_slurm_job(environ, "alone") if in_job else "alone",
        attempt=_slurm_attempt(environ) if in_job else 0,
    )


def srun_advice(environ: Environ) -> str:
    """Say so when an allocation has more tasks than this process; a batch script looks like its rank 0."""
    tasks, groups = _allocated_tasks(environ)
    if not environ.get("SLURM_JOB_ID") or tasks in ("", "1"):
        return ""
    srun = f"srun --het-group=0-{groups - 1}" if groups > 1 else "srun"
    return f"This allocation has {tasks} tasks and this process is one alone: prefix the command with `{srun}`."


def _allocated_tasks(environ: Environ) -> tuple[str, int]:
    """Tasks of the job, as text, and its het groups; without -n there is no count, and srun starts one task a node."""
    groups = int(environ.get("SLURM_HET_SIZE") or 1)
    if groups > 1:
        tasks = [environ.get(f"SLURM_NTASKS_HET_GROUP_{group}") or "1" for group in range(groups)]
        return str(sum(int(count) for count in tasks)), groups
    names = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NUM_NODES")
    return next((environ[name] for name in names if environ.get(name)), ""), 1
