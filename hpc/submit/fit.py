"""Whether a plan can ever start on the partition it names.

Slurm itself accepts some jobs that no node can take and leaves them pending for ever (EnforcePartLimits=NO, its
default). What cannot be asked is left to sbatch.
"""

from __future__ import annotations

from hpc.errors import SlurmError, SubmissionError
from hpc.slurm import client
from hpc.slurm.client import NodeGroup
from hpc.submit.plan import Plan


def check_fits(plan: Plan) -> None:
    """Compare the plan with what sinfo says of its partition.

    Raises:
        SubmissionError: The partition does not exist, or is smaller than what is asked.
    """
    try:
        groups = client.node_groups()
    except SlurmError:
        return
    partition = plan.cluster.partition or next((group.partition for group in groups if group.is_default), None)
    members = [group for group in groups if group.partition == partition]
    if plan.cluster.partition and not members:
        names = ", ".join(dict.fromkeys(group.partition for group in groups))
        raise SubmissionError(f"cluster.partition must be one of {names}, but is {partition}.")
    if members:
        _check_time(plan, members)
        _check_nodes(plan, members)


def _check_time(plan: Plan, members: list[NodeGroup]) -> None:
    asked, limit = plan.hardware.time_limit_minutes, members[0].time_limit_minutes
    if asked > limit:
        raise SubmissionError(
            f"hardware.time_limit_minutes must be at most {limit:g} on partition {members[0].partition}, "
            f"but is {asked}."
        )


def _check_nodes(plan: Plan, members: list[NodeGroup]) -> None:
    enough = sum(group.nodes for group in members if _node_suffices(plan, group))
    if enough < plan.hardware.nodes:
        raise SubmissionError(
            f"hardware={plan.hardware.name} must fit partition {members[0].partition}, "
            f"but asks for {_asked(plan)} and the partition has {'; '.join(_has(group) for group in members)}."
        )


def _node_suffices(plan: Plan, group: NodeGroup) -> bool:
    hardware = plan.hardware
    available = client.gpus(group.gres)
    found = available.get(hardware.gpu_type, 0) if hardware.gpu_type else sum(available.values())
    return (
        found >= hardware.gpus_per_node
        and group.cpus >= (hardware.cpus_per_task or 1) * (hardware.tasks_per_node or 1)
        and group.memory_mb >= (hardware.memory_gb or 0) * 1024
    )


def _asked(plan: Plan) -> str:
    hardware = plan.hardware
    cpus = (hardware.cpus_per_task or 1) * (hardware.tasks_per_node or 1)
    gpus = f"{hardware.gpus_per_node} {hardware.gpu_type or ''} GPUs, ".replace("  ", " ") * bool(
        hardware.gpus_per_node
    )
    return f"{hardware.nodes} node(s) with {gpus}{cpus} CPUs and {hardware.memory_gb or 0} GB each"


def _has(group: NodeGroup) -> str:
    return f"{group.nodes} with {group.gres}, {group.cpus} CPUs and {group.memory_mb // 1024} GB"
