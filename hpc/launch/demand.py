"""How much of this machine does a point take, and how many points fit on it at once?

    GPUs     hardware.gpus_per_node, on all nodes that this machine stands for; no two points share one
    memory   hardware.memory_gb: together never more than there is
    CPUs     hardware.cpus_per_task for each rank, or 1 as with Slurm; only for points without GPUs, because CPUs can be
             shared, and a GPU must not wait for them; not where launch.max_parallel says how many points run

A point that asks for more memory or CPUs than there are runs alone: rehearsing a large job here is what cluster=local
is for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpc.config import Hardware, Settings
from hpc.errors import ConfigurationError
from hpc.launch.machine import Machine


@dataclass(frozen=True)
class Demand:
    """What one point takes while it runs.

    Args:
        ranks: Processes.
        cpus: For all of them; 0 where they do not count.
        memory_gb: For all of them; infinite where all memory was asked for, and 0 where nothing was said.
        gpus: For all of them.
    """

    ranks: int
    cpus: int
    memory_gb: float
    gpus: int


def demand_of(settings: Settings, machine: Machine) -> Demand:
    """What a point takes of this machine.

    Raises:
        ConfigurationError: It needs more GPUs than there are.
    """
    hardware, ranks = settings.hardware, settings.hardware.task_count
    gpus = _gpus(hardware, settings.runtime.device, machine)
    if gpus > len(machine.gpus):
        raise ConfigurationError(
            f"hardware={hardware.name} must have {gpus} GPU(s) to run on this machine, but `nvidia-smi -L` and "
            f"CUDA_VISIBLE_DEVICES show {len(machine.gpus)}: ask for fewer, or rehearse with runtime.device=cpu."
        )
    counts_cpus = not gpus and settings.launch.max_parallel is None
    memory = float("inf") if hardware.memory_gb == 0 else (hardware.memory_gb or 0) * hardware.nodes
    return Demand(ranks, ranks * (hardware.cpus_per_task or 1) if counts_cpus else 0, memory, gpus)


def has_room(asked: Demand, running: Collection[Demand], machine: Machine) -> bool:
    """Whether CPUs and memory suffice for one more point; GPUs are leased, not counted."""
    cpus = asked.cpus + sum(each.cpus for each in running)
    memory = asked.memory_gb + sum(each.memory_gb for each in running)
    return not running or (cpus <= machine.cpus and memory <= machine.memory_gb)


def most_at_once(demands: Sequence[Demand], limit: int, machine: Machine) -> int:
    """How many of these points run at once, at most, when they are started in order and none has ended."""
    started: list[Demand] = []
    for each in demands:
        gpus = each.gpus + sum(other.gpus for other in started)
        if len(started) < limit and gpus <= len(machine.gpus) and has_room(each, started, machine):
            started.append(each)
    return len(started)


def limit_of(settings: Settings) -> int:
    """How many points of this sweep may run at once at most, whatever there is room for."""
    site = settings.cluster.max_parallel_points
    return min(site, settings.launch.max_parallel or site)


def _gpus(hardware: Hardware, device: str, machine: Machine) -> int:
    """GPUs for all ranks. A point with hardware of its own gets what it asks for, as on a cluster, and no more."""
    if device not in ("auto", "cuda"):
        return 0
    if hardware.gpus_per_node:
        return hardware.gpus_per_node * hardware.nodes
    if device == "cuda":
        return hardware.task_count
    is_this_machine_as_it_is = hardware.tasks_per_node is None
    return hardware.task_count if is_this_machine_as_it_is and machine.gpus else 0
