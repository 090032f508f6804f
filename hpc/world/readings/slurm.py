"""What do the variables of a Slurm job step say, those of a job without a step, and those of the PMI that srun sets?"""

from __future__ import annotations

from hpc.errors import WorldError
from hpc.world.hostlist import expand_hostlist, expand_tasks_per_node
from hpc.world.readings import numbers
from hpc.world.readings.numbers import Environ
from hpc.world.world import World

NOT_TASKS = {4294967290: "interactive step", 4294967291: "batch step", 4294967292: "extern step"}
"""Step ids in which srun has started no tasks: SLURM_INTERACTIVE_STEP, SLURM_BATCH_SCRIPT, SLURM_EXTERN_CONT.

Source: slurm.h, 22.05.
"""

PMI_RANKS = {"PMI_JOBID": "PMI_RANK", "PALS_APID": "PALS_RANKID", "PMIX_NAMESPACE": "PMIX_RANK"}
"""What `srun --mpi=` pmi2, cray_shasta and pmix set: a variable that names the step, and the one with the rank."""


def slurm_doubt(environ: Environ) -> str:
    """Why this is not a step with ranks: salloc with use_interactive_step runs its shell as a step of one task."""
    step = environ.get("SLURM_STEP_ID", "").strip()
    kind = NOT_TASKS.get(int(step) % 2**32) if step.lstrip("-").isdecimal() else None
    return f"SLURM_STEP_ID={step} is the {kind}, where no srun has started tasks" if kind else ""


def is_step(environ: Environ) -> bool:
    """Whether srun has started this process, or one around it."""
    return bool(environ.get("SLURM_STEP_NUM_TASKS")) and not slurm_doubt(environ)


def read_slurm(environ: Environ) -> World:
    """The world of a job step, from SLURM_STEP_*: SLURM_NTASKS and its like may describe the whole allocation."""
    size = numbers.count(environ, "SLURM_STEP_NUM_TASKS", 1)
    nodes = numbers.count(environ, "SLURM_STEP_NUM_NODES", 1)
    hosts, tasks = _nodes(environ, size, nodes)
    node = numbers.index(environ, "SLURM_NODEID", nodes, "SLURM_STEP_NUM_NODES")
    return World(
        rank=numbers.index(environ, "SLURM_PROCID", size, "SLURM_STEP_NUM_TASKS"),
        world_size=size,
        local_rank=numbers.index(
            environ, "SLURM_LOCALID", tasks[node], f"the tasks of node {node} in SLURM_STEP_TASKS_PER_NODE"
        ),
        local_world_size=tasks[node],
        node_rank=node,
        node_count=nodes,
        hosts=hosts,
        source="slurm",
        job=slurm_job(environ, environ["SLURM_STEP_ID"]),
        attempt=slurm_attempt(environ),
    )


