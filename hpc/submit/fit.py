"""Whether a plan can ever start on the partitions it names.

Slurm itself accepts some jobs that no node can take and leaves them pending for ever (EnforcePartLimits=NO, its
default). Only what is sure is refused; what cannot be asked, or not be told, is left to sbatch.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpc.errors import SlurmError, SubmissionError
from hpc.slurm import client
from hpc.slurm.client import NodeGroup
from hpc.slurm.gres import Resource, resources
from hpc.submit.plan import Plan, asked_clusters
from hpc.submit.script import asked_gres


def check_fits(plan: Plan, environ: Mapping[str, str]) -> None:
    """Compare the plan with what sinfo says of its partitions: one of them must suffice.

    Args:
        plan: What is asked.
        environ: The user's wishes for sbatch stand here, too: SBATCH_PARTITION, SBATCH_CLUSTERS.

    Raises:
        SubmissionError: A partition does not exist, or all are smaller than what is asked.
    """
    clusters = asked_clusters(plan, environ)
    try:
        groups = client.node_groups(clusters)
    except SlurmError:
        return
    if "," in (clusters or "") or clusters == "all":  # Slurm chooses one of them, and it is not known which
        return
    asked = plan.cluster.partition or environ.get("SBATCH_PARTITION", "")
    names = [name.strip() for name in asked.split(",") if name.strip()]
    names = names or [group.partition for group in groups if group.is_default][:1]
    members = {name: [group for group in groups if group.partition == name] for name in names}
    unknown = [name for name in names if not members[name]]
    if unknown and groups:
        known = ", ".join(dict.fromkeys(group.partition for group in groups))
        raise SubmissionError(f"cluster.partition must be one of {known}, but is {', '.join(unknown)}.")
    refusals = [_refusal(plan, each) for each in members.values()]
    if refusals and all(refusals):
        raise SubmissionError(refusals[0])


def _refusal(plan: Plan, members: list[NodeGroup]) -> str:
    """Why no node of a partition can take the plan, or ""."""
    if not members:
        return ""
    asked, limit = plan.hardware.time_limit_minutes, members[0].time_limit_minutes
    if asked > limit:
        return (
            f"hardware.time_limit_minutes must be at most {limit:g} on partition {members[0].partition}, "
            f"but is {asked}."
        )
    enough = sum(group.nodes for group in members if _may_suffice(plan, group))
    if enough < plan.hardware.nodes:
        return (
            f"hardware={plan.hardware.name} must fit partition {members[0].partition}, "
            f"but asks for {_asked(plan)} and the partition has {'; '.join(_has(group) for group in members)}."
        )
    return ""


def _may_suffice(plan: Plan, group: NodeGroup) -> bool:
    """False where it is sure that such a node is too small; a group of unlike nodes says its smallest."""
    hardware = plan.hardware
    small_cpus = group.cpus < (hardware.cpus_per_task or 1) * (hardware.tasks_per_node or 1)
    small_memory = group.memory_mb < (hardware.memory_gb or 0) * 1024
    if (small_cpus or small_memory) and not group.is_mixed:
        return False
    return all(_has_enough(asked, resources(group.gres)) for asked in resources(asked_gres(plan) or ""))


def _has_enough(asked: Resource, there: list[Resource]) -> bool:
    """Whether a node has as many GPUs of this type, or of no named type. A resource that is not listed counts as 0."""
    alike = [each for each in there if each.name == asked.name]
    fitting = [each for each in alike if _may_be(asked.kind.lower(), each.kind.lower())]
    return sum(each.count for each in fitting) >= asked.count


def _may_be(asked: str, there: str) -> bool:
    """A site may let a100 stand for a100-sxm4-80gb: sbatch knows."""
    return asked in there or there in asked


def _asked(plan: Plan) -> str:
    hardware = plan.hardware
    cpus = (hardware.cpus_per_task or 1) * (hardware.tasks_per_node or 1)
    kind = f"{hardware.gpu_type} " if hardware.gpu_type else ""
    gpus = f"{hardware.gpus_per_node} {kind}GPUs, " if hardware.gpus_per_node else ""
    return f"{hardware.nodes} node(s) with {gpus}{cpus} CPUs and {hardware.memory_gb or 0} GB each"


def _has(group: NodeGroup) -> str:
    return f"{group.nodes} with {group.gres}, {group.cpus} CPUs and {group.memory_mb // 1024} GB"