def _nodes(environ: Environ, size: int, nodes: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
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


def slurm_job(environ: Environ, step: str) -> str:
    """A name that no other step has: cluster, job and step."""
    return f"{environ.get('SLURM_CLUSTER_NAME') or 'slurm'}.{environ['SLURM_JOB_ID']}.{step}"


def slurm_attempt(environ: Environ) -> int:
    """How often the job was requeued; the variable is absent in its first life (22.05)."""
    return numbers.count(environ, "SLURM_RESTART_COUNT") if environ.get("SLURM_RESTART_COUNT") else 0


def step_advice(environ: Environ, world: World) -> str:
    """Advice where a step leaves out a component of a heterogeneous job; plain `srun` uses the first component only."""
    groups = _het_groups(environ)
    hosts = {*world.hosts}
    lists = [environ.get(f"SLURM_JOB_NODELIST_HET_GROUP_{group}") or "" for group in range(groups)]
    outside = [str(group) for group, nodes in enumerate(lists) if hosts.isdisjoint(expand_hostlist(nodes))]
    if groups < 2 or not outside:
        return ""
    return (
        f"This step has no task on component {', '.join(outside)} of the heterogeneous job: prefix the command with"
        f" `srun --het-group=0-{groups - 1}` where all components train together."
    )


def read_none(environ: Environ) -> World:
    """A world of one; inside a Slurm job it carries the job's identity."""
    if environ.get("SLURM_JOB_ID"):
        return numbers.alone("none", slurm_job(environ, "alone"), slurm_attempt(environ))
    return numbers.alone("none", "alone")


def srun_advice(environ: Environ, _: World) -> str:
    """Advice where the allocation has several tasks and this process is not started by srun, as in a batch script."""
    if not environ.get("SLURM_JOB_ID"):
        return ""
    tasks, groups = _allocated_tasks(environ)
    if tasks in ("", "1"):
        return _gpu_advice(environ)
    srun = f"srun --het-group=0-{groups - 1}" if groups > 1 else "srun"
    return f"This allocation has {tasks} tasks and this process is one alone: prefix the command with `{srun}`."


def _gpu_advice(environ: Environ) -> str:
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    if gpus in ("", "0", "1") or environ.get("SLURM_STEP_NUM_TASKS"):
        return ""
    return (
        f"This allocation has {gpus} GPUs on this node and one task, so all but one stay idle: ask sbatch for"
        f" --ntasks-per-node={gpus} and prefix the command with `srun`."
    )


def _het_groups(environ: Environ) -> int:
    size = environ.get("SLURM_HET_SIZE", "")
    return int(size) if size.isascii() and size.isdigit() and len(size) < 6 else 1


def _allocated_tasks(environ: Environ) -> tuple[str, int]:
    """Tasks of the job, as text, and its number of het groups. Without -n there is one task on each node."""
    groups = _het_groups(environ)
    if groups > 1:
        tasks = [environ.get(f"SLURM_NTASKS_HET_GROUP_{group}") or "1" for group in range(groups)]
        return str(sum(int(count) for count in tasks if count.isdecimal())), groups
    names = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NUM_NODES")
    return next((environ[name] for name in names if environ.get(name)), ""), 1


def srun_pmi(environ: Environ) -> tuple[str, ...]:
    """PMI variables whose value names a step of this job; `PMI_RANKS` has the variable with the rank."""
    job = environ.get("SLURM_JOB_ID")
    return tuple(name for name in PMI_RANKS if job and _step_named(environ, name).split(".")[0] == job)


def srun_pmi_doubt(environ: Environ) -> str:
    """Why the PMI variables do not count: in a nested srun without --mpi they are still those of the outer step."""
    names = srun_pmi(environ)
    if not names or not is_step(environ):
        return "no srun --mpi has started tasks here"
    step = _this_step(environ)
    others = [f"{name}={environ[name]}" for name in names if _step_named(environ, name) != step]
    return f"{', '.join(others)} is another step than {step}" if len(others) == len(names) else ""


def read_srun_pmi(environ: Environ) -> World:
    """The world of the step, with the rank that PMI gives. Only PMI-2 gives a world size as well."""
    step = read_slurm(environ)
    own = (name for name in srun_pmi(environ) if _step_named(environ, name) == _this_step(environ))
    name = next(own, "PMI_JOBID")
    given = {"rank": environ.get(PMI_RANKS[name]) or str(step.rank)}
    given["size"] = (environ.get("PMI_SIZE") if name == "PMI_JOBID" else "") or str(step.world_size)
    size = numbers.count(given, "size", 1)
    place = (step.local_rank, step.local_world_size, step.node_rank, step.node_count)
    rank = numbers.index({PMI_RANKS[name]: given["rank"]}, PMI_RANKS[name], size, "the tasks of the step")
    return World(rank, size, *place, step.hosts, "srun-pmi", step.job)


def _this_step(environ: Environ) -> str:
    return f"{environ.get('SLURM_JOB_ID')}.{environ.get('SLURM_STEP_ID')}"


def _step_named(environ: Environ, name: str) -> str:
    """The step 4.0 that PMI_JOBID=4.0, PALS_APID=4.0 or PMIX_NAMESPACE=slurm.pmix.4.0 names; "" where none is named."""
    value = environ.get(name, "")
    if name == "PMIX_NAMESPACE":
        return value.removeprefix("slurm.pmix.") if value.startswith("slurm.pmix.") else ""
    return value
